"""The board, the search and Compare, on a desk with a tiny model."""

import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import LayerscopeError, PlanError, SettingsError
from engine.jobs import drain
from engine.judge.evaluation import Judge
from engine.messages import decode_message
from engine.plans.files import plan_from_json
from engine.plans.rules import fold_spans
from tests.families import save_tiny
from tests.page.benches import DEPTH, held, opened, rows, shown
from tests.waiting import wait_for_jobs
from ui.page.bench import shared
from ui.page.bench.board import Board
from ui.page.bench.desk import Desk
from ui.page.bench.plans import measuring

# --- judging ---


def test_a_judged_plan_is_on_the_board_with_what_the_judge_found(desk: Desk) -> None:
    desk.set_spans([[1, 2]])
    wait_for_jobs()
    desk.comparison.judge("hand-made", 0.9, held, 100)
    wait_for_jobs()
    (row,) = rows(desk)
    assert desk.model is not None
    found = drain(Judge(desk.model, held, limit=100).judge(fold_spans(DEPTH, [(1, 2)], "reference")))
    assert row["evaluation"]["perplexity"]["ratio"] == pytest.approx(found.perplexity.ratio)
    assert row["evaluation"]["protocol"]["texts"] == "held out"
    assert (decode_message(row["label"]), row["depth"]) == ("by hand", DEPTH - 1)


def test_one_task_measures_cost_and_what_else_is_wanted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[str] = []
    submit = desk.submit
    monkeypatch.setattr(desk, "submit", lambda kind, *args, **more: kinds.append(kind) or submit(kind, *args, **more))
    desk.comparison.judge("map", 0.0, held, 100, ["samples", "speed", "tasks"], names="bundled", limit=5, context=50, batch=None)
    wait_for_jobs()
    assert (kinds, desk.runner.problem) == (["judge"], None)
    (row,) = rows(desk)
    assert {"evaluation", "samples", "verdict", "speed", "memory", "tasks"} <= set(row)
    assert (row["memory"]["context"], row["memory"]["batch"]) == (50, 1)
    assert {score["source"] * 5 % 1 for score in row["tasks"]} == {0}  # of five items each


