"""A killed map, search or measurement leaves no partial file; run again, it ends as if it had never been killed.

`make soak` tries a hundred, each killed one to three times; here it is a few.
"""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.families import save_tiny
from tests.foreign.trying import begun, tried
from tests.recovering import SENTENCES

KILLS = max(1, int(os.environ.get("LAYERSCOPE_KILLS", "4")) // 8)  # of each
_GIVEN = ("--model", "whole", "--out", "found.json")
VERBS = {
    "map": ("map", *_GIVEN, "--calibration", "texts.txt", "-C", "2", "-I", "1"),
    "search": ("search", *_GIVEN, "--keep", "4", "--text", "texts.txt", "--tokens", "300", "--seconds", "600"),
    "measuring": ("importance", *_GIVEN, "--axis", "neurons", "--text", "texts.txt"),
    "judging": ("evaluate", *_GIVEN, "--plan", "plan.json", "--text", "texts.txt", "--context", "16"),
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    save_tiny(folder / "whole", "llama")
    (folder / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    code, err = tried(("baseline", "--model", "whole", "--method", "tail", "--keep", "4", "--out", "plan.json"), folder)
    assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def undisturbed(stock: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that returns what a verb finds when nobody kills it, and in how many seconds; once for all."""
    known: dict[str, tuple[Any, float]] = {}

    def find(name: str) -> tuple[Any, float]:
        if name not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            shutil.copytree(stock, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache"))
            began = time.monotonic()
            assert tried(VERBS[name], folder)[0] == 0
            known[name] = found_in(folder), time.monotonic() - began
        return known[name]

    return find


def found_in(folder: Path) -> Any:
    """Return what a verb wrote, without how long it took."""
    return _timeless(json.loads((folder / "found.json").read_text(encoding="utf-8")))


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key != "seconds"}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("number", range(KILLS))
@pytest.mark.parametrize("name", VERBS)
def test_what_is_killed_and_asked_again_comes_to_the_same(name: str, number: int, stock: Path, undisturbed: Any, tmp_path: Path) -> None:
    wanted, seconds = undisturbed(name)
    shutil.copytree(stock, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache"))
    chance = random.Random(number)
    for _ in range(chance.randint(1, 3)):
        child = begun(VERBS[name], tmp_path)
        time.sleep(chance.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if (tmp_path / "found.json").exists():  # whole
            assert found_in(tmp_path) == wanted
            (tmp_path / "found.json").unlink()
    code, err = tried(VERBS[name], tmp_path)
    assert code == 0, err
    assert found_in(tmp_path) == wanted
