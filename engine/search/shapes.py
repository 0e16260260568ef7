"""Find a shape for a budget of parameters: list all valid shapes near the budget over depth, heads, neurons and channels, and measure
the most promising.

The estimates (engine/search/estimates.py) only choose the shapes to measure; the result is the measured cost of a shape's plan.
(Minitron's search, 2407.14679, ranks by size, the largest first. Both rankings are reported, and the largest shape is measured too.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from math import lcm
from operator import mul
from typing import Any

from engine.errors import SettingsError
from engine.jobs import Job, as_part, scaled
from engine.judge.cost import Cost
from engine.judge.objectives import Objective
from engine.judge.speed import Speed
from engine.messages import Message
from engine.methods.depth.baselines import plan_of_kept
from engine.methods.width.refit import refit
from engine.methods.width.settings import TrimSettings
from engine.methods.width.widths import AXES, trim
from engine.models.shapes import legal_channels, legal_heads, parameters_at, shape_of
from engine.models.texts import Pack
from engine.plans.rules import untouched
from engine.search.estimates import Estimates, estimates, learned
from engine.search.search import Search
from engine.search.settings import MEASURED
from engine.types import Model, Plan, Shape

WITHIN = 0.05  # of the budget
_NEURON_STEPS = 12  # steps in the source's neurons
_SHALLOWEST, _NARROWEST = 0.5, 0.75  # lower limits, relative to the source's layers and channels


@dataclass(frozen=True, slots=True)
class Candidate:
    """A shape, its number of parameters, its estimate, its rank by size (the largest is 0) and, if measured, its plan, the plan's cost on
    practice texts and its speed (see engine/search/candidates.py)."""

    shape: Shape
    parameters: int
    estimate: float
    by_size: int
    plan: Plan | None = None
    cost: Cost | None = None
    speed: Speed | None = None


def shapes_near(model: Model, budget: float) -> tuple[Shape, ...]:
    """Return every valid shape whose parameters are at most 5 % below a budget and not above it: any depth, heads as the KV groups allow,
    neurons in steps of a twelfth, channels in multiples of 8 that the heads divide.

    Raises:
        SettingsError: there is none.
    """
    whole, config, spec = shape_of(model.config), model.config, model.spec
    step = max(1, whole.neurons // _NEURON_STEPS)
    found = []
    for heads in legal_heads(config):
        for channels in legal_channels(config, heads, lcm(heads, 8)):
            if channels < _NARROWEST * whole.channels:
                continue
            for neurons in range(step, whole.neurons + 1, step):
                for depth in range(math.ceil(_SHALLOWEST * whole.depth), whole.depth + 1):
                    shape = replace(whole.with_heads(heads), depth=depth, neurons=neurons, channels=channels)
                    if (1 - WITHIN) * budget <= parameters_at(spec, shape) <= budget and shape != whole:
                        found.append(shape)
    if not found:
        raise SettingsError(
            "no smaller shape of this model has between 95 % and 100 % of {budget:.4g} million parameters; the model "
            "has {parameters:.4g} million, so choose another budget",
            budget=budget / 1e6,
            parameters=spec.parameters / 1e6,
        )
    return tuple(found)


def search_shapes(
    model: Model,
    packs: Sequence[Pack],
    budget: float,
    measure: Callable[[Plan], Job[Cost]],
    report: Callable[[Sequence[Candidate]], Any] = lambda _: None,
    measured: int = MEASURED,
    refitted: bool = True,
    layers: Callable[[int], Job[Plan]] | None = None,
) -> Job[tuple[Candidate, ...]]:
    """Return every valid shape near a budget, the measured ones first (cheapest first), the others by their estimate.

    The most promising shape by the estimates is measured next, and each measurement corrects the estimates of the others; the last one
    measured is the largest, which a ranking by size would choose.

    `measure` gets the plan of a shape: `layers` of its depth (by default chosen by the estimates), trimmed by |X||W|, and, if `refitted`,
    with refitted consumers, without which cutting heads looks far more expensive than it is. `tell` is called with the candidates in this
    order after each measurement.
    """
    shapes = shapes_near(model, budget)
    found = yield from scaled(estimates(model, packs, shapes), 0.0, 0.2)
    run = _ShapeSearch(model, packs, found, measure, refitted, layers)
    sizes = {shape: parameters_at(model.spec, shape) for shape in shapes}
    largest = {shape: rank for rank, shape in enumerate(sorted(shapes, key=lambda shape: -sizes[shape]))}
    left = [Candidate(shape, sizes[shape], sum(found.of(shape)), largest[shape]) for shape in shapes]
    done, wanted = list[Candidate](), min(measured, len(shapes))
    for number in range(wanted):
        chosen = run.next(left, done, last=number > 0 and number + 1 == wanted)
        left.remove(chosen)
        steps = as_part(run.measured(chosen), Message("Shape {number} of {wanted}", number=number + 1, wanted=wanted), number, wanted)
        done.append((yield from scaled(steps, 0.2, 1.0)))
        report(_ordered(done, left))
    return _ordered(done, left)


def _ordered(done: Sequence[Candidate], left: Sequence[Candidate]) -> tuple[Candidate, ...]:
    cheapest = sorted(done, key=lambda one: one.cost.ratio if one.cost and math.isfinite(one.cost.ratio) else math.inf)
    return (*cheapest, *sorted(left, key=lambda one: one.estimate))


def searched(objective: Objective, seconds: float) -> Callable[[int], Job[Plan]]:
    """Return a function that finds the layers of a depth by a search of `seconds` seconds."""

    def layers(depth: int) -> Job[Plan]:
        if depth == objective.model.spec.depth:
            return untouched(depth)
        return (yield from Search(objective, depth, seconds).run())[-1].plan

    return layers


def shaped(model: Model, plan: Plan, shape: Shape, packs: Sequence[Pack], refitted: bool) -> Job[Plan]:
    """Return a plan of a shape's depth trimmed to its width by |X||W|, and, if `refitted`, with refitted consumers."""
    whole = shape_of(model.config)
    kept = TrimSettings(**{axis: getattr(shape, axis) for axis in AXES if getattr(shape, axis) != getattr(whole, axis)})
    if kept != TrimSettings():
        return (yield from trim(model, plan, packs, replace(kept, compensation="refit" if refitted else "nothing")))
    return (yield from refit(model, plan, packs)) if refitted else plan


