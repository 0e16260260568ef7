"""Width: which query heads, neurons and channels of a plan are kept, by a score. Every score is a file of this room; what all share
is here.

Scores are of one pass over practice text through the plan as it stands, with running sums only. Heads are ranked within their KV
group, neurons within their layer, channels by the sum over layers; every layer keeps as many.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch

from engine.errors import SettingsError
from engine.jobs import Job, scaled
from engine.methods.refit import refit
from engine.models.devices import exact
from engine.models.shapes import parameters_at, shape_of, shaped_config
from engine.models.texts import Pack, read_in
from engine.passes import gradients
from engine.passes.sums import Sums
from engine.passes.walk import Walk, readers
from engine.plans.surgery import Mixer
from engine.plans.trimming import trimmed_shape
from engine.settings import Registry
from engine.types import Block, Model, Part, Plan, Shape, Trim

AXES = {"heads": "query", "neurons": "neuron", "channels": "channel"}  # as families name them


@dataclass(frozen=True, eq=False, slots=True)
class Reading:
    """An axis of one block: for each place where it is read the sums over what is read there and the weights [out, in] that read
    it, the weights [out, in] whose outputs it is, and the gradients of both where a score needs them. All in float64.

    `unit` is how many elements of the axis make one of what is scored: a head's width, or 1.
    """

    axis: str
    unit: int
    sums: tuple[Sums, ...]
    read: tuple[tuple[torch.Tensor, ...], ...]
    written: tuple[torch.Tensor, ...]
    read_gradients: tuple[torch.Tensor, ...] = ()
    written_gradients: tuple[torch.Tensor, ...] = ()

    def folded(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of what each unit's elements have."""
        return values.reshape(-1, self.unit).sum(1)


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    """Of every score of a width."""

    axes: ClassVar[tuple[str, ...]] = ("heads", "neurons")
    needs: ClassVar[frozenset[str]] = frozenset()  # of "gram", "gradients"


SCORES: Registry[Callable[[Reading, Any], torch.Tensor]] = Registry("score", __package__)  # each scores an axis of a block: [units]
Scores = dict[str, tuple[torch.Tensor, ...]]  # by axis, a layer each: [units]


@dataclass(frozen=True, slots=True)
class Kept:
    """How many query heads, neurons and channels are to be left; None leaves all that there are."""

    heads: int | None = None
    neurons: int | None = None
    channels: int | None = None


def scores_for(axis: str) -> tuple[str, ...]:
    """Return the scores that an axis has."""
    return tuple(name for name, method in SCORES.items() if axis in getattr(method.settings, "axes", ()))


def require_score(score: str, axis: str) -> None:
    """Raise SettingsError where a score is unknown, or is none of an axis."""
    SCORES.require(score)
    if score not in scores_for(axis):
        raise SettingsError(f"{score} is no score of {axis}; choose one of {', '.join(scores_for(axis))}")


def require_width(model: Model, plan: Plan, kept: Kept) -> Shape:
    """Return the shape that a plan comes to, so trimmed.

    Raises:
        SettingsError: nothing would be cut, or there is no such number. PlanError: the stock class has no such shape.
    """
    now = trimmed_shape(shape_of(model.config), plan.blocks[0].trim)
    for axis in AXES:
        wanted, there = getattr(kept, axis), getattr(now, axis)
        if wanted is not None and not 1 <= wanted <= there:
            raise SettingsError(f"{wanted} {axis} cannot be kept of {there}")
    heads = now.heads if kept.heads is None else kept.heads
    if now.per_group > 1 and heads % now.groups:
        raise SettingsError(f"{heads} query heads cannot be kept: each of the {now.groups} KV groups keeps as many")
    shape = replace(now.with_heads(heads), neurons=kept.neurons or now.neurons, channels=kept.channels or now.channels)
    if shape == now:
        raise SettingsError("nothing is to be cut: name fewer heads, neurons or channels than there are")
    shaped_config(model.config, shape)
    return shape


