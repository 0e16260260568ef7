"""The only weight arithmetic: how each parameter of a plan's block is made, and which parameters differ from its home layer's."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.errors import PlanError
from engine.models.devices import exact
from engine.models.families import blocks_of
from engine.plans.tensor_store import tensor_of
from engine.plans.trimming import Cutter, trimmed_shape
from engine.types import Block, Tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_KEEP = 1 << 30


def mix_tensors(parts: Iterable[tuple[float, torch.Tensor]], dtype: torch.dtype) -> torch.Tensor:
    """Return the weighted sum of equally shaped tensors, summed in float32 and cast to `dtype`.

    A single tensor of weight 1 is only cast; if it already has `dtype`, it is returned itself, without a copy.

    Raises:
        PlanError: the shapes differ, so the layers cannot be mixed.
    """
    (weight, first), *rest = parts
    if not rest and weight == 1.0:
        return first.to(dtype)
    total = first.to(torch.float32) * weight
    for weight, tensor in rest:
        if tensor.shape != first.shape:
            raise PlanError(
                "layers of different shapes cannot be mixed: {shape} and {other_shape}",
                shape=tuple(first.shape),
                other_shape=tuple(tensor.shape),
            )
        total += tensor.to(torch.float32) * weight  # no fused multiply-add, so that every processor gives the same bits
    return total.to(dtype)


def repaired(parts: Iterable[tuple[float, torch.Tensor]], dtype: torch.dtype, mark: str, transposed: bool) -> torch.Tensor:
    """Return a mix (see `mix_tensors`) of projection weights ([out, in], or [in, out] if `transposed`) or biases [out] with a repair's map
    folded in.

    The map is applied in float64 and the result is cast once, so that every process gets the same bits.
    """
    mixed = mix_tensors(parts, torch.float32)
    values = exact(mixed)
    matrix = tensor_of(mark).to(values.device).double()
    width = values.shape[-1] if transposed else values.shape[0]
    if matrix.numel() > 1 and matrix.shape != (width, width):
        raise PlanError(
            "the repair {mark} is a map of shape {shape}, which does not fit the model's width of {width}",
            mark=mark[:12],
            shape=tuple(matrix.shape),
            width=width,
        )
    if matrix.numel() == 1:
        made = values * matrix
    elif transposed and values.dim() > 1:
        made = values @ matrix.mT
    else:
        made = matrix @ values
    return made.to(dtype).to(mixed.device)


def pack_mask(left: torch.Tensor) -> torch.Tensor:
    """Return a bool mask of kept weights packed to one bit each: uint8, in the order of the flattened tensor."""
    return torch.from_numpy(np.packbits(left.cpu().numpy().reshape(-1)))


def unpack_mask(bits: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a mask packed by `pack_mask` as bool of a shape."""
    size = int(torch.Size(shape).numel())
    if bits.numel() != -(-size // 8):
        raise PlanError("a mask of this plan does not fit a tensor of shape {shape}", shape=tuple(shape))
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=size).reshape(shape)).bool()


def made(
    cutter: Cutter, block: Block, name: str, read: Callable[[int], torch.Tensor], dtype: torch.dtype, device: Any = "cpu"
) -> torch.Tensor:
    """Return a parameter of a plan's block in the trimmed shape: mixed, repaired or refitted, cut, masked.

    `read` returns the parameter of this name of a source layer, on `device`. The result is rounded once, to `dtype`, and never to the
    source's dtype.

    Raises:
        PlanError: a tensor of the plan is missing, or has the wrong shape for the block.
    """
    if name.rpartition(".")[0] not in cutter.row.projections:
        return cutter.cut(name, read(block.home), block.trim, dtype)
    left = _named(block.masks, name)
    if left is not None and left.dtype != torch.uint8:
        return left.to(device, dtype)
    refit = _named(block.trim.refits, name) if block.trim else None
    if refit is not None:
        tensor = refit.to(device, dtype)
    else:
        tensor = cutter.cut(name, _mixed(cutter, block, name, read, dtype, device), block.trim)
    return tensor if left is None else tensor * unpack_mask(left, tuple(tensor.shape)).to(device)


def new_bias(block: Block, name: str, size: int, dtype: torch.dtype, device: Any = "cpu") -> torch.Tensor:
    """Return a bias [size] that no source layer has, in the trimmed shape: the plan's own, or zeros where another projection of the same
    config switch has one."""
    own = _named(block.trim.refits, name) if block.trim else None
    return torch.zeros(size, dtype=dtype, device=device) if own is None else own.to(device, dtype)


