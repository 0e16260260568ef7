"""Shared parts of the workbench tests: texts, settings, and reading the updates sent to the page."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.methods.depth.laco import LacoSettings
from engine.models.texts import calibration_of
from tests.families import TEXTS
from tests.waiting import wait_for_jobs
from ui.page.bench.desk import Desk

DEPTH = 6
DATA = (
    "similarity",
    "norms",
    "weights",
    "landscape",
    "fold",
    "importance",
    "widths",
    "widthcosts",
    "masks",
)  # the components that wait for data
texts = calibration_of(TEXTS, "three texts")
other_texts = calibration_of(("Something else entirely.", "And one more text."), "two texts")
held = calibration_of(("The rain fell on the hills all day.", "A boat came in with the tide.", "Two birds sat on a wire."), "held out")
SETTINGS = LacoSettings(C=2, I=1, lowest=0)


def open_on(bench: Desk, folder: Path, settings: LacoSettings = SETTINGS, of: Any = texts) -> None:
    """Open a model, which may go wrong."""
    bench.open(str(folder), "auto", of, settings)
    wait_for_jobs()


def opened(bench: Desk, folder: Path, settings: LacoSettings = SETTINGS) -> Desk:
    """A desk that has opened a model and has nothing left to do."""
    open_on(bench, folder, settings)
    assert bench.runner.problem is None
    return bench


def strict(text: str) -> Any:
    """Read JSON as a browser does: it knows no NaN and no Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def shown(bench: Desk, component: str, prop: str = "data") -> Any:
    return strict(bench.page.since(0)[1][component][prop])


def told_since(bench: Desk, serial: int) -> set[str]:
    return set(bench.page.since(serial)[1])


def rows(bench: Desk) -> list[dict[str, Any]]:
    """The board's."""
    return shown(bench, "board")["entries"]
