"""What the tests of a desk share: texts to open on and to judge on, and how to read what it told the page."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.methods.laco import LacoSettings
from engine.models.texts import calibration_of
from tests.families import TEXTS
from tests.waiting import wait_for_jobs
from ui.page.bench.desk import Desk

DEPTH = 6
texts = calibration_of(TEXTS, "three texts")
held = calibration_of(("The rain fell on the hills all day.", "A boat came in with the tide.", "Two birds sat on a wire."), "held out")
SETTINGS = LacoSettings(C=2, I=1, lowest=0)


def opened(desk: Desk, folder: Path) -> Desk:
    desk.open(str(folder), "auto", texts, SETTINGS)
    wait_for_jobs()
    assert desk.runner.problem is None
    return desk


def shown(desk: Desk, component: str, prop: str = "data") -> Any:
    return json.loads(desk.page.since(0)[1][component][prop], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def rows(desk: Desk) -> list[dict[str, Any]]:
    return shown(desk, "board")["entries"]