def test_what_is_measured_is_on_the_board_at_once_and_not_measured_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something more urgent comes while the speed is measured for the first time."""
    seen: list[set[str]] = []
    wrote: list[int] = []
    speed, writing = measuring.measure_speed, measuring.generate_beside

    def timed(model: Any, plan: Any) -> Any:
        seen.append(set(rows(desk)[0]))
        if len(seen) == 1:
            desk.exploring.measure_removal()
        return speed(model, plan)

    monkeypatch.setattr(measuring, "measure_speed", timed)
    monkeypatch.setattr(measuring, "generate_beside", lambda *args: wrote.append(1) or writing(*args))
    desk.comparison.judge("map", 0.0, held, 100, ["samples", "speed"])
    wait_for_jobs()
    assert len(seen) == 2
    assert all({"evaluation", "samples"} <= fields and "speed" not in fields for fields in seen)
    assert len(wrote) == 1
    assert "speed" in rows(desk)[0]


def test_options_that_make_no_sense_are_refused_before_anything_is_measured(desk: Desk) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        desk.comparison.judge("map", 0.0, held, 100, ["speed"], context=-1)
    with pytest.raises(LayerscopeError, match="'beauty'"):
        desk.comparison.judge("map", 0.0, held, 100, ["beauty"])
    assert desk.runner.state() is None
    assert rows(desk) == []


def test_the_whole_map_is_judged_the_cheapest_plan_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []
    judge = Judge.judge
    monkeypatch.setattr(Judge, "judge", lambda self, plan: order.append(plan.depth - plan.prefix) or judge(self, plan))
    desk.comparison.judge_map(held, 100)
    wait_for_jobs()
    assert desk.map is not None
    folded = {step.proposal.plan.blocks for step in desk.map.steps if step.proposal.plan.folds}
    assert order == sorted(order)
    assert len(order) == len(rows(desk)) == len(folded)
    ratios = shown(desk, "fold", "judged")
    assert {int(index) for index in ratios} == {index for index, step in enumerate(desk.map.steps) if step.proposal.plan.blocks in folded}


def test_judging_the_map_can_be_stopped_with_what_it_has(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge.judge

    def stops_after_the_first(self: Judge, plan: Any) -> Any:
        if rows(desk):
            desk.cancel()
        return judge(self, plan)

    monkeypatch.setattr(Judge, "judge", stops_after_the_first)
    desk.comparison.judge_map(held, 100)
    wait_for_jobs()
    assert len(rows(desk)) == 1
    assert desk.runner.problem is None


def test_a_broken_plan_is_shown_as_what_it_is(desk: Desk) -> None:
    plan = {
        "source_depth": DEPTH,
        "blocks": [{"home": 0, "mix": [[0, 1e38], [1, 1e38]]}, *({"home": i, "mix": [[i, 1.0]]} for i in range(2, 6))],
    }
    desk.load_plan(plan)
    wait_for_jobs()
    desk.comparison.judge("file", 0.9, held, 100)
    wait_for_jobs()
    (row,) = rows(desk)
    assert row["evaluation"]["perplexity"]["ratio"] is None
    assert row["evaluation"]["perplexity"]["source"] > 1


# --- the board ---


def test_the_board_outlives_the_program(desk: Desk, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.comparison.judge("map", 0.0, held, 100)
    wait_for_jobs()
    before = rows(desk)
    monkeypatch.setattr(shared, "_models", {})
    assert rows(opened(Desk(tmp_path), folder)) == before


def test_another_model_has_a_board_of_its_own(desk: Desk, tmp_path: Path) -> None:
    desk.comparison.judge("map", 0.0, held, 100)
    wait_for_jobs()
    assert rows(opened(desk, save_tiny(tmp_path / "other", "llama", seed=1))) == []


def test_rows_can_be_shown_and_removed(desk: Desk) -> None:
    plan = fold_spans(DEPTH, [(2, 4)], "mean")
    name = desk.comparison.board.pin(plan, "mine")
    desk.comparison.act("show", name)
    wait_for_jobs()
    assert desk.chosen("found", 0.9)[0].blocks == plan.blocks
    assert shown(desk, "fold", "found")["depth"] == DEPTH - 2
    desk.comparison.act("remove", name)
    assert rows(desk) == []
    with pytest.raises(PlanError, match="no longer"):
        desk.comparison.act("show", name)
    name = desk.comparison.board.pin(plan, "mine")
    with pytest.raises(LayerscopeError, match="fly"):
        desk.comparison.act("fly", name)


def test_pinning_again_adds_and_takes_nothing_away(fresh_cache: Path) -> None:
    board, plan = Board("a model"), fold_spans(DEPTH, [(2, 4)], "mean")
    board.pin(plan, "mine", evaluation={"kl": 1.0})
    name = board.pin(plan, "", speed={"decode_ratio": float("nan")})
    assert board.entries()[name]["label"] == "mine"
    assert board.entries()[name]["evaluation"] == {"kl": 1.0}
    assert board.entries()[name]["speed"] == {"decode_ratio": None}
    assert board.plan(name) == plan_from_json(board.entries()[name]["plan"])
    assert Board("another").entries() == {}


def test_speed_and_writing_are_added_to_the_row(desk: Desk) -> None:
    name = desk.comparison.board.pin(fold_spans(DEPTH, [(2, 4)], "mean"), "mine")
    for what in ("samples", "speed", "tasks"):
        desk.comparison.act(what, name)
        wait_for_jobs()
        assert desk.runner.problem is None
    (row,) = rows(desk)
    assert {score["task"] for score in row["tasks"]} == {"layerscope_cloze", "layerscope_choice"}
    assert row["speed"]["decode_ratio"] > 0
    assert row["memory"]["plan_parameters"] == row["parameters"]
    assert row["verdict"] in ("stable", "loops", "empty")
    assert {"prompt", "decoding", "source", "plan"} <= set(row["samples"][0])


def test_memory_is_counted_for_the_cache_asked_for(desk: Desk) -> None:
    name = desk.comparison.board.pin(fold_spans(DEPTH, [(2, 4)], "mean"), "mine")
    desk.comparison.act("speed", name, context=50, batch=2)
    wait_for_jobs()
    (row,) = rows(desk)
    assert (row["memory"]["context"], row["memory"]["batch"]) == (50, 2)
    with pytest.raises(SettingsError, match="at least 1"):
        desk.comparison.act("speed", name, context=-1)


def test_tasks_are_those_asked_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    name = desk.comparison.board.pin(fold_spans(DEPTH, [(2, 4)], "mean"), "mine")
    desk.comparison.act("tasks", name, names="bundled", limit=5)
    wait_for_jobs()
    (row,) = rows(desk)
    assert {score["source"] * 5 % 1 for score in row["tasks"]} == {0}  # of five items each
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    desk.comparison.act("tasks", name, names="arc_easy, hellaswag")
    wait_for_jobs()
    assert "layerscope[eval]" in desk.runner.problem
