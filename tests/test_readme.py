"""The README does not rot: every command in it is run, every file in its tree exists and none is missing from it."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.answers import Answer

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.S)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
VERBS = [command for command in COMMANDS if "layerscope" in command and " app" not in command]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(command: list[str], port: int, cwd: Path, **environment: str) -> None:
    """Start a server, see that its page is Layerscope's, and stop it."""
    process = subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **environment}, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
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


def test_the_verbs_run_in_order_on_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: Callable[..., Answer]) -> None:
    monkeypatch.chdir(tmp_path)
    assert [shlex.split(command)[1] for command in VERBS] == [
        *(
            "profile",
            "propose",
            "map",
            "sweep",
            "export",
            "export",
            "search",
            "baseline",
            "repair",
            "importance",
            "trim",
            "prune",
            "shapes",
            "evaluate",
            "measure",
            "ablate",
            "tasks",
            "report",
            "write",
            "models",
            "doctor",
        ),
    ]
    for command in VERBS:
        words = shlex.split(command)
        assert words[0] == ".venv/bin/layerscope"
        done = inside(*words[1:])
        assert done.code == 0, done.err
        if words[1] == "export":
            assert done.json["passed"]
            assert next(check for check in done.json["checks"] if check["name"] == "logits")["detail"].startswith("equal bit for bit")
        made = words[words.index("--out") + 1]
        assert (tmp_path / made).exists()


def test_the_app_command_is_answered(tmp_path: Path) -> None:
    (command,) = [command for command in COMMANDS if " app" in command and "layerscope" in command]
    port = free_port()
    words = shlex.split(command.replace("7860", str(port)))
    answers([str(Path(sys.executable).parent / "layerscope"), *words[1:]], port, tmp_path)


@pytest.mark.skipif(not (ROOT / ".venv" / ".ready").exists(), reason="only where make has set up .venv; make test always has")
def test_make_app_is_answered() -> None:
    assert "make app" in COMMANDS
    port = free_port()
    answers(["make", "app", f"PORT={port}"], port, ROOT)


def test_the_package_installs_with_its_assets(tmp_path: Path) -> None:
    assert "`pip install .`" in README
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site"), str(ROOT)], check=True
    )
    listed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import engine.models.texts as c, ui.page.components.chart as u; print(c.__file__, c.bundled('korean').name, *u.SCRIPTS)",
        ],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert listed[0].startswith(str(tmp_path / "site"))
    assert listed[1] == "korean"
    assert all(Path(script).exists() for script in listed[2:])
    assert (tmp_path / "site" / "assets" / "model_card.md.j2").exists()


def test_the_tree_names_every_room_and_nothing_that_is_not_there() -> None:
    """One line a room, and one a file that a newcomer looks for."""
    tree = re.search(r"## The tree\n\n```\n(.*?)```", README, re.S)
    assert tree
    folders: list[str] = []
    named: set[str] = set()
    for line in tree[1].splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]
        folders[len(indent) // 2 :] = [name.rstrip("/")]
        named.add("/".join(folders))
    assert all((ROOT / name).exists() for name in named)
    rooms = {str(path.parent.relative_to(ROOT)) for top in ("engine", "ui") for path in (ROOT / top).rglob("__init__.py")}
    assert rooms <= named
