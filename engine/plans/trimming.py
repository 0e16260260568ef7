"""Width arithmetic: which rows and columns of a tensor are kept, and how norms and embeddings compensate for removed channels.

There are two forms of the same model. In the trimmed form tensors are really smaller; exports and live networks use it. In the masked form
tensors keep the source's shape, with zeros where a part was cut; evaluation uses it, so that states stay comparable with the source's.
RMSNorm divides by the root mean square over its channels: over H' instead of H channels it gives sqrt(H' / H) of the masked result. Gains
are therefore multiplied by sqrt(H / H') and the epsilon by H / H', and both forms compute the same. `plain` leaves the gains unchanged
(Minitron's trimming); its masked form multiplies them by sqrt(H' / H).

Gemma multiplies its embedding by sqrt(hidden_size), which becomes sqrt(H'), so the embedding is multiplied by sqrt(H / H'). A head tied to
it is scaled too, and the final norm then needs no factor.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from engine.errors import PlanError
from engine.models.devices import exact
from engine.models.families import Architecture, architecture_of, resized_config
from engine.models.shapes import Shape, shape_of, shaped_config
from engine.types import Plan, Trim

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, eq=False, slots=True)
class PlanForm:
    """The form of a plan's model: its config, its shape, and the projections that have a bias in it but not in the source."""

    config: "PretrainedConfig"
    shape: Shape
    added: tuple[str, ...] = ()


def form_of(config: "PretrainedConfig", plan: Plan) -> PlanForm:
    """Return the form of a plan's model, with its depth and its widths, from the source's config.

    Raises:
        PlanError: the family's stock class does not support the shape.
    """
    resized = resized_config(config, plan.kept)
    trim, shape = plan.blocks[0].trim, shape_of(resized)
    if trim is None:
        return PlanForm(resized, shape)
    shape = trimmed_shape(shape, trim)
    shaped = shaped_config(resized, shape)
    switches = new_biases(architecture_of(config), plan, partial(getattr, config))
    shaped.update(dict.fromkeys(switches, True))
    return PlanForm(shaped, shape, tuple(name for names in switches.values() for name in names))


def new_biases(row: Architecture, plan: Plan, has: Callable[[str], bool]) -> dict[str, tuple[str, ...]]:
    """Return the projections that have a bias in a plan but not in its source, by config switch. A switch adds biases to all of its
    projections. `has(switch)` is whether the source sets it."""
    named = {name for block in plan.blocks if block.trim for name, _ in block.trim.refits}
    return {
        switch: projections
        for switch, projections in row.biases.items()
        if named & {f"{name}.bias" for name in projections} and not has(switch)
    }


