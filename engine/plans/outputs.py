"""The tensors of a plan's checkpoint, and how each is made from the source's."""

import re
from functools import partial
from typing import TYPE_CHECKING

import torch

from engine.errors import ExportError
from engine.models.families import architecture_of
from engine.models.files.tensors import Output, TensorPlace, read_tensor
from engine.plans.surgery import made, new_bias
from engine.plans.trimming import Cutter, PlanForm, role_of
from engine.types import Block, Plan, Shape, Trim

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def plan_outputs(config: "PretrainedConfig", plan: Plan, form: PlanForm, places: dict[str, TensorPlace], dtype: str) -> dict[str, Output]:
    """Return the tensors to write, by name, made from the source tensors at `places`; `config` is the source's. Integer and
    boolean tensors keep their dtype.

    Raises:
        ExportError: the checkpoint lacks a tensor that the plan needs, or does not use the family's tensor names.
    """
    row = architecture_of(config)
    stems = (row.blocks, row.blocks.split(".", 1)[1])  # base-model checkpoints omit the first word
    stem = next((s for s in stems if any(name.startswith(f"{s}.0.") for name in places)), None)
    if stem is None:
        raise ExportError("no tensor of the checkpoint is named {blocks}.0.…, so its layers cannot be identified", blocks=row.blocks)
    maker = _Maker(config, form.shape, stem, places, dtype)
    pattern = re.compile(rf"{re.escape(stem)}\.(\d+)\.(.+)")
    layers: dict[int, list[str]] = {}
    outputs: dict[str, Output] = {}
    for name in places:
        if (match := pattern.fullmatch(name)) is None:
            outputs[name] = maker.outside(name, plan.blocks[0].trim)
        else:
            layers.setdefault(int(match[1]), []).append(match[2])
    for index, block in enumerate(plan.blocks):
        outputs |= {f"{stem}.{index}.{rest}": maker.inside(block, rest) for rest in layers[block.home]}
        outputs |= {f"{stem}.{index}.{name}.bias": maker.new_bias(block, name) for name in form.added}
    return outputs


class _Maker:
    """Makes the tensors of a checkpoint."""

    def __init__(self, config: "PretrainedConfig", shape: Shape, stem: str, places: dict[str, TensorPlace], dtype: str) -> None:
        self._cutter, self._stem, self._places, self._dtype = Cutter(config), stem, places, dtype
        self._shape = shape

    def outside(self, name: str, trim: Trim | None) -> Output:
        """Return a tensor outside the blocks, such as the embedding."""
        place, role = self._places[name], role_of(self._cutter.row, name)
        shape = place.shape
        if trim is not None and trim.channels is not None and role:
            shape = (*shape[:-1], len(trim.channels))
        kind = self._kind(place)
        return Output(kind, shape, lambda: self._cutter.outside(role, read_tensor(name, place), trim, kind))

    def inside(self, block: Block, rest: str) -> Output:
        """Return a tensor of a block; `rest` is its name in the block."""
        projection = rest.rpartition(".")[0] in self._cutter.row.projections
        sources = [block.home, *(layer for layer, _ in block.mix if projection)]
        for layer in sources:
            if self._named(layer, rest) not in self._places:
                raise ExportError("the source lacks the tensor {name}, which the plan needs", name=self._named(layer, rest))
        place = self._places[self._named(sources[-1], rest)]
        kind, shape = self._kind(place), place.shape
        if block.trim is not None and (axes := self._cutter.axes(rest)):
            shape = tuple(self._shape.size(axis) for axis in axes)
        return Output(kind, shape, partial(made, self._cutter, block, rest, lambda layer: self._read(layer, rest), kind))

    def new_bias(self, block: Block, projection: str) -> Output:
        """Return the bias of a projection that has none in the source."""
        kind, name = self._kind(self._places[self._named(block.home, f"{projection}.weight")]), f"{projection}.bias"
        (axis,) = self._cutter.axes(name)
        size = self._shape.size(axis)
        return Output(kind, (size,), partial(new_bias, block, name, size, kind))

    def _read(self, layer: int, rest: str) -> torch.Tensor:
        name = self._named(layer, rest)
        return read_tensor(name, self._places[name])

    def _named(self, layer: int, rest: str) -> str:
        return f"{self._stem}.{layer}.{rest}"

    def _kind(self, place: TensorPlace) -> torch.dtype:
        return getattr(torch, self._dtype) if self._dtype != "auto" and place.dtype.is_floating_point else place.dtype
