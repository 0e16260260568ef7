"""Scores of query heads, neurons and channels. Every score is a file of this room; what all share is here.

Scores are of one pass over practice text through the plan as it stands, with running sums only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from engine.errors import SettingsError
from engine.jobs import Job, scaled
from engine.models.devices import exact
from engine.models.shapes import shape_of
from engine.models.texts import Pack
from engine.passes import gradients
from engine.passes.sums import Sums
from engine.passes.walk import Walk, readers
from engine.plans.surgery import Mixer
from engine.plans.trimming import trimmed_shape
from engine.settings import Registry
from engine.types import Block, Model, Plan

AXES = {"heads": "query", "neurons": "neuron", "channels": "channel"}  # as families name them


@dataclass(frozen=True, eq=False, slots=True)
class AxisStatistics:
    """An axis of one block: for each place where it is read the sums over what is read there and the weights [out, in] that read
    it, the weights [out, in] whose outputs it is, and the gradients of both where a score needs them. All in float64.

    What writes a head is its query, and its key and value where it shares them with no other head.

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
    version: ClassVar[int] = 1  # of the formula, see `engine.cache.Definition`


SCORES: Registry[Callable[[AxisStatistics, Any], torch.Tensor]] = Registry("score", __package__)  # each scores an axis of a block: [units]
Scores = dict[str, tuple[torch.Tensor, ...]]  # by axis, a layer each: [units]


def scores_for(axis: str) -> tuple[str, ...]:
    """Return the scores that an axis has."""
    return tuple(name for name, method in SCORES.items() if axis in getattr(method.settings, "axes", ()))


def require_score(score: str, axis: str) -> None:
    """Raise SettingsError where a score is unknown, or is none of an axis."""
    SCORES.require(score)
    if score not in scores_for(axis):
        raise SettingsError(f"{score} is no score of {axis}; choose one of {', '.join(scores_for(axis))}")


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

    def reading(self, block: Block, place: int, axis: str, seen: Mapping[str, Sums]) -> AxisStatistics:
        """Return an axis of a block with what was seen of it."""
        together = {reader: names for reader, names in readers(self._row).items() if self._row.projections[reader][1] == AXES[axis]}
        weights = {name: self._mixer.weight(block, name) for name in self._row.projections}
        known = {name: self._gradients.get((place, f"{name}.weight")) for name in weights}
        slopes = {name: exact(self._mixer.cutter.oriented(found)).cpu() for name, found in known.items() if found is not None}
        return AxisStatistics(
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
        if axis == "channels":
            return []
        shape, found = trimmed_shape(self._shape, block.trim), list[torch.Tensor]()
        own = {"query", "key"} if axis == "heads" and shape.heads == shape.groups else {AXES[axis]}
        for name, weight in weights.items():
            parts = self._row.projections[name][0].split("+")
            rows = weight.split([shape.size(part) for part in parts])
            found += [one for part, one in zip(parts, rows, strict=True) if part in own]
        return found
