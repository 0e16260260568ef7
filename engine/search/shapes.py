"""Which shape for a budget of parameters: all legal ones near it over depth, heads, neurons and channels, the most promising measured.

A shape's estimate is worked out from one pass over practice text, without running it: for every layer and axis, how much of what
the layer writes would be lost if the units with the lowest scores went and the others made up for it (the residual of the refit's
normal equations), and for depth how much the layer changes the stream at all; each as a share of the stream's own square, token by
token (a massive activation counts as much as any other), so that they add up over layers and axes. The estimate only chooses what
is measured; a shape is judged by the cost of its plan.
(Minitron's search, 2407.14679, ranks by size: the largest first. Both ranks are told, and the largest shape is measured too.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

import torch

from engine.errors import SettingsError
from engine.jobs import Job, Progress, as_part, scaled
from engine.judge.cost import Cost
from engine.judge.speed import Speed
from engine.methods.baselines import plan_of_kept
from engine.methods.refit import refit
from engine.methods.widths import AXES, Kept, require_width, trim
from engine.models.shapes import legal_channels, legal_heads, parameters_at, shape_of
from engine.models.texts import Pack
from engine.passes.sums import Sums
from engine.passes.walk import Walk
from engine.plans.rules import untouched
from engine.types import Block, Model, Plan, Shape

WITHIN = 0.05  # of the budget
MEASURED = 10
_NEURON_STEPS = 12  # of the source's neurons
_SHALLOWEST, _NARROWEST = 0.5, 0.75  # of the source's layers and channels
_DAMPING = 0.01


@dataclass(frozen=True, slots=True)
class Candidate:
    """A shape, the parameters it comes to, its estimate, its rank by size (the largest is 0) and, where it was measured, its plan,
    what that costs on practice text and how fast it is (see engine/search/candidates.py)."""

    shape: Shape
    parameters: int
    estimate: float
    by_size: int
    plan: Plan | None = None
    cost: Cost | None = None
    speed: Speed | None = None


@dataclass(frozen=True, slots=True)
class Losses:
    """What a model loses, as shares of the stream's square summed over layers: `influence` of leaving each layer out, and by axis
    and count of units that are left (`heads`, `neurons`, `channels`), a layer each."""

    influence: tuple[float, ...]
    heads: dict[int, tuple[float, ...]]
    neurons: dict[int, tuple[float, ...]]
    channels: dict[int, tuple[float, ...]]

    def of(self, shape: Shape, whole: Shape) -> float:
        """Return the estimate of a shape."""
        kept = self.kept(shape.depth)
        lost = sum(share for layer, share in enumerate(self.influence) if layer not in kept)
        for axis in AXES:
            left = getattr(shape, axis)
            if left != getattr(whole, axis):
                by_layer = getattr(self, axis)[left]
                lost += sum(by_layer[layer] for layer in kept)
        return lost

    def kept(self, depth: int) -> tuple[int, ...]:
        """Return the layers that matter most, in order."""
        ranked = sorted(range(len(self.influence)), key=lambda layer: self.influence[layer], reverse=True)
        return tuple(sorted(ranked[:depth]))


def shapes_near(model: Model, budget: float) -> tuple[Shape, ...]:
    """Return every legal shape whose parameters come within 5 % of a budget and not above it: depth by ones, heads as the groups allow,
    neurons in steps of a 12th, channels in multiples of 8 that the heads divide.

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
            f"no legal shape of this model comes within 5 % of {budget / 1e6:.4g} million parameters; it has {spec.parameters / 1e6:.4g}"
        )
    return tuple(found)


def losses(model: Model, packs: Sequence[Pack], shapes: Sequence[Shape]) -> Job[Losses]:
    """Return what the source loses at the widths of some shapes, from one pass over practice text."""
    wanted = {axis: sorted({getattr(shape, axis) for shape in shapes}) for axis in AXES}
    whole, walk = shape_of(model.config), Walk(model, packs, untouched(model.spec.depth).blocks)
    run, influence = _Layer(walk, whole), list[float]()
    by_axis: dict[str, dict[int, list[float]]] = {axis: {left: [] for left in wanted[axis]} for axis in AXES}
    for place, block in enumerate(untouched(model.spec.depth).blocks):
        yield Progress(f"Layer {place}", place / model.spec.depth)
        before, seen = list(walk.states), dict[str, Sums]()
        shares = {id(pack): 1.0 / state[0].float().norm(dim=-1, keepdim=True) for pack, state in zip(walk.packs, before, strict=True)}

        def see(name: str, x: torch.Tensor, pack: Pack, seen: dict[str, Sums] = seen, shares: dict[int, torch.Tensor] = shares) -> None:
            sums = seen.setdefault(name, Sums(x.shape[1], torch.float32 if name in run.consumers else None))
            sums.add(x.float() * shares[id(pack)], pack)

        yield from scaled(walk.step(block, see), place / model.spec.depth, (place + 1) / model.spec.depth)
        parts = list(zip(walk.packs, before, walk.states, strict=True))
        tokens = sum(pack.ids.shape[1] for pack in walk.packs)
        change = sum(_changed(state, after) for _, state, after in parts)
        influence.append(change / tokens)
        energy = torch.stack([(state[0].float() * shares[id(pack)]).square().sum(0) for pack, state, _ in parts]).double().sum(0).cpu()
        for axis in AXES:
            for left, lost in by_axis[axis].items():
                lost.append(run.lost(block, axis, left, seen, energy, change) / tokens)
    tables = {axis: {left: tuple(lost) for left, lost in table.items()} for axis, table in by_axis.items()}
    return Losses(tuple(influence), tables["heads"], tables["neurons"], tables["channels"])


