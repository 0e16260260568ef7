"""Shared fixtures: a cache for the tests alone, the demo model, and tiny models that are opened once per session."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads, here and in child processes, crawl where other work shares the cores

import json
import sys
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from engine.export.checkpoint import export as checkpoint
from engine.jobs import drain
from engine.models import loading
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.recover.run import run_process
from engine.types import Model
from tests.answers import Answer
from tests.families import save_tiny
from tests.here import here
from ui.terminal import cli

settings.register_profile("suite", deadline=None, derandomize=True)  # a shared machine has no deadlines; a failure must come back
settings.load_profile("suite")


LEARNING = ("recover", "training")
LEARN_TOO = ("page/test_recovering.py", "page/test_shearing.py", "terminal/test_recovering.py")
LONGEST = ("browser/test_journey.py", "browser/test_lab.py", "recover/test_parallel.py", "test_readme.py")
# Files and tests that take more than a second of a processor, as `--durations=0` tells on an idle machine.
SLOW = set((Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").split())


def marks_of(item: pytest.Item, place: Path) -> Iterator[str]:
    """Yield what `make check` leaves out a test for."""
    if place.parts[0] == "browser":
        yield "browser"
    if {"demo", "short"} & set(getattr(item, "fixturenames", ())) or place.name == "test_readme.py":
        yield "demo"
    if place.parts[0] in LEARNING or str(place) in LEARN_TOO:
        yield "training"
    if {str(place), f"{place}::{getattr(item, 'originalname', item.name)}"} & SLOW:
        yield "slow"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the marks and the order. The files that take longest go first, then in turns those whose tests wait for processes and pages
    and those that compute: neither do the processors idle, nor do many browsers hinder each other, nor does one file come last alone."""
    files = dict[pytest.Item, str]()
    for item in items:
        place = item.path.relative_to(Path(__file__).parent)
        files[item] = place.as_posix()
        for mark in marks_of(item, place):
            item.add_marker(mark)
    names = list(dict.fromkeys(files.values()))
    waiting = [name for name in names if name.startswith(("browser", "terminal"))]
    turns = zip_longest(waiting, (name for name in names if name not in waiting))
    order = {name: number for number, name in enumerate(dict.fromkeys([*LONGEST, *(name for turn in turns for name in turn if name)]))}
    items.sort(key=lambda item: order[files[item]])


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point LAYERSCOPE_CACHE at an empty folder. Only its converted GGUF files are shared: among the processes of this run,
    or with LAYERSCOPE_TEST_CACHE.

    A similarity that yesterday's code measured would prove nothing about today's, so those are never lent.
    """
    folder, base = tmp_path_factory.mktemp("cache"), tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # each worker has a folder of its own in the run's
    converted = Path(os.environ.get("LAYERSCOPE_TEST_CACHE", shared)).resolve() / "converted"
    converted.mkdir(parents=True, exist_ok=True)
    (folder / "converted").symlink_to(converted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERSCOPE_CACHE", str(folder))
        yield


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty LAYERSCOPE_CACHE for one test, so that nothing was measured before it."""
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / "fresh-cache"))
    return tmp_path / "fresh-cache"


@pytest.fixture(scope="session")
def demo() -> Model:
    """The demo model, open."""
    return drain(open_model(parse_source("demo")))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    """A function that opens a tiny random model of a family, with changes to its config; the same one for the same arguments."""
    opened: dict[str, Model] = {}

    def open_tiny(family: str, **changes: Any) -> Model:
        key = json.dumps([family, changes], sort_keys=True)
        if key not in opened:
            folder = save_tiny(tmp_path_factory.mktemp(family), family, **changes)
            opened[key] = drain(open_model(parse_source(str(folder))))
        return opened[key]

    return open_tiny


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert, learn and check in this process, by the same code, which spares the seconds that another process takes to start."""
    for caller in (checkpoint, loading, run_process):
        monkeypatch.setattr(caller, "in_fresh_process", here)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run the command in this process, which spares the seconds that starting Python and torch takes."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["layerscope", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return Answer(stopped.value.code, *capfd.readouterr())

    return run
