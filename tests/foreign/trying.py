"""Run a command on foreign files in a process of its own with limited time and memory."""

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.export.checkpoint import export as checkpoint
from engine.models import loading
from engine.recover.run import run_process
from tests.here import here
from tests.recovering import shortened
from ui.terminal import cli

SECONDS, BYTES = 30, 2 << 30  # of the processor's time, and of memory beyond what the process begins with
_PATIENCE = 300  # seconds in all, after which who uses no time is taken to hang; others may share the machine
_DIED = {-signal.SIGXCPU: f"took more than {SECONDS} s", -signal.SIGALRM: "hangs", -signal.SIGSEGV: "crashed"}


def outcome(arguments: Sequence[str], folder: Path) -> str:
    """Run the command line in a folder; return "" where it succeeds or tells in one line what is wrong, else what happened."""
    code, err = tried(arguments, folder)
    if code < 0:
        return f"{_DIED.get(code, f'died of signal {-code}')}: {err[-300:]}"
    told = [line for line in err.splitlines() if line.startswith("layerscope: ") and "warning" not in line]
    if "Traceback" in err or code not in (0, 1, 2) or len(told) != (code == 2):
        return f"ended with {code}: {err[-1800:]}"
    return ""


def tried(arguments: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run the command line in a folder, whose cache is in it; return its exit code, or less than none for what it died of, and what it
    said on standard error."""
    _, status = os.waitpid(begun(arguments, folder), 0)
    said = folder / "said"
    return os.waitstatus_to_exitcode(status), said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""


def begun(arguments: Sequence[str], folder: Path) -> int:
    """Begin to run the command line in a folder; return the process."""
    child = os.fork()
    if not child:
        _bounded(arguments, folder, folder / "said")
    return child


def patched(set_to: Callable[[object, str, Any], None]) -> None:
    """Let children's work be done where it is asked for, and learning read little."""
    for caller in (run_process, checkpoint, loading):
        set_to(caller, "in_fresh_process", here)
    shortened(set_to)


def _bounded(arguments: Sequence[str], folder: Path, said: Path) -> None:
    """Become the process that is tried; never returns."""
    code = 99
    try:
        signal.alarm(_PATIENCE)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        os.chdir(folder)
        os.environ["LAYERSCOPE_CACHE"] = str(folder / "cache")
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
        patched(setattr)
        sys.argv = ["layerscope", *arguments]
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