def _changed(before: torch.Tensor, after: torch.Tensor) -> float:
    """Return how much a layer changes a stream [1, tokens, hidden]: the squared change over the square, at most 1 a token, summed."""
    change, square = (after[0] - before[0]).float().square().sum(-1), before[0].float().square().sum(-1)
    return float((change / square.clamp_min(1e-30)).clamp_max(1.0).sum())


class _Layer:
    """What one layer loses."""

    def __init__(self, walk: Walk, whole: Shape) -> None:
        self._walk, self._whole = walk, whole
        self.consumers = walk.mixer.cutter.row.consumers
        self._reader = dict(zip(("heads", "neurons"), self.consumers, strict=True))

    def lost(self, block: Block, axis: str, left: int, seen: dict[str, Sums], energy: torch.Tensor, change: float) -> float:
        """Return the squared error of what the layer writes with so many units of an axis left."""
        if left >= getattr(self._whole, axis):
            return 0.0
        if axis == "channels":
            ranked = energy.sort().values
            return change * float(ranked[: len(ranked) - left].sum() / ranked.sum())
        name = self._reader[axis]
        sums, weight = seen[name], self._walk.mixer.weight(block, name)
        assert sums.gram is not None
        unit = self._whole.head_dim if axis == "heads" else 1
        scores = (sums.norm * weight.norm(dim=0)).square().reshape(-1, unit).sum(1)
        groups = self._whole.groups if axis == "heads" and self._whole.per_group > 1 else 1
        order = scores.reshape(groups, -1).argsort(dim=1, descending=True)[:, : left // groups]
        units = (order + torch.arange(groups)[:, None] * (len(scores) // groups)).flatten().sort().values
        kept = (units[:, None] * unit + torch.arange(unit)).flatten()
        gone = torch.ones(len(sums.norm), dtype=torch.bool)
        gone[kept] = False
        return residual(sums.gram, weight, kept, gone.nonzero()[:, 0])


def residual(gram: torch.Tensor, weight: torch.Tensor, kept: torch.Tensor, gone: torch.Tensor) -> float:
    """Return the least squared error of W x with only the kept inputs, trace(W_P (G_PP - G_PK G_KK^-1 G_KP) W_P^T); G is damped."""
    own = gram[kept][:, kept].clone()
    own.diagonal().add_(_DAMPING * own.diagonal().mean().clamp_min(1e-30))
    across, part = gram[kept][:, gone], weight[:, gone]
    made_up = torch.cholesky_solve(across, torch.linalg.cholesky(own))
    return float((part @ (gram[gone][:, gone] - across.mT @ made_up) * part).sum().clamp_min(0))


def search_shapes(
    model: Model,
    packs: Sequence[Pack],
    budget: float,
    measure: Callable[[Plan], Job[Cost]],
    tell: Callable[[Sequence[Candidate]], Any] = lambda _: None,
    measured: int = MEASURED,
    refitted: bool = True,
) -> Job[tuple[Candidate, ...]]:
    """Return every legal shape near a budget, the measured ones first (the cheapest before all), the rest by their estimate.

    So many are measured: the first by the estimate, and the largest in place of the last of them, which is what a ranking by size
    would choose.

    `measure` is given the plan of a shape: the layers that matter most, trimmed by |X||W|, and where `refitted` its consumers solved
    again, without which heads look far dearer than they are. `tell` hears of the candidates whenever one has been measured.
    """
    shapes = shapes_near(model, budget)
    whole = shape_of(model.config)
    found = yield from scaled(losses(model, packs, shapes), 0.0, 0.2)
    sizes = {shape: parameters_at(model.spec, shape) for shape in shapes}
    largest = {shape: rank for rank, shape in enumerate(sorted(shapes, key=lambda shape: -sizes[shape]))}
    ranked = sorted(
        (Candidate(shape, sizes[shape], found.of(shape, whole), largest[shape]) for shape in shapes), key=lambda one: one.estimate
    )
    places = _to_measure(ranked, measured)
    for number, place in enumerate(places):
        steps = _measured(model, packs, ranked[place], found, measure, refitted)
        ranked[place] = yield from scaled(as_part(steps, f"Shape {number + 1} of {len(places)}", number, len(places)), 0.2, 1.0)
        tell(ranked)
    done = sorted((one for one in ranked if one.cost is not None), key=lambda one: one.cost.ratio if one.cost else math.inf)
    return (*done, *(one for one in ranked if one.cost is None))


def _to_measure(ranked: Sequence[Candidate], count: int) -> list[int]:
    """Return which of the candidates are measured: the first, and in place of the last of those the largest."""
    first, largest = list(range(min(count, len(ranked)))), next(place for place, one in enumerate(ranked) if one.by_size == 0)
    return first if largest in first or count < 2 else [*first[:-1], largest]


def _measured(
    model: Model, packs: Sequence[Pack], one: Candidate, found: Losses, measure: Callable[[Plan], Job[Cost]], refitted: bool
) -> Job[Candidate]:
    whole = shape_of(model.config)
    kept = Kept(**{axis: getattr(one.shape, axis) for axis in AXES if getattr(one.shape, axis) != getattr(whole, axis)})
    plan = plan_of_kept(model.spec.depth, found.kept(one.shape.depth), "shapes", keep=one.shape.depth)
    if kept != Kept():
        require_width(model, plan, kept)
        plan = yield from scaled(trim(model, plan, packs, kept, refitted=refitted), 0.0, 0.8)
    elif refitted:
        plan = yield from scaled(refit(model, plan, packs), 0.0, 0.8)
    return replace(one, plan=plan, cost=(yield from scaled(measure(plan), 0.8, 1.0)))
