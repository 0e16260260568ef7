"""A workbench to work on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.families import save_tiny
from tests.page.benches import opened
from tests.waiting import wait_for_jobs
from ui.page.bench import shared
from ui.page.bench.desk import Desk as Workbench


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny", "llama")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> Iterator[Workbench]:
    """A workbench without a model, in a house where nothing was opened or measured before."""
    monkeypatch.setattr(shared, "_models", {})
    bench = Workbench(tmp_path / "exports")
    yield bench
    bench.runner.cancel()
    wait_for_jobs()


@pytest.fixture
def bench(empty: Workbench, folder: Path) -> Workbench:
    """A workbench that has opened the tiny model and has nothing left to do."""
    opened(empty, folder)
    assert empty.runner.problem is None
    return empty