def trimmed_shape(shape: Shape, trim: Trim | None) -> Shape:
    """Return a shape after a trim."""
    if trim is None:
        return shape
    heads = range(shape.heads) if trim.heads is None else trim.heads
    groups = {head // shape.per_group for head in heads}
    neurons = shape.neurons if trim.neurons is None else len(trim.neurons)
    channels = shape.channels if trim.channels is None else len(trim.channels)
    return Shape(shape.depth, len(heads), len(groups), shape.head_dim, neurons, channels)


class Cutter:
    """Cuts the tensors of a model, in its blocks and outside them, to a trim."""

    def __init__(self, config: "PretrainedConfig") -> None:
        self.row: Architecture = architecture_of(config)
        self.shape = shape_of(config)
        self._tied = bool(getattr(config, "tie_word_embeddings", False))

    def kept(self, axis: str, trim: Trim) -> torch.Tensor | None:
        """Return the indices that a trim keeps along an axis of a projection; None for all of them."""
        parts, start, whole = [], 0, True
        for part in axis.split("+"):
            found = self._kept(part, trim)
            whole = whole and found is None
            parts.append(start + (torch.arange(self.shape.size(part)) if found is None else found))
            start += self.shape.size(part)
        found = torch.cat(parts)
        if len(found) and int(found.max()) >= start:
            raise PlanError("this plan keeps indices beyond the open model's width: its {axis} axis has {start}", axis=axis, start=start)
        return None if whole else found

    def _kept(self, axis: str, trim: Trim) -> torch.Tensor | None:
        if axis in ("neuron", "channel"):
            indices = trim.neurons if axis == "neuron" else trim.channels
            return None if indices is None else torch.tensor(indices)
        if trim.heads is None:
            return None
        heads = trim.heads if axis == "query" else sorted({head // self.shape.per_group for head in trim.heads})
        if axis == "key" and len(heads) == self.shape.groups:
            return None
        return (torch.tensor(heads)[:, None] * self.shape.head_dim + torch.arange(self.shape.head_dim)).flatten()

    def axes(self, name: str) -> tuple[str, ...]:
        """Return the axes of a block's parameter, one per dimension; () where none can be cut."""
        module, _, kind = name.rpartition(".")
        if module in self.row.projections:
            writes, reads = self.row.projections[module]
            return (writes,) if kind == "bias" else (reads, writes) if self.row.transposed else (writes, reads)
        return ("channel",) if module in self.row.norms else ()

    def oriented(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a projection's weight as [out, in] from its stored layout, or back: both are the same transposition."""
        return weight.mT if self.row.transposed else weight

    def cut(self, name: str, tensor: torch.Tensor, trim: Trim | None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a parameter of a block in the trimmed shape, in `dtype` or its own dtype; no copy is made if nothing changes. Gains are
        scaled in float64 and rounded once, to the result's dtype."""
        dtype = dtype or tensor.dtype
        if trim is None:
            return tensor.to(dtype)
        tensor = self._select(tensor, self.axes(name), trim)
        return self._scaled(tensor, self._gain(trim), dtype) if name.rpartition(".")[0] in self.row.norms else tensor.to(dtype)

    def spread(self, name: str, tensor: torch.Tensor, trim: Trim | None) -> torch.Tensor:
        """Return a projection's trimmed parameter in the source's shape, with zeros where it was cut."""
        if trim is None:
            return tensor
        for dim, axis in enumerate(self.axes(name)):
            if (indices := self.kept(axis, trim)) is not None:
                shape = (*tensor.shape[:dim], self.shape.size(axis), *tensor.shape[dim + 1 :])
                tensor = tensor.new_zeros(shape).index_copy_(dim, indices.to(tensor.device), tensor)
        return tensor

    def blanked(self, name: str, tensor: torch.Tensor, trim: Trim | None) -> torch.Tensor:
        """Return a parameter of the source's shape in the masked form: rows that write to cut channels, and columns that read cut heads or
        neurons, are zero. Columns that read cut channels stay, because they read zeros. No copy is made if nothing changes."""
        if trim is None:
            return tensor
        module, _, kind = name.rpartition(".")
        if module in self.row.norms:
            return self._scaled(tensor, 1.0 / self.stretch(trim), tensor.dtype) if trim.plain else tensor
        for dim, axis in enumerate(self.axes(name)):
            writes = kind == "bias" or dim == (1 if self.row.transposed else 0)
            if (axis == "channel") == writes and (indices := self.kept(axis, trim)) is not None:
                tensor = _zero_but(tensor, dim, indices)
        return tensor

    def silenced(self, state: torch.Tensor, trim: Trim | None) -> torch.Tensor:
        """Return a state [..., H] with zeros in the channels that a trim removes."""
        channels = None if trim is None else self.kept("channel", trim)
        return state if channels is None else _zero_but(state, -1, channels)

    def outside(self, role: str, tensor: torch.Tensor, trim: Trim | None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the weight of the "embedding", the final "norm" or the "head" in the trimmed shape, in `dtype` or its own dtype, scaled in
        float64 and rounded once."""
        dtype = dtype or tensor.dtype
        if trim is None or trim.channels is None or not role:
            return tensor.to(dtype)
        scaled = self.row.scaled_embedding
        tied = self._tied and scaled
        tensor = self._select(tensor, ("channel",) if role == "norm" else ("", "channel"), trim)
        if role == "norm":
            return self._scaled(tensor, self._gain(trim) / (self.stretch(trim) if tied else 1.0), dtype)
        if tied or (scaled and role == "embedding"):
            return (exact(tensor) * self.stretch(trim)).to(dtype).to(tensor.device)
        return tensor.to(dtype)

    def stretch(self, trim: Trim) -> float:
        """Return sqrt(H / H')."""
        return 1.0 if trim.channels is None else math.sqrt(self.shape.channels / len(trim.channels))

    def _gain(self, trim: Trim) -> float:
        return 1.0 if trim.plain else self.stretch(trim)

    def _scaled(self, gains: torch.Tensor, factor: float, dtype: torch.dtype) -> torch.Tensor:
        if factor == 1.0:
            return gains.to(dtype)
        unit = 1.0 if self.row.unit_gains else 0.0
        return ((exact(gains) + unit) * factor - unit).to(dtype).to(gains.device)

    def _select(self, tensor: torch.Tensor, axes: tuple[str, ...], trim: Trim) -> torch.Tensor:
        for dim, axis in enumerate(axes):
            if axis and (indices := self.kept(axis, trim)) is not None:
                tensor = tensor.index_select(dim, indices.to(tensor.device))
        return tensor


def _zero_but(tensor: torch.Tensor, dim: int, indices: torch.Tensor) -> torch.Tensor:
    """Return a tensor with zeros along a dimension, except at some indices."""
    indices = indices.to(tensor.device)
    return torch.zeros_like(tensor).index_copy_(dim, indices, tensor.index_select(dim, indices))


def role_of(row: Architecture, name: str) -> str:
    """Return the role of a checkpoint's tensor, "embedding", "norm" or "head"; "" for any other tensor."""
    for role, path in (("embedding", row.embedding), ("norm", row.norm), ("head", "lm_head")):
        if name in (f"{path}.weight", f"{path.partition('.')[2]}.weight"):
            return role
    return ""
