"""The costs on Fold: measured in the background on the practice texts, nearest to T first."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.jobs import Job, Progress, drain
from engine.judge import cost
from engine.judge.cost import LEVELS, cost_judge, place_of
from engine.judge.evaluation import Judge
from engine.judge.similarity import blocks_key, cached_profile
from engine.methods.depth.laco import LacoSettings
from engine.plans.rules import fold_spans
from engine.types import Plan
from tests.families import save_tiny
from tests.page.benches import DEPTH, SETTINGS, opened, shown, texts
from tests.waiting import wait_for_jobs, wait_until
from ui.page.bench.desk import Desk


@pytest.fixture
def desk(empty: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk with nothing open yet, whose costs are measured on few tokens."""
    monkeypatch.setattr(cost.cost_judge, "__defaults__", ("english", 900))
    return empty


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Every plan that is really measured, in the order of measuring."""
    order: list[Plan] = []
    judge = Judge.judge

    def watched(self: Judge, plan: Plan) -> Any:
        if not self.known(plan):
            order.append(plan)
        return judge(self, plan)

    monkeypatch.setattr(Judge, "judge", watched)
    return order


def told(desk: Desk) -> dict[str, Any]:
    return shown(desk, "costs", "value")


def plans(desk: Desk) -> list[Plan]:
    assert desk.map is not None
    return [step.proposal.plan for step in desk.map.steps]


def test_every_step_of_a_map_is_given_its_cost_on_the_practice_texts(desk: Desk, folder: Path) -> None:
    opened(desk, folder)
    found = told(desk)
    assert set(found["of"]) == {blocks_key(plan.blocks) for plan in plans(desk)}
    assert (found["texts"], found["tokens"]) == ("practice-english", 900)
    judge = cost_judge(desk.open_meter().model, "english", 900)
    for plan in plans(desk):
        one, expected = found["of"][blocks_key(plan.blocks)], drain(judge.judge(plan))
        assert (one["ratio"], one["kl"]) == (expected.perplexity.ratio, expected.kl)
        assert (one["low"], one["high"]) == (expected.perplexity.interval[0], expected.perplexity.interval[1])
    assert found["of"][blocks_key(plans(desk)[0].blocks)]["ratio"] == 1  # nothing is folded at T = 1
    names = {step["name"] for step in json.loads(desk.page.since(0)[1]["fold"]["data"])["steps"]}
    assert names == set(found["of"])  # the page looks a step's cost up by this name


def test_the_plan_shown_comes_first_then_its_neighbours_outwards(desk: Desk, folder: Path, judged: list[Plan]) -> None:
    desk.T = 0.8
    opened(desk, folder)
    steps = plans(desk)
    assert desk.map is not None
    here = next(place for place, step in enumerate(desk.map.steps) if step.t_from <= 0.8)
    assert len(steps) > 4
    assert judged[0].blocks == steps[here].blocks
    first = {}  # where in the map each plan stands nearest to T
    for place, plan in enumerate(steps):
        first[plan.blocks] = min(first.get(plan.blocks, 99), abs(place - here))
    far = [first[plan.blocks] for plan in judged]
    assert far == sorted(far)


def test_moving_t_moves_the_order_and_what_is_known_is_not_measured_again(
    desk: Desk, folder: Path, judged: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Judge.judge

    def moves(self: Judge, plan: Plan) -> Any:
        job = watched(self, plan)
        if len(judged) == 2:  # while the second is measured, the person goes to the other end
            desk.costing.stand("map", 0.5)
        return job

    monkeypatch.setattr(Judge, "judge", moves)
    desk.T = 1.0
    opened(desk, folder)
    assert judged[0].blocks == plans(desk)[0].blocks
    assert judged[2].blocks == plans(desk)[-1].blocks
    assert len({plan.blocks for plan in judged}) == len(judged) == len({plan.blocks for plan in plans(desk)})


def test_costs_wait_while_somebody_asks_for_something(
    desk: Desk, folder: Path, judged: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal scan comes in the middle: it runs, and the costs go on after it."""
    seen: list[int] = []
    watched = Judge.judge

    def asked(self: Judge, plan: Plan) -> Any:
        job = watched(self, plan)
        if len(judged) == 3 and not seen:
            desk.submit("removal", noted, lambda _: None, urgent=True)
        return job

    def noted() -> Job[Any]:
        seen.append(len(judged))
        return (yield from cached_profile(desk.open_meter()))

    monkeypatch.setattr(Judge, "judge", asked)
    opened(desk, folder)
    assert len(seen) == 1
    assert seen[0] < len({plan.blocks for plan in judged})  # there was more to measure, and it waited
    assert len(told(desk)["of"]) == len({plan.blocks for plan in plans(desk)})


def test_costs_are_remembered_on_disk(desk: Desk, folder: Path, tmp_path: Path, judged: list[Plan]) -> None:
    before = told(opened(desk, folder))
    judged.clear()
    assert told(opened(Desk(tmp_path / "later"), folder)) == before
    assert judged == []


