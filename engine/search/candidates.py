"""What is asked of shapes once some were measured: how fast they are, which no other beats, and how well rankings would have chosen.

A ranking is worth what it says of cost before anything is measured: ours by the estimate, and by size as Minitron's code ranks
(ModelOpt sorts what meets the budget by size, the largest first, and measures the first ten; 2407.14679).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.jobs import Job, as_part
from engine.judge.speed import measure_speed
from engine.methods.agreement import spearman
from engine.plans.tensor_store import keep_longer
from engine.search.shapes import Candidate
from engine.types import Model

RANKINGS: dict[str, Callable[[Candidate], float]] = {"estimate": lambda one: one.estimate, "size": lambda one: one.by_size}


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well the shapes that were measured are ranked: Spearman's correlation with their cost in [-1, 1] (NaN where there are fewer
    than two), and which of the candidates comes first, by its place."""

    name: str
    correlation: float
    first: int


def timed(
    model: Model, found: Sequence[Candidate], tell: Callable[[Sequence[Candidate]], Any] = lambda _: None
) -> Job[tuple[Candidate, ...]]:
    """Return candidates with the speed of those that were measured, each beside the source, one after another.

    `tell` hears of all of them whenever one has been timed. Batch 1, as `measure_speed` has it.
    """
    known = list(found)
    places = [place for place, one in enumerate(known) if one.cost is not None and one.plan is not None]
    for number, place in enumerate(places):
        plan = known[place].plan
        assert plan is not None
        label = f"Speed of shape {number + 1} of {len(places)}"
        known[place] = replace(known[place], speed=(yield from as_part(measure_speed(model, plan), label, number, len(places))))
        tell(known)
    return tuple(known)


def front(found: Sequence[Candidate], worth: Callable[[Candidate], float]) -> tuple[int, ...]:
    """Return the places of the measured candidates that no other beats: none costs less and has as much of what is `worth` something
    (the fewest parameters as a negative number, the highest speed); NaN has nothing."""
    known = [(place, one.cost.ratio, worth(one)) for place, one in enumerate(found) if one.cost is not None]
    known = [one for one in known if one[1] == one[1] and one[2] == one[2]]
    return tuple(place for place, cost, much in known if not any(c <= cost and m >= much and (c, m) != (cost, much) for _, c, m in known))


def keep_fronts(found: Sequence[Candidate]) -> None:
    """Keep the tensors of the candidates that no other beats beyond `for_now`. A solved plan's are as large as the model, and one that
    is beaten can be made again (see `shaped`)."""
    for place in {*front(found, smallest), *front(found, fastest)}:
        plan = found[place].plan
        keep_longer(plan.tensors if plan else ())


def smallest(one: Candidate) -> float:
    """What a shape's size is worth."""
    return -one.parameters


def fastest(one: Candidate) -> float:
    """What a shape's speed is worth; NaN where nobody timed it."""
    return float("nan") if one.speed is None else one.speed.decode_ratio


def rankings(found: Sequence[Candidate]) -> tuple[Ranking, ...]:
    """Return how well RANKINGS rank the candidates that were measured."""
    known = [one for one in found if one.cost is not None]
    costs = [one.cost.ratio for one in known if one.cost is not None]

    def ranking(name: str, by: Callable[[Candidate], float]) -> Ranking:
        agree = spearman([by(one) for one in known], costs) if len(known) > 1 else float("nan")
        return Ranking(name, agree, min(range(len(found)), key=lambda place: by(found[place])))

    return tuple(ranking(name, by) for name, by in RANKINGS.items())
