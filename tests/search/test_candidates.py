"""Figures of measured shapes: their speed, their Pareto fronts, and how well rankings predicted their costs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from engine.jobs import Job, drain
from engine.judge.cost import Cost
from engine.judge.practice import practice_packs
from engine.judge.speed import Speed, measure_speed
from engine.models.texts import calibration_of
from engine.plans.live import live_network
from engine.search import candidates
from engine.search.candidates import fastest, front, rankings, smallest, timed
from engine.search.shapes import Candidate, search_shapes
from engine.types import Model, Plan, Shape
from tests.families import TEXTS


def candidate(size: int, estimate: float, by_size: int, ratio: float | None) -> Candidate:
    cost = None if ratio is None else Cost(ratio, ratio, ratio, 0.1)
    return Candidate(Shape(6, 4, 2, 8, size, 32), size, estimate, by_size, None, cost)


KNOWN = (candidate(90, 0.2, 2, 1.2), candidate(100, 0.1, 0, 1.5), candidate(95, 0.3, 1, 1.5), candidate(80, 0.4, 3, math.nan))
UNKNOWN = candidate(70, 0.05, 4, None)


def test_the_front_is_what_no_other_beats() -> None:
    """By hand: 90 costs less than 95 and 100 and is smaller; what has no cost, or one that is no number, beats nobody."""
    assert front((*KNOWN, UNKNOWN), smallest) == (0,)
    smaller = candidate(60, 0.5, 5, 3.0)
    assert front((*KNOWN, smaller), smallest) == (0, 4)
    assert front((candidate(90, 0, 0, 1.5), candidate(90, 0, 0, 1.5)), smallest) == (0, 1)  # equals do not beat each other
    assert front(KNOWN, fastest) == ()  # nobody has timed them


def test_rankings_are_held_against_the_measured_costs() -> None:
    """Ranks of the costs 1.2, 1.5, 1.5 are 1, 2.5, 2.5; of the estimates 2, 1, 3; of the sizes (the largest first) 3, 1, 2."""
    estimate, size = rankings((*KNOWN[:3], UNKNOWN))
    assert (estimate.name, estimate.first, size.name, size.first) == ("estimate", 3, "size", 1)
    assert estimate.correlation == pytest.approx(0.0)
    assert size.correlation == pytest.approx(-math.sqrt(3) / 2)
    assert all(math.isnan(one.correlation) for one in rankings((KNOWN[0], UNKNOWN)))


def test_the_measured_are_timed_beside_the_source_and_the_largest_is_among_them(
    tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, heard = tiny("llama"), list[int]()

    def measure(plan: Plan) -> Job[Cost]:
        yield from ()
        return Cost(2.0, 1.0, 3.0, 0.5)

    def tell(found: Sequence[Candidate]) -> None:
        heard.append(sum(one.speed is not None for one in found))

    monkeypatch.setattr(candidates, "measure_speed", quick)
    packs = practice_packs(model, calibration_of(TEXTS * 3), 200)
    found = drain(search_shapes(model, packs, 0.75 * model.spec.parameters, measure, measured=3, refitted=False))
    known = drain(timed(model, found, tell))
    assert heard == [1, 2, 3]
    assert [replace(one, speed=None) for one in known] == list(found)
    assert [one.speed is not None for one in known] == [one.cost is not None for one in known]
    assert 0 in [one.by_size for one in known[:3]]
    assert fastest(known[-1]) != fastest(known[-1])
    for one in known[:3]:
        assert one.speed is not None
        assert one.speed.depth_ratio == one.shape.depth / 6
        assert fastest(one) == one.speed.decode_ratio > 0


def quick(model: Model, plan: Plan) -> Job[Speed]:
    assert sum(one.numel() for one in live_network(model, plan).parameters()) < model.spec.parameters
    return measure_speed(model, plan, prompt_tokens=8, new_tokens=2, rounds=1)