def _mixed(cutter: Cutter, block: Block, name: str, read: Callable[[int], torch.Tensor], dtype: torch.dtype, device: Any) -> torch.Tensor:
    """Return a projection's parameter before cutting."""
    refit = _named(block.refits, name)
    if refit is not None:
        return refit.to(device, dtype)
    parts = ((weight, read(layer)) for layer, weight in block.mix)
    if block.repair and name.rpartition(".")[0] == cutter.row.writes:
        return repaired(parts, dtype, block.repair, cutter.row.transposed)
    return mix_tensors(parts, dtype)


def _named(tensors: Tensors, name: str) -> torch.Tensor | None:
    return next((tensor_of(mark) for parameter, mark in tensors if parameter == name), None)


class Mixer:
    """Builds the parameters of a plan's block that differ from its home layer's, with a cache."""

    def __init__(self, network: "PreTrainedModel", keep: int = _KEEP) -> None:
        """`keep` is the cache size in bytes for tensors other than the source's own; the least recently used are evicted first."""
        self._layers = blocks_of(network)
        self.cutter = Cutter(network.config)
        self._left = keep
        self._own = {parameter.data_ptr() for parameter in self._layers.parameters()}
        self._mixed: OrderedDict[Block, dict[str, torch.Tensor]] = OrderedDict()

    def overrides(self, block: Block) -> dict[str, torch.Tensor]:
        """Return the block's parameters that differ from its home's, by their names in the block, in the source's shapes with cut parts set
        to zero (see engine/plans/trimming.py).

        Some returned parameters may equal the home's. For a block with a single source layer they are that layer's own tensors; built
        tensors have the weights' dtype.
        """
        if block.untouched:
            return {}
        if block in self._mixed:
            self._mixed.move_to_end(block)
            return self._mixed[block]
        names = self.projection_parameters(block.home)
        if block.trim is not None and block.trim.plain:
            names += [f"{norm}.weight" for norm in self.cutter.row.norms]
        names += [name for name, _ in (block.trim.refits if block.trim else ()) if name not in names]  # new biases
        tensors = {name: self._masked(name, block) for name in names}
        if len(block.mix) > 1 or block.tensors or block.trim is not None:
            self._remember(block, tensors)
        return tensors

    def parameter(self, block: Block, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return one of the block's parameters in the trimmed shape, in `dtype` or its home's dtype; no copy is made of a source layer's
        own tensor."""
        module, _, kind = name.rpartition(".")
        home = self._layers[block.home].get_submodule(module)._parameters[kind]
        if home is None:
            weight = self._layers[block.home].get_parameter(f"{module}.weight")
            (axis,) = self.cutter.axes(name)
            size = trimmed_shape(self.cutter.shape, block.trim).size(axis)
            return new_bias(block, name, size, dtype or weight.dtype, weight.device)
        return made(self.cutter, block, name, self._reader(name), dtype or home.dtype, home.device)

    def weight(self, block: Block, projection: str) -> torch.Tensor:
        """Return a projection's weight in the trimmed shape as float64 [out, in], on the CPU."""
        return exact(self.cutter.oriented(self.parameter(block, f"{projection}.weight"))).cpu()

    def projection_parameters(self, layer: int) -> list[str]:
        """Return the names of a layer's projection weights and biases."""
        names = (f"{projection}.{kind}" for projection in self.cutter.row.projections for kind in ("weight", "bias"))
        present = dict(self._layers[layer].named_parameters())
        return [name for name in names if name in present]

    def _masked(self, name: str, block: Block) -> torch.Tensor:
        if any(parameter == name for parameter, _ in (*block.masks, *(block.trim.refits if block.trim else ()))):
            return self.cutter.spread(name, self.parameter(block, name), block.trim)
        home, read = self._layers[block.home].get_parameter(name), self._reader(name)
        if name.rpartition(".")[0] in self.cutter.row.projections:
            return self.cutter.blanked(name, _mixed(self.cutter, block, name, read, home.dtype, home.device), block.trim)
        return self.cutter.blanked(name, home, block.trim)

    def _reader(self, name: str) -> Callable[[int], torch.Tensor]:
        return lambda layer: self._layers[layer].get_parameter(name)

    def _remember(self, block: Block, tensors: dict[str, torch.Tensor]) -> None:
        self._mixed[block] = tensors
        self._left -= self._size(tensors)
        while self._left < 0 and len(self._mixed) > 1:
            self._left += self._size(self._mixed.popitem(last=False)[1])

    def _size(self, tensors: dict[str, torch.Tensor]) -> int:
        return sum(tensor.nbytes for tensor in tensors.values() if tensor.data_ptr() not in self._own)
