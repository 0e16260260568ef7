import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SettingsError
from engine.jobs import Job, Progress, drain
from engine.judge.similarity import SimilarityMeter
from engine.methods.depth.baselines import plan_of_kept
from engine.methods.depth.laco import LacoSettings, Proposal, propose
from engine.models.texts import calibration_of
from engine.search.frontier import Frontier, Mapping, Step, frontier, outwards, step_around, step_at
from engine.types import Block, Model, Plan
from tests.families import TEXTS

CASES = [
    ("llama", -0.5, LacoSettings(C=2, I=1, lowest=0)),
    ("llama", -1.0, LacoSettings(C=4, I=1, lowest=0, rule="paper")),
    ("gemma3_text", 0.0, LacoSettings(C=3, I=2, lowest=1, rule="mean", similarity="per-token")),
    ("gpt2", 0.2, LacoSettings(C=3, I=1, lowest=0, highest=5, rule="keep-last")),
    ("qwen3", 0.9, LacoSettings(C=2, I=1)),
]


def meter_of(model: Model) -> SimilarityMeter:
    return SimilarityMeter(model, calibration_of(TEXTS))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> list[tuple[Block, ...]]:
    """The plans that any meter runs the model for, in order, from an empty cache on."""
    plans: list[tuple[Block, ...]] = []
    run = SimilarityMeter._run

    def counted(meter: SimilarityMeter, blocks: tuple[Block, ...], prefix: int) -> Any:
        plans.append(blocks)
        return run(meter, blocks, prefix)

    monkeypatch.setattr(SimilarityMeter, "_run", counted)
    return plans


@pytest.mark.parametrize(("family", "t_min", "settings"), CASES)
def test_the_map_is_algorithm_1_at_every_t(family: str, t_min: float, settings: LacoSettings, tiny: Callable[..., Model]) -> None:
    meter = meter_of(tiny(family))
    whole = drain(frontier(meter, settings, t_min))

    def same_at(T: float) -> None:
        step, alone = step_at(whole, T), drain(propose(meter, replace(settings, T=T)))
        assert step.proposal.plan.blocks == alone.plan.blocks
        assert step.proposal.trials == alone.trials

    given(st.floats(t_min, 1.0))(same_at)()
    for step in whole.steps:
        for T in (step.t_from, math.nextafter(step.t_from, 2), math.nextafter(step.t_from, -2), (step.t_from + step.t_to) / 2):
            if t_min <= T <= 1:
                same_at(T)


@pytest.mark.parametrize(("family", "t_min", "settings"), CASES)
def test_the_steps_tile_the_map(family: str, t_min: float, settings: LacoSettings, tiny: Callable[..., Model]) -> None:
    whole = drain(frontier(meter_of(tiny(family)), settings, t_min))
    assert whole.t_min == t_min
    assert whole.steps[0].t_to == 1.0
    assert whole.steps[-1].t_from == t_min
    for above, below in pairwise(whole.steps):
        assert above.t_from == below.t_to
    assert all(step.t_from < step.t_to for step in whole.steps)


def test_a_wide_map_has_many_steps_and_goes_from_all_layers_to_few(tiny: Callable[..., Model]) -> None:
    whole = drain(frontier(meter_of(tiny("llama")), LacoSettings(C=2, I=1, lowest=0), -1.0))
    assert len(whole.steps) >= 5
    assert whole.steps[0].proposal.plan.depth == 6
    assert whole.steps[-1].proposal.plan.depth == 1


def test_a_step_names_a_t_that_gives_it_again(tiny: Callable[..., Model]) -> None:
    meter, settings = meter_of(tiny("llama")), LacoSettings(C=2, I=1, lowest=0)
    for step in drain(frontier(meter, settings, -0.5)).steps:
        named = dict(step.proposal.plan.settings)
        assert named["T"] == step.t_from
        again = drain(propose(meter, replace(settings, T=named["T"])))
        assert again == step.proposal


def test_the_settings_own_t_changes_nothing(tiny: Callable[..., Model]) -> None:
    meter, settings = meter_of(tiny("llama")), LacoSettings(C=2, I=1, lowest=0)
    assert drain(frontier(meter, replace(settings, T=-0.3), 0.2)) == drain(frontier(meter, replace(settings, T=0.9), 0.2))


def test_a_t_below_the_map_gives_its_last_step(tiny: Callable[..., Model]) -> None:
    whole = drain(frontier(meter_of(tiny("llama")), LacoSettings(C=2, I=1, lowest=0), 0.2))
    assert step_at(whole, -1.0) == whole.steps[-1]
    assert step_at(whole, 1.0) == whole.steps[0]


def test_a_map_of_one_point_is_one_step(tiny: Callable[..., Model]) -> None:
    (step,) = drain(frontier(meter_of(tiny("llama")), LacoSettings(C=2), 1.0)).steps
    assert (step.t_from, step.t_to, step.proposal.plan.depth) == (1.0, 1.0, 6)


