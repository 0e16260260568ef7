"""The reference for checking a checkpoint: its plan's masked form, built without any of the code that writes checkpoints.

Its tensors have the source's shapes, with zeros for pruned parts, and the source's scale, so an error in a writer's widths or factors
cannot be repeated here. They are rounded like the checkpoint's. A checkpoint stores some of them times sqrt(H / H') (see
engine/plans/trimming.py); these are rounded at that scale, which changes no value by more than the rounding.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.models.families import architecture_of
from engine.models.files.tensors import places_in, read_tensor
from engine.models.shapes import shape_of
from engine.plans.tensor_store import tensor_of
from engine.types import Block, Plan, Shape, Tensors, Trim

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_ALL = slice(None)


class Reference:
    """A plan's masked form, as weights of the source's stock network (see `engine.passes.streamed.Weights`)."""

    def __init__(self, folder: Path, config: "PretrainedConfig", plan: Plan, dtype: torch.dtype, stored: Mapping[str, torch.dtype]) -> None:
        """`dtype` is the dtype in which the checkpoint runs, `stored` the dtypes in its files where they differ."""
        self._row, self._plan, self._dtype, self._stored = architecture_of(config), plan, dtype, stored
        self._places, self._kept = places_in(folder), _Kept(shape_of(config))
        self._tied = bool(getattr(config, "tie_word_embeddings", False))
        self._twins = {f"{self._row.embedding}.weight": "lm_head.weight", "lm_head.weight": f"{self._row.embedding}.weight"}
        self.homes = plan.kept

    def outside(self, name: str, rows: slice | torch.Tensor = _ALL) -> torch.Tensor | None:
        """Return a parameter outside the blocks, or rows of it."""
        value, trim = self._read(name), self._plan.blocks[0].trim
        if value is None:
            return None
        value, scaled = value[rows], self._row.scaled_embedding
        if trim is None or trim.channels is None:
            return self._rounded(value, name)
        if name == f"{self._row.norm}.weight":
            return self._gains(value, name, trim, at_scale=not (scaled and self._tied))
        if name not in self._twins:
            return self._rounded(value, name)
        factor = self._kept.stretch(trim) if scaled and (self._tied or name != "lm_head.weight") else 1.0
        value = self._rounded(self._kept.cut(value, ("", "channel"), trim), name, factor)
        return self._kept.spread(value, ("", "channel"), trim)

    def inside(self, place: int, name: str) -> torch.Tensor | None:
        """Return a block's parameter by its name in the block."""
        block, module, written = self._plan.blocks[place], name.rpartition(".")[0], f"{self._row.blocks}.{place}.{name}"
        if module in self._row.projections:
            value = self._projection(block, name)
            return None if value is None else self._kept.spread(self._rounded(value, written), self._axes(name), block.trim)
        value = self._read(f"{self._row.blocks}.{block.home}.{name}")
        if value is None or block.trim is None or module not in self._row.norms:
            return None if value is None else self._rounded(value, written)
        return self._gains(value, written, block.trim, at_scale=True)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a checkpoint's tensor by its name in the network; None if the plan has no such tensor."""
        trim, axes = self._plan.blocks[0].trim, tuple[str, ...]()
        if name.startswith(f"{self._row.blocks}."):
            place, _, rest = name.removeprefix(f"{self._row.blocks}.").partition(".")
            block, axes = self._plan.blocks[int(place)], self._axes(rest)
            trim, name = block.trim, f"{self._row.blocks}.{block.home}.{rest}"
        elif name in self._twins or name == f"{self._row.norm}.weight":
            axes = ("channel",) if name not in self._twins else ("", "channel")
        found = self._read(name)
        if trim is None or not axes:
            return None if found is None else tuple(found.shape)
        whole = found.shape if found is not None else [self._kept.size(axis) for axis in axes]
        return tuple(len(kept) if kept is not None else size for size, kept in zip(whole, self._kept.along(axes, trim), strict=True))

    def _projection(self, block: Block, name: str) -> torch.Tensor | None:
        """Return a projection's parameter in the trimmed shape before rounding: mixed, repaired or refitted, cut, masked."""
        left = _named(block.masks, name)
        if left is not None and left.dtype != torch.uint8:
            return left
        value = _named(block.trim.refits, name) if block.trim else None
        if value is None:
            whole = _named(block.refits, name)
            whole = self._mixed(block, name) if whole is None else whole
            value = None if whole is None else self._kept.cut(whole, self._axes(name), block.trim)
        if left is None or value is None:
            return value
        return value * torch.from_numpy(np.unpackbits(left.numpy(), count=value.numel()).reshape(value.shape))

    def _mixed(self, block: Block, name: str) -> torch.Tensor | None:
        """Return a projection's parameter summed over layers, in float32 and in order, with a repair's map applied."""
        layers = [(weight, self._read(f"{self._row.blocks}.{layer}.{name}")) for layer, weight in block.mix]
        parts = [(weight, value) for weight, value in layers if value is not None]
        repair = block.repair if name.rpartition(".")[0] == self._row.writes else ""
        if not parts or (block.mix[0][1] == 1.0 and len(parts) == 1 and not repair):
            return parts[0][1] if parts else None
        total = sum((value.float() * weight for weight, value in parts[1:]), parts[0][1].float() * parts[0][0])
        if not repair:
            return total
        total, matrix = total.double(), tensor_of(repair).double()
        if matrix.numel() == 1:
            return total * matrix
        return total @ matrix.mT if self._row.transposed and total.dim() > 1 else matrix @ total

    def _gains(self, value: torch.Tensor, name: str, trim: Trim, at_scale: bool) -> torch.Tensor:
        """Return a norm's gains over all channels, rounded at the scale of the checkpoint or at their own."""
        stretch, unit = self._kept.stretch(trim), 1.0 if self._row.unit_gains else 0.0
        if not trim.plain:
            return self._rounded(value, name, stretch if at_scale else 1.0, unit)
        value = self._rounded(value, name) if at_scale else value
        value = (value.double() + unit) / stretch - unit
        return value if at_scale else self._rounded(value, name)

    def _rounded(self, value: torch.Tensor, name: str, factor: float = 1.0, unit: float = 0.0) -> torch.Tensor:
        """Return a value as read from a checkpoint that stores (value + unit) * factor - unit, scaled back."""
        stored = value if factor == 1.0 else (value.double() + unit) * factor - unit
        kind = self._stored.get(name, self._stored.get(self._twins.get(name, ""), self._dtype))
        stored = stored.to(kind).to(self._dtype)
        return stored if factor == 1.0 else (stored.double() + unit) / factor - unit

    def _read(self, name: str) -> torch.Tensor | None:
        """Return a tensor of the source; a tied tensor is found under either name, and base-model checkpoints omit the first word."""
        for one in (name, self._twins.get(name, name) if self._tied else name):
            for found in (one, one.partition(".")[2]):
                if found in self._places:
                    return read_tensor(found, self._places[found])
        return None

    def _axes(self, name: str) -> tuple[str, ...]:
        """Return the axis of each dimension of a block's parameter; () if none can be cut."""
        module, _, kind = name.rpartition(".")
        if module in self._row.norms:
            return ("channel",)
        if module not in self._row.projections:
            return ()
        writes, reads = self._row.projections[module]
        return (writes,) if kind == "bias" else (reads, writes) if self._row.transposed else (writes, reads)


