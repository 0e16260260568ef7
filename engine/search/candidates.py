"""Evaluate measured shapes: their speed, the Pareto front, and the quality of two rankings.

A ranking is evaluated by how well it predicts cost before any measurement: ours by the estimate, and Minitron's by size (ModelOpt sorts
the shapes within the budget by size, the largest first, and measures the first ten; 2407.14679).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.jobs import Job, as_part
from engine.judge.cost import cost_to_json
from engine.judge.speed import measure_speed
from engine.messages import Message
from engine.methods.analysis.agreement import spearman
from engine.plans.files import plan_to_json
from engine.plans.tensor_store import keep_longer
from engine.search.shapes import Candidate
from engine.types import Model

RANKINGS: dict[str, Callable[[Candidate], float]] = {"estimate": lambda one: one.estimate, "size": lambda one: one.by_size}


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well the measured shapes are ranked: Spearman's correlation with their cost in [-1, 1] (NaN for fewer than two), and the index of
    the candidate ranked first."""

    name: str
    correlation: float
    first: int


def timed(
    model: Model, found: Sequence[Candidate], report: Callable[[Sequence[Candidate]], Any] = lambda _: None
) -> Job[tuple[Candidate, ...]]:
    """Return the candidates with the speed of the measured ones, each timed against the source in turn.

    `tell` is called with all candidates after each timing. Batch 1, as in `measure_speed`.
    """
    known = list(found)
    places = [place for place, one in enumerate(known) if one.cost is not None and one.plan is not None]
    for number, place in enumerate(places):
        plan = known[place].plan
        assert plan is not None
        label = Message("Speed of shape {number} of {count}", number=number + 1, count=len(places))
        known[place] = replace(known[place], speed=(yield from as_part(measure_speed(model, plan), label, number, len(places))))
        report(known)
    return tuple(known)


def front(found: Sequence[Candidate], worth: Callable[[Candidate], float]) -> tuple[int, ...]:
    """Return the indices of the measured candidates on the Pareto front: no other costs less with at least the same `worth` (minus the
    parameters, or the speed); NaN is never on it."""
    known = [(place, one.cost.ratio, worth(one)) for place, one in enumerate(found) if one.cost is not None]
    known = [one for one in known if one[1] == one[1] and one[2] == one[2]]
    return tuple(place for place, cost, much in known if not any(c <= cost and m >= much and (c, m) != (cost, much) for _, c, m in known))


def keep_fronts(found: Sequence[Candidate]) -> None:
    """Keep the tensors of the candidates on the fronts after `for_now`. A refitted plan's tensors are as large as the model, and other
    candidates can be rebuilt (see `shaped`)."""
    for place in {*front(found, smallest), *front(found, fastest)}:
        plan = found[place].plan
        keep_longer(plan.tensors if plan else ())


def smallest(one: Candidate) -> float:
    """Return minus a shape's parameters."""
    return -one.parameters


def fastest(one: Candidate) -> float:
    """Return a shape's decoding speed relative to the source; NaN if not timed."""
    return float("nan") if one.speed is None else one.speed.decode_ratio


def rankings(found: Sequence[Candidate]) -> tuple[Ranking, ...]:
    """Return how well RANKINGS rank the measured candidates."""
    known = [one for one in found if one.cost is not None]
    costs = [one.cost.ratio for one in known if one.cost is not None]

    def ranking(name: str, by: Callable[[Candidate], float]) -> Ranking:
        agree = spearman([by(one) for one in known], costs) if len(known) > 1 else float("nan")
        return Ranking(name, agree, min(range(len(found)), key=lambda place: by(found[place])))

    return tuple(ranking(name, by) for name, by in RANKINGS.items())


def shapes_to_json(found: Sequence[Candidate]) -> dict[str, Any]:
    """Return what `shapes` writes: the candidates as they stand, the measured ones first; by their places which of those no other
    beats in parameters and cost (the front) and in decode speed and cost; how well rankings would have chosen; the best plan."""
    order = sorted(found, key=lambda one: one.estimate)
    by_estimate = {one.shape: rank for rank, one in enumerate(order)}
    rows = [
        {
            "shape": asdict(one.shape),
            "parameters": one.parameters,
            "estimate": one.estimate,
            "by_estimate": by_estimate[one.shape],
            "by_size": one.by_size,
            "cost": cost_to_json(one.cost),
            "speed": None if one.speed is None else asdict(one.speed),
        }
        for one in found
    ]
    fronts = {"front": front(found, smallest), "fast_front": front(found, fastest)}
    best = {"plan": plan_to_json(found[0].plan)} if found and found[0].plan else {}
    return {"shapes": rows, **fronts, "rankings": [asdict(one) for one in rankings(found)], **best}