@pytest.mark.parametrize("t_min", [math.nan, 1.5, -1.5])
def test_a_map_needs_a_t_min_that_is_a_cosine(t_min: float, tiny: Callable[..., Model]) -> None:
    with pytest.raises(SettingsError, match="t_min"):
        drain(frontier(meter_of(tiny("llama")), LacoSettings(C=2), t_min))


# --- Nothing is measured twice ---


def whole_map(model: Model) -> Job[Frontier]:
    return frontier(meter_of(model), LacoSettings(C=2, I=1, lowest=0), -0.5)


@pytest.mark.parametrize("stop_after", [3, 4, 7])
def test_an_interrupted_map_goes_on_where_it_stopped(stop_after: int, tiny: Callable[..., Model], measured: list[Any]) -> None:
    job = whole_map(tiny("llama"))
    for _ in range(stop_after):
        next(job)
    job.close()
    assert len(measured) == stop_after - 3  # a step is told before it is taken, and what the map takes before all
    resumed = drain(whole_map(tiny("llama")))
    assert len(measured) == len(set(measured)) > stop_after
    assert resumed == drain(whole_map(tiny("llama")))


def test_a_second_map_runs_no_model(tiny: Callable[..., Model], measured: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = drain(whole_map(tiny("llama")))
    assert measured
    for block in tiny("llama").network.model.layers:
        monkeypatch.setattr(block, "forward", None)
    assert drain(whole_map(tiny("llama"))) == first
    assert len(measured) == len(set(measured))


# --- What it takes, and what a part of it holds ---


def test_what_a_map_takes_is_told_first_and_its_progress_is_true(tiny: Callable[..., Model], measured: list[Any]) -> None:
    told: list[tuple[int, Progress]] = []
    meter = meter_of(tiny("llama", num_hidden_layers=16))
    drain(frontier(meter, LacoSettings(C=2, I=1), 0.0), lambda step: told.append((len(measured), step)))
    (_, first), (before, estimate), *later = told
    assert (first.label, before) == ("Running the texts through the model", 0)
    found = re.fullmatch(r"Mapping T: (\d+)–(\d+) candidates, about \d+(–\d+)? s", estimate.label)
    assert found is not None
    assert int(found[1]) == 14 < len(measured) < 2 * int(found[2])
    assert all(re.fullmatch(r"Mapping T: finished down to \d\.\d{3}, about \d+ candidates left", step.label) for _, step in later)
    shares = [step.fraction or 0.0 for _, step in told]
    assert shares == sorted(shares)
    assert max(b - a for a, b in pairwise(shares)) < 0.15
    assert all(abs(share - count / len(measured)) < 0.35 for (count, _), share in zip(told, shares, strict=True))
    assert shares[-1] > 0.85


def test_a_map_that_is_remembered_tells_nothing_of_what_it_takes(tiny: Callable[..., Model], measured: list[Any]) -> None:
    drain(whole_map(tiny("llama")))
    told: list[Progress] = []
    drain(whole_map(tiny("llama")), told.append)
    assert told == []


def test_a_map_that_is_stopped_holds_its_upper_steps_exactly(tiny: Callable[..., Model], measured: list[Any]) -> None:
    told: list[Step] = []
    run = Mapping(meter_of(tiny("llama")), LacoSettings(C=2, I=1, lowest=0), -0.5, told.append)
    assert (run.found.steps, run.found.complete) == ((), False)
    job = run.run()
    while len(told) < 3:
        next(job)
    job.close()
    part = run.found
    assert part.steps == tuple(told)
    assert not part.complete
    whole = drain(whole_map(tiny("llama")))
    assert whole.complete
    assert whole.steps[:3] == part.steps
    assert drain(run.run()) == whole  # it goes on where it was


# --- In which order ---


def step_of(plan: Plan) -> Step:
    return Step(0.0, 1.0, Proposal(plan, ()))


def test_the_plan_shown_comes_first_then_its_neighbours_outwards() -> None:
    plans = [plan_of_kept(6, range(6 - gone), "laco") for gone in range(5)]
    steps = [step_of(plan) for plan in plans]
    assert outwards(steps, 2) == tuple(plans[place] for place in (2, 3, 1, 4, 0))
    assert outwards(steps, 0) == tuple(plans)
    assert outwards(steps, 4) == tuple(reversed(plans))


def test_plans_of_the_same_blocks_come_once_where_they_come_first() -> None:
    one, two = (plan_of_kept(6, range(6 - gone), "laco") for gone in (1, 2))
    again = replace(one, settings=(("T", 0.5),))
    assert outwards([step_of(plan) for plan in (one, two, again)], 1) == (two, again)
    assert outwards([step_of(plan) for plan in (one, two, again)], 0) == (one, two)


@pytest.mark.parametrize("T", [0.5, 0.62, 0.8, 0.93, 0.999, 1.0])
def test_one_run_around_t_gives_the_maps_own_step(T: float, tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    settings = LacoSettings(C=2, I=1, lowest=0)
    step = drain(step_around(meter_of(model), replace(settings, T=T), 0.5))
    whole = drain(frontier(meter_of(model), settings, 0.5))
    assert step == step_at(whole, T)
    assert [held for held in whole.steps if held.holds(T)] == [step]
