"""The sweep on the page: Layer Collapse's plans as they come, and other methods' plans on the same texts."""

from pathlib import Path
from typing import Any

import pytest

from engine.errors import SettingsError
from engine.jobs import drain
from engine.judge import cost
from engine.judge.cost import cost_judge, cost_of
from engine.judge.similarity import SimilarityMeter, blocks_key
from engine.methods.depth.laco import LacoSettings, propose
from engine.plans.rules import fold_spans
from engine.search.settings import SweepSettings
from engine.types import Plan
from tests.page.benches import opened, shown, texts
from tests.waiting import wait_for_jobs
from ui.page.bench.desk import Desk


@pytest.fixture
def desk(empty: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(cost.cost_judge, "__defaults__", ("english", 300))
    return opened(empty, folder)


def told(desk: Desk) -> dict[str, Any]:
    return shown(desk, "sweep")


def test_each_point_is_the_plan_that_its_settings_give_with_its_cost(desk: Desk) -> None:
    desk.sweeping.start(SweepSettings(600))
    wait_for_jobs()
    assert desk.runner.problem is None
    model = desk.open_meter().model
    meter, judge = SimilarityMeter(model, texts), cost_judge(model, "english", 300)
    entries = told(desk)["entries"]
    assert {entry["rule"] for entry in entries} >= {"reference", "keep-first", "keep-last", "mean"}
    for entry in entries[:: max(1, len(entries) // 12)]:
        plan = drain(propose(meter, LacoSettings(entry["C"], entry["I"], entry["T"], 0, None, entry["rule"]))).plan
        assert plan.depth == entry["depth"]
        assert entry["ratio"] == cost_of(drain(judge.judge(plan))).ratio
        assert desk.costing.of(plan) is not None  # taken to Fold, it has its cost at once


def test_what_others_found_is_measured_on_the_same_texts_and_says_what_it_was_judged_on(desk: Desk) -> None:
    plan = Plan(6, fold_spans(6, [(1, 2)], "keep-first").blocks, "search")
    evaluation = {"perplexity": {"ratio": 9.0}, "protocol": {"texts": "somewhere else"}}
    desk.comparison.board.pin(plan, "searched", evaluation=evaluation)
    desk.comparison.board.pin(desk.map.steps[1].proposal.plan, "LaCo")  # type: ignore[union-attr]
    desk.sweeping.start(SweepSettings(600))
    wait_for_jobs()
    (other,) = told(desk)["others"]
    expected = cost_of(drain(cost_judge(desk.open_meter().model, "english", 300).judge(plan)))
    assert (other["label"], other["depth"], other["name"]) == ("searched", 5, blocks_key(plan.blocks))
    assert (other["ratio"], other["judged"], other["texts"]) == (expected.ratio, 9.0, "somewhere else")


def test_a_sweep_that_is_stopped_leaves_what_it_has(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    found = desk.sweeping._found

    def stops(entry: Any) -> None:
        found(entry)
        if len(told(desk)["entries"]) == 3:
            desk.cancel()

    monkeypatch.setattr(desk.sweeping, "_found", stops)
    desk.sweeping.start(SweepSettings(600))
    wait_for_jobs()
    assert len(told(desk)["entries"]) == 3
    assert desk.runner.problem is None
    with pytest.raises(SettingsError, match="needs a positive time limit"):
        desk.sweeping.start(SweepSettings(0))