class _ShapeSearch:
    """One search over shapes."""

    def __init__(
        self,
        model: Model,
        packs: Sequence[Pack],
        found: Estimates,
        measure: Callable[[Plan], Job[Cost]],
        refitted: bool,
        layers: Callable[[int], Job[Plan]] | None,
    ) -> None:
        self._model, self._packs, self._found, self._measure, self._refitted = model, packs, found, measure, refitted
        self._layers, self._deep = layers or self._by_estimate, dict[int, Plan]()

    def next(self, left: Sequence[Candidate], done: Sequence[Candidate], last: bool) -> Candidate:
        """Return the candidate to measure next: the most promising by the scaled estimates, or the largest if it is the last."""
        if last and (largest := next((one for one in left if one.by_size == 0), None)):
            return largest
        known = [(self._found.of(one.shape), one.cost.kl) for one in done if one.cost and math.isfinite(one.cost.kl)]
        worth = learned([parts for parts, _ in known], [cost for _, cost in known])
        return min(left, key=lambda one: sum(map(mul, self._found.of(one.shape), worth or repeat(1.0))))

    def measured(self, one: Candidate) -> Job[Candidate]:
        """Make a shape's plan and measure its cost."""
        depth = one.shape.depth
        if depth not in self._deep:
            self._deep[depth] = yield from scaled(self._layers(depth), 0.0, 0.3)
        plan = replace(self._deep[depth], method="shapes")
        plan = yield from scaled(shaped(self._model, plan, one.shape, self._packs, self._refitted), 0.3, 0.8)
        return replace(one, plan=plan, cost=(yield from scaled(self._measure(plan), 0.8, 1.0)))

    def _by_estimate(self, depth: int) -> Job[Plan]:
        yield from ()
        return plan_of_kept(self._model.spec.depth, self._found.kept(depth), "shapes", keep=depth)