def test_another_model_has_no_cost_of_the_one_before(desk: Desk, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is changed while the costs of the first are being measured."""
    begun, judge = threading.Event(), Judge.judge

    def slowly(self: Judge, plan: Plan) -> Any:
        begun.set()
        yield Progress("Evaluating the plan", 0.0)
        threading.Event().wait(0.05)
        return (yield from judge(self, plan))

    monkeypatch.setattr(Judge, "judge", slowly)
    desk.open(str(folder), "auto", texts, SETTINGS)
    wait_until(begun.is_set)
    other = save_tiny(tmp_path / "other", "llama", seed=1)
    opened(desk, other)
    judged_by = cost_judge(desk.open_meter().model, "english", 900)
    found = told(desk)["of"]
    assert set(found) == {blocks_key(plan.blocks) for plan in plans(desk)}
    for plan in plans(desk):
        assert found[blocks_key(plan.blocks)]["ratio"] == drain(judge(judged_by, plan)).perplexity.ratio


def test_a_hand_made_plan_and_each_of_its_folds_are_measured_when_made(desk: Desk, folder: Path) -> None:
    opened(desk, folder)
    desk.set_spans([[0, 1], [3, 5]])
    wait_for_jobs()
    news = desk.page.since(0)[1]["landscape"]
    both = fold_spans(DEPTH, [(0, 1), (3, 5)], "reference")
    alone = [blocks_key(fold_spans(DEPTH, [span], "reference").blocks) for span in ((0, 1), (3, 5))]
    assert json.loads(news["hand"])["name"] == blocks_key(both.blocks)
    assert json.loads(news["alone"]) == alone
    assert {blocks_key(both.blocks), *alone} <= set(told(desk)["of"])
    desk.set_spans([])
    assert desk.page.since(0)[1]["landscape"]["hand"] == ""


def test_a_plan_that_is_asked_for_as_another_is_done_is_measured_too(desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(desk, folder)
    judge, (first, second) = Judge.judge, (fold_spans(DEPTH, [span], "keep-last") for span in ((1, 2), (2, 4)))

    def asked_meanwhile(self: Judge, plan: Plan) -> Any:
        found = yield from judge(self, plan)
        if plan == first and desk.costing.of(second) is None:
            desk.costing.ask(second)
        return found

    monkeypatch.setattr(Judge, "judge", asked_meanwhile)
    desk.costing.ask(first)
    wait_for_jobs()
    assert desk.costing.of(first) is not None
    assert desk.costing.of(second) is not None


def test_a_cost_that_is_no_number_is_told_as_broken(desk: Desk, folder: Path) -> None:
    opened(desk, folder)
    blocks = [{"home": 0, "mix": [[0, 1e38], [1, 1e38]]}, *({"home": i, "mix": [[i, 1.0]]} for i in range(2, 6))]
    plan = desk.load_plan({"source_depth": DEPTH, "blocks": blocks})
    wait_for_jobs()
    one = told(desk)["of"][blocks_key(plan.blocks)]
    assert (one["ratio"], one["level"]) == (None, len(LEVELS) - 1)
    assert desk.runner.problem is None


def test_after_a_cancel_the_plan_that_is_rested_on_is_measured_again(desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filling = desk.costing._filling
    monkeypatch.setattr(desk.costing, "_filling", lambda: (step for step in ()))  # nobody fills the map
    opened(desk, folder)
    monkeypatch.setattr(desk.costing, "_filling", filling)
    assert len(told(desk)["of"]) == 1
    desk.costing.stand("map", 0.5)
    wait_for_jobs()
    assert set(told(desk)["of"]) == {blocks_key(plan.blocks) for plan in plans(desk)}
    desk.costing.stand("file", 0.5)  # there is none
    assert desk.runner.state() is None


def test_levels_are_those_of_the_report() -> None:
    assert [place_of(ratio) for ratio in (0.9, 1.05, 1.051, 1.25, 1.9, 2.0, 9.0, 11.0, float("inf"), float("nan"))] == [
        0, 0, 1, 1, 2, 2, 3, 4, 4, 4,
    ]  # fmt: skip


def test_the_step_that_holds_t_is_shown_before_the_map_is_whole(desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule and T change together: the plan of the new T comes first, with its cost, and can be exported at once."""
    opened(desk, folder)
    seen: list[dict[str, Any]] = []
    put = desk.page.put

    def watch(component: str, prop: str, value: Any) -> None:
        put(component, prop, value)
        if (component, prop) == ("fold", "data"):
            seen.append({"map": json.loads(value), "chosen": desk.chosen("map", 0.8)[0].blocks, "T": desk.T})

    monkeypatch.setattr(desk.page, "put", watch)
    desk.ask(LacoSettings(C=3, I=1, lowest=0, rule="mean"))
    desk.look(0.8)
    wait_for_jobs()
    assert [one["map"]["filling"] for one in seen] == [True, False]
    glimpsed, whole = (one["map"]["steps"] for one in seen)
    (step,) = glimpsed
    assert step in whole
    assert step["t_from"] <= 0.8 < step["t_to"]
    assert seen[0]["chosen"] == seen[1]["chosen"]
    assert desk.preview is None
