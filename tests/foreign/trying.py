"""A verb is tried on files that come from elsewhere, in a process of its own whose time and memory are bounded."""

import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from engine.export import checkpoint
from engine.models import loading
from tests.here import here
from ui.terminal import cli

SECONDS, BYTES = 30, 2 << 30  # of the processor's time, and of memory beyond what the process begins with
_PATIENCE = 300  # seconds in all, after which who uses no time is taken to hang; others may share the machine
_DIED = {-signal.SIGXCPU: f"took more than {SECONDS} s", -signal.SIGALRM: "hangs", -signal.SIGSEGV: "crashed"}


def outcome(arguments: Sequence[object], folder: Path, cache: Path) -> str:
    """Run the command line on some arguments; return "" where it succeeds or tells in one line what is wrong, else what happened."""
    said = folder / "said"
    child = os.fork()
    if not child:
        _bounded(arguments, said, cache)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    err = said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""
    if code < 0:
        return f"{_DIED.get(code, f'died of signal {-code}')}: {err[-300:]}"
    told = [line for line in err.splitlines() if line.startswith("layerscope: ") and "warning" not in line]
    if "Traceback" in err or code not in (0, 1, 2) or len(told) != (code == 2):
        return f"ended with {code}: {err[-1800:]}"
    return ""


def _bounded(arguments: Sequence[object], said: Path, cache: Path) -> None:
    """Become the process that is tried; never returns."""
    code = 99
    try:
        signal.alarm(_PATIENCE)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        os.environ["LAYERSCOPE_CACHE"] = str(cache)
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
        for caller in (checkpoint, loading):
            caller.in_fresh_process = here  # type: ignore[attr-defined]
        sys.argv = ["layerscope", *map(str, arguments)]
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