def kept_for(model: Model, plan: Plan, kept: Kept, parameters: float) -> Kept:
    """Return what is to be kept so that a plan comes to at most so many parameters: beside what is asked for, the most neurons.

    Raises:
        SettingsError: neurons are asked for too, or even one a layer is too many.
    """
    if kept.neurons is not None:
        raise SettingsError("name neurons or parameters, not both: neurons are what is cut to meet a number of parameters")
    now = trimmed_shape(shape_of(model.config), plan.blocks[0].trim)
    shape = replace(now.with_heads(kept.heads or now.heads), depth=plan.depth, channels=kept.channels or now.channels)
    for neurons in range(now.neurons, 0, -1):
        if parameters_at(model.spec, replace(shape, neurons=neurons)) <= parameters:
            return replace(kept, neurons=neurons if neurons < now.neurons else None)
    raise SettingsError(f"{parameters / 1e6:.4g} million parameters cannot be met by cutting neurons; cut heads, channels or layers too")


def trim(
    model: Model,
    plan: Plan,
    packs: Sequence[Pack],
    kept: Kept,
    score: str = "weighted",
    settings: Mapping[str, Any] | None = None,
    refitted: bool = True,
    plain: bool = False,
) -> Job[Plan]:
    """Return a plan with less width, its masks and earlier refits dropped; where `refitted`, what reads the cut parts is solved
    again. `plain` leaves norm gains as they are (Minitron's trimming).

    Raises:
        SettingsError: the score is unknown or none of an axis that is cut, or there is no such width.
        PlanError: the family's stock class has no such shape.
    """
    require_width(model, plan, kept)
    now = trimmed_shape(shape_of(model.config), plan.blocks[0].trim)
    asked = {axis: count for axis in AXES if (count := getattr(kept, axis)) not in (None, getattr(now, axis))}
    for axis in asked:
        require_score(score, axis)
    method = SCORES[score]
    record = method.asked(settings or {})
    begun = replace(plan.dense, blocks=tuple(_without_refits(block) for block in plan.dense.blocks))
    share = 0.3 if refitted else 1.0
    found = yield from scaled(scores(model, begun, packs, tuple(asked), score, settings), 0.0, share)
    picked = {axis: _picked(axis, found[axis], count, now) for axis, count in asked.items()}
    blocks = [
        replace(block, trim=_trim(block.trim, {axis: one[place] for axis, one in picked.items()}, plain))
        for place, block in enumerate(begun.blocks)
    ]
    told = (*asked.items(), *asdict(record).items(), ("refit", refitted), *read_in(packs))
    trimmed = replace(begun, blocks=tuple(blocks), width=Part(score, told))
    return (yield from scaled(refit(model, trimmed, packs), share, 1.0)) if refitted else trimmed


def _without_refits(block: Block) -> Block:
    return replace(block, trim=block.trim and replace(block.trim, refits=()))


def _picked(axis: str, found: Sequence[torch.Tensor], count: int, shape: Shape) -> list[tuple[int, ...]]:
    """Return for each layer what is kept of an axis: the highest scores, the first of equal ones, in order."""
    if axis == "channels":
        found = [torch.stack(tuple(found)).sum(0)] * len(found)
    if axis == "heads" and shape.per_group > 1:
        rows = [scores.reshape(shape.groups, -1) for scores in found]
        count //= shape.groups
    else:
        rows = [scores[None] for scores in found]
    kept = []
    for one in rows:
        best = one.argsort(dim=1, descending=True, stable=True)[:, :count].sort(1).values
        kept.append(tuple((best + torch.arange(len(one))[:, None] * one.shape[1]).flatten().tolist()))
    return kept


