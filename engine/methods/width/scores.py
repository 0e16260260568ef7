"""Scores of query heads, neurons and channels. Each score is a file in this package; the shared code is here.

Scores come from one pass of practice texts through the current plan, with running sums only.
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

AXES = {"heads": "query", "neurons": "neuron", "channels": "channel"}  # by the families' names


@dataclass(frozen=True, eq=False, slots=True)
class AxisStatistics:
    """One axis of a block: for each place that reads it the sums over its values and the weights [out, in] that read them, the weights
    [out, in] that write the axis, and the gradients of both if a score needs them. All are in float64.

    A head is written by its query projection, and by its key and value if no other head shares them. `unit` is the number of elements per
    scored unit: a head's width, or 1.
    """

    axis: str
    unit: int
    sums: tuple[Sums, ...]
    read: tuple[tuple[torch.Tensor, ...], ...]
    written: tuple[torch.Tensor, ...]
    read_gradients: tuple[torch.Tensor, ...] = ()
    written_gradients: tuple[torch.Tensor, ...] = ()

    def folded(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over each unit's elements."""
        return values.reshape(-1, self.unit).sum(1)


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    """Settings shared by all width scores."""

    axes: ClassVar[tuple[str, ...]] = ("heads", "neurons")
    needs: ClassVar[frozenset[str]] = frozenset()  # of "gram", "gradients"
    version: ClassVar[int] = 1  # version of the formula, see `engine.cache.Definition`


SCORES: Registry[Callable[[AxisStatistics, Any], torch.Tensor]] = Registry("score", __package__)  # each scores an axis of a block: [units]
Scores = dict[str, tuple[torch.Tensor, ...]]  # by axis, one tensor [units] per layer


def scores_for(axis: str) -> tuple[str, ...]:
    """Return the names of an axis's scores."""
    return tuple(name for name, method in SCORES.items() if axis in getattr(method.settings, "axes", ()))


def require_score(score: str, axis: str) -> None:
    """Raise SettingsError if a score is unknown, or is not defined for an axis."""
    SCORES.require(score)
    if score not in scores_for(axis):
        raise SettingsError(
            "the score {score} does not apply to {axis}; choose one of {choices}",
            score=score,
            axis=axis,
            choices=", ".join(scores_for(axis)),
        )


def scores(
    model: Model, plan: Plan, packs: Sequence[Pack], axes: Sequence[str], score: str, settings: Mapping[str, Any] | None = None
) -> Job[Scores]:
    """Return the scores of all units on some axes of a plan, layer by layer, from one pass over practice texts (and one backward pass per
    text if the score needs gradients)."""
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
    """Collects a plan's weights and gradients for scores."""

    def __init__(self, model: Model, plan: Plan) -> None:
        self._mixer = Mixer(model.network, keep=0)
        self._row, self._shape = self._mixer.cutter.row, shape_of(model.config)
        self._gradients: dict[tuple[int, str], torch.Tensor] = {}
        self.consumers = self._row.consumers

    def take(self, place: int, name: str, gradient: torch.Tensor) -> None:
        """Add the gradient of another text."""
        before = self._gradients.get((place, name))
        self._gradients[place, name] = gradient.float().clone() if before is None else before.add_(gradient.float())

    def reading(self, block: Block, place: int, axis: str, seen: Mapping[str, Sums]) -> AxisStatistics:
        """Return an axis of a block with its sums and weights."""
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
        """Return the rows of weights that write the axis; of a fused projection only those rows."""
        if axis == "channels":
            return []
        shape, found = trimmed_shape(self._shape, block.trim), list[torch.Tensor]()
        own = {"query", "key"} if axis == "heads" and shape.heads == shape.groups else {AXES[axis]}
        for name, weight in weights.items():
            parts = self._row.projections[name][0].split("+")
            rows = weight.split([shape.size(part) for part in parts])
            found += [one for part, one in zip(parts, rows, strict=True) if part in own]
        return found
