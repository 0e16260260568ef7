"""The documentation's examples run as written: the example commands in order, the README's first command, and its installation.

The examples run in this process, on a tiny model in the form and of the depth that the demo has.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.answers import Answer
from tests.families import tiny_network
from tests.ggufs import write_gguf

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MANUAL = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```sh\n(.*?)```", README, re.S)[0].splitlines()
EXAMPLES = re.findall(r"```sh\n(.*?)```", MANUAL, re.S)[0].splitlines()
VERBS = [shlex.split(line)[1] for line in EXAMPLES]
TINY = {"num_hidden_layers": 30, "intermediate_size": 1200}  # as deep as the demo, and wider than the examples' trim
IN_PLACE_OF = {"132M": "3.4M", "6": "1", "5": "1"}  # what is too large, or takes too long


def on_tiny(words: list[str], model: Path) -> list[str]:
    """Return an example's words for the tiny model: its size, and fewer seconds."""
    short = (IN_PLACE_OF.get(word, word) if before in ("--params", "--seconds") else word for before, word in pairwise(words))
    return [words[0], *(str(model) if word == "demo" else word for word in short)]


def test_the_examples_name_every_command_but_those_that_other_pages_show(inside: Callable[..., Answer]) -> None:
    listed = re.findall(r"^### (\w+)$", MANUAL, re.M)
    assert set(listed) - set(VERBS) == {"recover", "shear"}
    elsewhere = (ROOT / "docs" / "recovery.md").read_text(encoding="utf-8")
    assert all(f"`layerscope {verb}`" in elsewhere for verb in ("recover", "shear"))


@pytest.mark.usefixtures("in_this_process")
def test_the_examples_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: Callable[..., Answer]) -> None:
    monkeypatch.chdir(tmp_path)
    model = write_gguf(tmp_path / "tiny.gguf", tiny_network("llama", **TINY))
    for line in EXAMPLES:
        words = shlex.split(line)
        if words[1] == "app":
            continue
        done = inside(*on_tiny(words, model)[1:])
        assert done.code == 0, (line, done.err)
        if words[1] == "export":
            assert done.json["passed"]
            assert next(check for check in done.json["checks"] if check["name"] == "logits")["detail"].startswith("equal bit for bit")
        assert (tmp_path / words[words.index("--out") + 1]).exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_first_command_is_answered() -> None:
    """`make app` where make has set up .venv, as `make test` always has; else the line that it runs."""
    port = free_port()
    assert "layerscope app --port 7860" in EXAMPLES
    assert COMMANDS[0].split("#")[0].strip() == "make app"
    made = (ROOT / ".venv" / ".ready").exists()
    command = ["make", "app", f"PORT={port}"] if made else [sys.executable, "-m", "ui", "app", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ}, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(480):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=2) as answer:
                    assert b"ls-fold" in answer.read()
                return
            except OSError:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.25)
        pytest.fail(f"{command} never answered")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=20)


def test_the_second_command_is_what_ci_runs() -> None:
    assert COMMANDS[1].split("#")[0].strip() == "make test"
    flow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert "run: make test\n" in flow
    assert all(system in flow for system in ("ubuntu-latest", "macos-latest"))


def test_the_package_holds_every_module_and_every_asset(tmp_path: Path) -> None:
    assert "`pip install .`" in README
    (tmp_path / "source").mkdir()
    for name in ("engine", "ui", "assets", "pyproject.toml", "README.md", "LICENSE"):  # copied: a build leaves files beside its sources
        copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copied(ROOT / name, tmp_path / "source" / name)
    build = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=tmp_path / "source", check=True, capture_output=True)
    (wheel,) = tmp_path.glob("layerscope-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    files = (path for name in ("engine", "ui", "assets") for path in (tmp_path / "source" / name).rglob("*") if path.is_file())
    needed = {str(path.relative_to(tmp_path / "source")) for path in files if path.suffix != ".pyc"}
    assert {"engine/types.py", "ui/page/components/chart.py", "assets/model_card.md.j2", "assets/js/core.js"} <= needed <= held
    assert (
        "layerscope = ui.terminal.cli:main" in zipfile.ZipFile(wheel).read(next(n for n in held if n.endswith("entry_points.txt"))).decode()
    )
