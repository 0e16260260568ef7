"""Width in numbers: which rows and columns of a tensor stay, and how norms and embeddings make up for channels that go.

Two forms of the same model. In the trimmed one tensors are really smaller: that is what is exported and what a live network has.
In the masked one they keep the source's shape, with zeros where something was cut: that is what judging runs, so that states stay
comparable with the source's. RMSNorm divides by the root of the mean square over its channels: over H' instead of H of them it
gives sqrt(H' / H) of what the masked model has, so gains are multiplied by sqrt(H / H') and the epsilon by H / H'; then both forms
compute the same. `plain` leaves the gains as they are (Minitron's trimming); its masked form has them times sqrt(H' / H).

Gemma multiplies its embedding by sqrt(hidden_size), which becomes sqrt(H'): the embedding is multiplied by sqrt(H / H'). Where the
head is tied to it, so is the head, and the final norm needs no factor of its own.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from engine.errors import PlanError
from engine.models.devices import exact
from engine.models.families import Architecture, architecture_of, resized_config
from engine.models.shapes import Shape, shape_of, shaped_config
from engine.types import Plan, Trim


def plan_config(config: Any, plan: Plan) -> Any:
    """Return the config of the model that a plan describes: its depth, and its widths where it has some.

    Raises:
        PlanError: the family's stock class has no such shape.
    """
    resized = resized_config(config, plan.kept)
    trim = plan.blocks[0].trim
    if trim is None:
        return resized
    shaped = shaped_config(resized, trimmed_shape(shape_of(resized), trim))
    shaped.update(dict.fromkeys(new_biases(architecture_of(config), plan, partial(getattr, config)), True))
    return shaped


def new_biases(row: Architecture, plan: Plan, has: Callable[[str], bool]) -> dict[str, tuple[str, ...]]:
    """Return the projections that have a bias in a plan and none in its source, by the config's switch that gives it to them: all of
    a switch go together. `has` tells whether a switch is on in the source."""
    named = {name for block in plan.blocks if block.trim for name, _ in block.trim.refits}
    return {
        switch: projections
        for switch, projections in row.biases.items()
        if named & {f"{name}.bias" for name in projections} and not has(switch)
    }


def trimmed_shape(shape: Shape, trim: Trim | None) -> Shape:
    """Return the shape that a trim leaves of one."""
    if trim is None:
        return shape
    heads = range(shape.heads) if trim.heads is None else trim.heads
    groups = {head // shape.per_group for head in heads}
    neurons = shape.neurons if trim.neurons is None else len(trim.neurons)
    channels = shape.channels if trim.channels is None else len(trim.channels)
    return Shape(shape.depth, len(heads), len(groups), shape.head_dim, neurons, channels)


class Cutter:
    """Cuts the tensors of one model's blocks, and of what lies outside them, to a trim."""

    def __init__(self, config: Any) -> None:
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
            raise PlanError(f"this plan keeps what the open model does not have: its {axis} axis is {start} wide")
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
        """Return the axes of a block's parameter, by the dimensions of its tensor; () where none of them is ever cut."""
        module, _, kind = name.rpartition(".")
        if module in self.row.projections:
            writes, reads = self.row.projections[module]
            return (writes,) if kind == "bias" else (reads, writes) if self.row.transposed else (writes, reads)
        return ("channel",) if module in self.row.norms else ()

    def oriented(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a projection's weight as [out, in] from how it is stored, or the other way: it is the same turn."""
        return weight.mT if self.row.transposed else weight

    def cut(self, name: str, tensor: torch.Tensor, trim: Trim | None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a parameter of a block in the trimmed shape, in a dtype or in its own; without a copy where nothing of it is changed.
        Gains are scaled in float64 and rounded once, to what comes out."""
        dtype = dtype or tensor.dtype
        if trim is None:
            return tensor.to(dtype)
        tensor = self._select(tensor, self.axes(name), trim)
        return self._scaled(tensor, self._gain(trim), dtype) if name.rpartition(".")[0] in self.row.norms else tensor.to(dtype)

    def spread(self, name: str, tensor: torch.Tensor, trim: Trim | None) -> torch.Tensor:
        """Return a projection's parameter of the trimmed shape in the source's, with zeros where it was cut."""
        if trim is None:
            return tensor
        for dim, axis in enumerate(self.axes(name)):
            if (indices := self.kept(axis, trim)) is not None:
                shape = (*tensor.shape[:dim], self.shape.size(axis), *tensor.shape[dim + 1 :])
                tensor = tensor.new_zeros(shape).index_copy_(dim, indices.to(tensor.device), tensor)
        return tensor

    def blanked(self, name: str, tensor: torch.Tensor, trim: Trim | None) -> torch.Tensor:
        """Return a parameter of the source's shape as the masked form has it: what writes to cut channels or reads cut heads or
        neurons is zero; that zeros are read elsewhere needs no zeros of its own. Without a copy where nothing changes."""
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
        """Return a state [..., H] with zeros in the channels that a trim does not keep."""
        channels = None if trim is None else self.kept("channel", trim)
        return state if channels is None else _zero_but(state, -1, channels)

    def outside(self, role: str, tensor: torch.Tensor, trim: Trim | None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the weight of the "embedding", of the final "norm" or of the "head" in the trimmed shape, in a dtype or in its own; like
        all that lies outside the blocks, it is scaled in float64 and rounded once."""
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
    """Return a tensor with zeros along a dimension, but for some indices."""
    indices = indices.to(tensor.device)
    return torch.zeros_like(tensor).index_copy_(dim, indices, tensor.index_select(dim, indices))


def role_of(row: Architecture, name: str) -> str:
    """Return which of "embedding", "norm" and "head" a checkpoint's tensor is the weight of; "" for none of them."""
    for role, path in (("embedding", row.embedding), ("norm", row.norm), ("head", "lm_head")):
        if name in (f"{path}.weight", f"{path.partition('.')[2]}.weight"):
            return role
    return ""