def _named(tensors: Tensors, name: str) -> torch.Tensor | None:
    return next((tensor_of(mark) for parameter, mark in tensors if parameter == name), None)


class _Kept:
    """The indices that a trim keeps along each axis."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def stretch(self, trim: Trim) -> float:
        """Return sqrt(H / H')."""
        return 1.0 if trim.channels is None else math.sqrt(self._shape.channels / len(trim.channels))

    def size(self, axis: str) -> int:
        """Return the length of an axis in the source."""
        return self._shape.size(axis)

    def along(self, axes: tuple[str, ...], trim: Trim) -> list[torch.Tensor | None]:
        """Return the kept indices along each dimension; None for a dimension that cannot be cut."""
        return [torch.tensor(self._places(axis, trim)) if axis else None for axis in axes]

    def cut(self, value: torch.Tensor, axes: tuple[str, ...], trim: Trim | None) -> torch.Tensor:
        """Return a tensor reduced to the kept indices."""
        for dim, places in enumerate(self.along(axes, trim) if trim else ()):
            if places is not None and len(places) < value.shape[dim]:
                value = value.index_select(dim, places)
        return value

    def spread(self, value: torch.Tensor, axes: tuple[str, ...], trim: Trim | None) -> torch.Tensor:
        """Return a reduced tensor in the source's shape, with zeros for the pruned parts."""
        for dim, (axis, places) in enumerate(zip(axes, self.along(axes, trim), strict=True) if trim else ()):
            if places is not None and len(places) < self.size(axis):
                shape = (*value.shape[:dim], self.size(axis), *value.shape[dim + 1 :])
                value = value.new_zeros(shape).index_copy_(dim, places, value)
        return value

    def _places(self, axis: str, trim: Trim) -> list[int]:
        shape, found, start = self._shape, list[int](), 0
        heads = range(shape.heads) if trim.heads is None else trim.heads
        groups = sorted({head // shape.per_group for head in heads})
        for part in axis.split("+"):
            if part in ("query", "key"):
                units = heads if part == "query" else groups
                own = [head * shape.head_dim + unit for head in units for unit in range(shape.head_dim)]
            else:
                kept = trim.neurons if part == "neuron" else trim.channels
                own = list(range(shape.size(part)) if kept is None else kept)
            found += [start + place for place in own]
            start += shape.size(part)
        return found