def _trim(before: Trim | None, picked: Mapping[str, tuple[int, ...]], plain: bool) -> Trim:
    """Return the trim of a block: of what it had, what was picked."""
    before = before or Trim()

    def kept(axis: str, there: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if axis not in picked:
            return there
        return picked[axis] if there is None else tuple(there[index] for index in picked[axis])

    heads, neurons, channels = kept("heads", before.heads), kept("neurons", before.neurons), kept("channels", before.channels)
    return Trim(heads, neurons, channels, plain or before.plain)


def scores(
    model: Model, plan: Plan, packs: Sequence[Pack], axes: Sequence[str], score: str, settings: Mapping[str, Any] | None = None
) -> Job[Scores]:
    """Return what each unit of some axes of a plan scores, layer by layer, from one pass over practice text (and one backward pass
    a text where the score needs gradients)."""
    for axis in axes:
        require_score(score, axis)
    method = SCORES[score]
    record, run, begins = method.asked(settings or {}), _Scoring(model, plan), 0.0
    if "gradients" in record.needs:
        begins = 0.7
        yield from scaled(gradients.full(model, plan, packs, run.take), 0.0, begins)
    found: dict[str, list[torch.Tensor]] = {axis: [] for axis in axes}
    walk = Walk(model, packs, plan.blocks)
    gram = torch.float32 if "gram" in record.needs else None
    for place, block in enumerate(plan.blocks):
        seen: dict[str, Sums] = {}

        def see(name: str, x: torch.Tensor, pack: Pack, seen: dict[str, Sums] = seen) -> None:
            consumer = name in run.consumers
            seen.setdefault(name, Sums(x.shape[1], gram if consumer else None)).add(x, pack)

        start, stop = (begins + (1 - begins) * (place + more) / plan.depth for more in (0, 1))
        yield from scaled(walk.step(block, see), start, stop)
        for axis in axes:
            found[axis].append(method.run(run.reading(block, place, axis, seen), record))
    return {axis: tuple(each) for axis, each in found.items()}


class _Scoring:
    """What scores need of a plan's weights."""

    def __init__(self, model: Model, plan: Plan) -> None:
        self._mixer = Mixer(model.network, keep=0)
        self._row, self._shape = self._mixer.cutter.row, shape_of(model.config)
        self._gradients: dict[tuple[int, str], torch.Tensor] = {}
        self.consumers = self._row.consumers

    def take(self, place: int, name: str, gradient: torch.Tensor) -> None:
        """Sum up the gradient of another text."""
        before = self._gradients.get((place, name))
        self._gradients[place, name] = gradient.float().clone() if before is None else before.add_(gradient.float())

    def reading(self, block: Block, place: int, axis: str, seen: Mapping[str, Sums]) -> Reading:
        """Return an axis of a block with what was seen of it."""
        together = {reader: names for reader, names in readers(self._row).items() if self._row.projections[reader][1] == AXES[axis]}
        weights = {name: self._mixer.weight(block, name) for name in self._row.projections}
        known = {name: self._gradients.get((place, f"{name}.weight")) for name in weights}
        slopes = {name: exact(self._mixer.cutter.oriented(found)).cpu() for name, found in known.items() if found is not None}
        return Reading(
            axis=axis,
            unit=self._shape.head_dim if axis == "heads" else 1,
            sums=tuple(seen[reader] for reader in together),
            read=tuple(tuple(weights[name] for name in names) for names in together.values()),
            written=tuple(self._writers(weights, axis, block)),
            read_gradients=tuple(slopes[name] for names in together.values() for name in names if slopes),
            written_gradients=tuple(self._writers(slopes, axis, block)),
        )

    def _writers(self, weights: Mapping[str, torch.Tensor], axis: str, block: Block) -> list[torch.Tensor]:
        """Return the rows of weights whose outputs are the axis; of a fused projection only those."""
        shape, found = trimmed_shape(self._shape, block.trim), list[torch.Tensor]()
        for name, weight in weights.items():
            parts = self._row.projections[name][0].split("+")
            rows = weight.split([shape.size(part) for part in parts])
            found += [one for part, one in zip(parts, rows, strict=True) if part == AXES[axis] and axis != "channels"]
        return found
