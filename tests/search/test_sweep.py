import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import SettingsError
from engine.jobs import Progress, drain
from engine.judge.cost import Cost, cost_judge, cost_of
from engine.judge.evaluation import Judge
from engine.judge.similarity import SimilarityMeter
from engine.methods.depth.laco import LacoSettings, propose
from engine.models.texts import calibration_of
from engine.plans.rules import RULES
from engine.search import sweep
from engine.search.frontier import frontier
from engine.search.sweep import INTERVALS, WIDTHS, Sweep, SweepEntry
from engine.types import Model, Plan
from tests.families import TEXTS

SETTINGS = LacoSettings(C=2, I=1, lowest=1, similarity="per-token")
T_MIN = -0.2


def meter_of(model: Model) -> SimilarityMeter:
    return SimilarityMeter(model, calibration_of(TEXTS))


def sweep_of(model: Model, **more: object) -> Sweep:
    return Sweep(meter_of(model), cost_judge(model, tokens=60), SETTINGS, t_min=T_MIN, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(tiny: Callable[..., Model]) -> Model:
    return tiny("llama", num_hidden_layers=5)


@pytest.fixture(scope="module")
def whole(model: Model) -> tuple[SweepEntry, ...]:
    return drain(sweep_of(model).run())


@pytest.fixture(scope="module")
def maps(model: Model) -> dict[tuple[str, int, int], list[Plan]]:
    """Each setting's own T map."""
    return {
        (rule, c, i): [step.proposal.plan for step in drain(frontier(meter_of(model), replace(SETTINGS, C=c, I=i, rule=rule), T_MIN)).steps]
        for rule in RULES
        for c in range(2, 6)
        for i in INTERVALS
    }


def test_a_sweep_covers_what_the_issue_asks_for() -> None:
    assert sorted(WIDTHS) == list(range(2, 9))
    assert sorted(INTERVALS) == list(range(1, 5))


def test_a_sweep_finds_what_independent_maps_find_together(
    whole: tuple[SweepEntry, ...], maps: dict[tuple[str, int, int], list[Plan]]
) -> None:
    found = {entry.plan.blocks: entry for entry in whole}
    assert len(found) == len(whole) > 20
    assert found.keys() == {plan.blocks for plans in maps.values() for plan in plans}
    for blocks, entry in found.items():
        assert entry.settings == sum(blocks in {plan.blocks for plan in plans} for plans in maps.values())
        assert entry.plan in maps[entry.rule, entry.C, entry.I]


def test_the_setting_of_an_entry_gives_its_plan(whole: tuple[SweepEntry, ...], model: Model) -> None:
    for entry in whole:
        settings = replace(SETTINGS, rule=entry.rule, C=entry.C, I=entry.I, T=entry.T)
        assert drain(propose(meter_of(model), settings)).plan == entry.plan


def test_the_most_layers_come_first_and_the_cheapest_within_a_depth(whole: tuple[SweepEntry, ...]) -> None:
    order = [(-entry.plan.depth, entry.cost.ratio) for entry in whole]
    assert order == sorted(order)
    assert whole[0].plan.depth == 5
    assert whole[0].cost.ratio == 1
    assert len({entry.plan.depth for entry in whole}) > 2


def test_the_costs_are_the_judges(whole: tuple[SweepEntry, ...], model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / "another"))
    judge = cost_judge(model, tokens=60)
    assert all(entry.cost.ratio == cost_of(drain(judge.judge(entry.plan))).ratio for entry in whole[:: len(whole) // 7])


def test_every_entry_is_told_once_as_soon_as_it_is_there(model: Model, whole: tuple[SweepEntry, ...], fresh_cache: Path) -> None:
    told: list[SweepEntry] = []
    seen: list[tuple[int, Progress]] = []
    run = sweep_of(model, report=told.append)
    assert drain(run.run(), lambda step: seen.append((len(told), step))) == run.entries
    assert [(entry.plan, entry.cost) for entry in run.entries] == [(entry.plan, entry.cost) for entry in whole]
    assert len(told) == len(whole) == len({entry.plan.blocks for entry in told})
    assert {count for count, _ in seen} == set(range(len(told) + 1))
    shares = [step.fraction or 0.0 for _, step in seen]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] > 0.9


def test_a_sweep_that_was_stopped_leaves_what_it_has_and_goes_on_there(
    model: Model, whole: tuple[SweepEntry, ...], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sweep_of(model)
    job = run.run()
    while len(run.found) < 5:
        next(job)
    job.close()
    assert len(run.entries) == 5
    assert {entry.plan for entry in run.entries} <= {entry.plan for entry in whole}
    runs: list[Plan] = []
    score = Judge._score
    monkeypatch.setattr(Judge, "_score", lambda judge, index, plan, scored: runs.append(plan) or score(judge, index, plan, scored))
    again = drain(sweep_of(model).run())
    assert [(entry.plan, entry.cost) for entry in again] == [(entry.plan, entry.cost) for entry in whole]
    assert not {plan.blocks for plan in runs} & set(run.found)


def test_a_sweep_stops_when_its_time_is_up(model: Model, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    run = sweep_of(model, seconds=10.0)
    steps: list[Progress] = []
    drain(run.run(), lambda step: (steps.append(step), clock.__setitem__(0, clock[0] + 0.5)))
    assert len(steps) == 20
    assert 0 < len(run.entries) < 20
    assert [step.fraction for step in steps] == pytest.approx([max(count / 20, 0) for count in range(20)], abs=0.2)


# --- Best first ---


def costing(monkeypatch: pytest.MonkeyPatch, ratio: Callable[[Plan], float]) -> None:
    """Let plans cost what a test says; the maps are still the model's."""

    def judge(self: Judge, plan: Plan) -> object:
        yield Progress("Evaluating the plan")
        return plan

    monkeypatch.setattr(Judge, "judge", judge)
    monkeypatch.setattr(sweep, "cost_of", lambda plan: Cost(ratio(plan), math.nan, math.nan, math.nan))


def test_a_rule_that_ruins_the_model_waits_until_the_others_are_done(
    model: Model, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ratio(plan: Plan) -> float:
        if plan.depth == 5:
            return 1.0
        return math.inf if dict(plan.settings)["rule"] == "mean" else 2.0

    costing(monkeypatch, ratio)
    told: list[SweepEntry] = []
    drain(sweep_of(model, report=told.append).run())
    ruined = [place for place, entry in enumerate(told) if math.isinf(entry.cost.ratio)]
    assert len(ruined) > 5
    assert ruined[1:] == list(range(len(told) - len(ruined) + 1, len(told)))  # one to learn it, the others at the very end
    entries = drain(sweep_of(model).run())
    assert [math.isinf(entry.cost.ratio) for entry in entries if entry.plan.depth == 4] == sorted(
        math.isinf(entry.cost.ratio) for entry in entries if entry.plan.depth == 4
    )


def test_a_map_whose_plans_stay_the_best_goes_on(model: Model, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ratio(plan: Plan) -> float:
        named = dict(plan.settings)
        return 1.0 if plan.depth == 5 or (named["rule"], named["C"], named["I"]) == ("mean", 2, 2) else 3.0 + plan.blocks[0].home

    costing(monkeypatch, ratio)
    told: list[SweepEntry] = []
    drain(sweep_of(model, report=told.append).run())
    best = [place for place, entry in enumerate(told) if entry.cost.ratio == 1 and entry.plan.depth < 5]
    assert len(best) > 1
    assert best == list(range(best[0], best[0] + len(best)))


def test_costs_that_are_not_finite_are_no_error(model: Model, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costing(monkeypatch, lambda plan: math.nan)
    assert len(drain(sweep_of(model).run())) > 20


# --- What is refused ---


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_sweep_without_time_is_refused(seconds: float, model: Model) -> None:
    with pytest.raises(SettingsError, match="a sweep needs a positive time limit"):
        sweep_of(model, seconds=seconds)


def test_settings_that_make_no_sense_are_refused(model: Model) -> None:
    with pytest.raises(SettingsError, match="t_min"):
        Sweep(meter_of(model), cost_judge(model, tokens=60), t_min=2)
    with pytest.raises(SettingsError, match="L is 9"):
        Sweep(meter_of(model), cost_judge(model, tokens=60), replace(SETTINGS, lowest=9))
