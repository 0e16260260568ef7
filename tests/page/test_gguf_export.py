"""The GGUF format on Export: offered and written for a model from a GGUF file."""

import json
from pathlib import Path

import pytest

from engine.errors import ExportError, PlanError
from engine.plans.files import plan_to_json
from engine.plans.rules import fold_spans
from tests.families import save_tiny
from tests.ggufs import save_gguf
from tests.page.benches import opened
from tests.waiting import wait_for_jobs
from ui.page.bench.desk import Desk
from ui.page.bench.plans.exporting import start_gguf
from ui.page.handlers.page_handlers import Handlers
from ui.page.sessions import Sessions

KEY = "0" * 32


@pytest.fixture
def desk(empty: Desk) -> Desk:
    return empty


def format_for(desk: Desk, model: Path) -> dict[str, object]:
    """Open a model, and return what the page is told of the choice of formats."""
    return opened(desk, model).page.since(0)[1]["format"]


@pytest.mark.usefixtures("in_this_process")
def test_gguf_is_offered_where_the_model_came_from_one_and_written_beside_the_others(desk: Desk, tmp_path: Path) -> None:
    assert format_for(desk, save_gguf(tmp_path / "tiny.gguf", "llama"))["visible"] is True
    desk.load_plan(plan_to_json(fold_spans(6, [(2, 4)], "mean")))
    with pytest.raises(PlanError, match="float weights"):
        start_gguf(desk, "file", 0.9, "smaller")
    desk.load_plan(plan_to_json(fold_spans(6, [(2, 4)], "reference")))
    with pytest.raises(ExportError, match="not a valid name"):
        start_gguf(desk, "file", 0.9, "../smaller")
    start_gguf(desk, "file", 0.9, "smaller")
    wait_for_jobs()
    report = json.loads(desk.page.since(0)[1]["report"]["value"])
    assert (report["passed"], report["path"]) == (True, str(tmp_path / "exports" / "smaller.gguf"))
    with pytest.raises(ExportError, match="exists already"):
        start_gguf(desk, "file", 0.9, "smaller.gguf")
    assert format_for(desk, save_tiny(tmp_path / "model", "llama")) == {"visible": False, "value": "safetensors"}


def test_the_handler_asks_for_the_format_chosen(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "exports")
    on = Handlers(sessions, "demo", {})
    answer = on.export(KEY, "map", 0.9, "name", "gguf", "auto", "no size")  # a size is nothing to a GGUF file
    assert json.loads(answer[0])["problem"] == "no model is open yet"
