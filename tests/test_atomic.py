"""Temporary folders: removed at the end, or by the next process where their owner was killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

from engine.atomic import making, sweep

PREFIX = ".making-"
HOLD = "import sys, time; from pathlib import Path; from engine.atomic import making\nwith making(Path(sys.argv[1]), sys.argv[2]) as it: print(it, flush=True); time.sleep(60)"  # noqa: E501


def held(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """Another process that makes something; and where."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), PREFIX], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    return child, Path(child.stdout.readline().strip())


def test_a_folder_is_there_while_it_is_needed(tmp_path: Path) -> None:
    with making(tmp_path, PREFIX) as folder:
        (folder / "half").write_text("x")
        assert folder.parent == tmp_path
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(tmp_path: Path) -> None:
    (living, there), (killed, left) = held(tmp_path), held(tmp_path)
    killed.kill()
    killed.wait()
    assert left.exists()
    with making(tmp_path, PREFIX):
        assert not left.exists()
        assert there.exists()
    living.kill()
    living.wait()
    assert sweep(tmp_path, PREFIX) == [there]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_just_being_made_is_left_alone_and_so_is_a_link(tmp_path: Path) -> None:
    young, old, elsewhere = tmp_path / f"{PREFIX}young", tmp_path / f"{PREFIX}old", tmp_path / "elsewhere"
    for folder in (young, old, elsewhere):
        folder.mkdir()
    os.utime(old, (time.time() - 3600,) * 2)
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    assert sweep(tmp_path, PREFIX) == [old]
    assert young.exists()
    assert elsewhere.exists()
