"""A workbench, a desk and a page to work on."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from engine.judge.speed import measure_speed
from tests.families import save_tiny
from tests.page.benches import opened
from tests.page.pages import Page
from tests.waiting import wait_for_jobs
from ui.page.bench import jobs, shared
from ui.page.bench.desk import Desk
from ui.page.bench.plans import measuring, searching

NICE = jobs._NICE  # of the product


@pytest.fixture(autouse=True)
def _in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long jobs do not wait for all else that runs on the machine: the other tests of this run."""
    monkeypatch.setattr(jobs, "_NICE", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny", "llama")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> Iterator[Desk]:
    """A workbench without a model, in a house where nothing was opened or measured before."""
    monkeypatch.setattr(shared, "_models", {})
    bench = Desk(tmp_path / "exports")
    yield bench
    bench.runner.cancel()
    wait_for_jobs()


@pytest.fixture
def bench(empty: Desk, folder: Path) -> Desk:
    """A workbench that has opened the tiny model and has nothing left to do."""
    return opened(empty, folder)


@pytest.fixture
def desk(empty: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The same where searches, writing and timing are short."""
    monkeypatch.setattr(searching, "PRACTICE_TOKENS", 200)
    monkeypatch.setattr(measuring, "measure_speed", partial(measure_speed, prompt_tokens=16, new_tokens=4, rounds=2))
    monkeypatch.setattr(measuring, "PROMPTS", ("Once", "The sea"))
    return opened(empty, folder)


@pytest.fixture(scope="module")
def deeper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "deeper", "llama", num_hidden_layers=9, seed=3)


@pytest.fixture
def page(folder: Path, tmp_path: Path) -> Page:
    """A page that has entered, and whose workbench has nothing left to do."""
    page = Page(folder, tmp_path / "exports")
    page.enter(query="?C=2&I=1&L=0")
    wait_for_jobs()
    return page
