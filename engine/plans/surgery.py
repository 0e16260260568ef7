"""The only weight arithmetic: projections as weighted sums of source projections, and the maps that repair a seam."""

import functools
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.cache import cache_folder
from engine.errors import PlanError
from engine.models.devices import exact
from engine.models.families import architecture_of, blocks_of
from engine.types import Block

_FRESH = 16


def mix_tensors(parts: Iterable[tuple[float, torch.Tensor]], dtype: torch.dtype) -> torch.Tensor:
    """Return the weighted sum of equally shaped tensors, summed in float32 and cast to `dtype`.

    A single tensor of weight 1 is only cast, so that at its own dtype it is returned bit for bit, without a copy.

    Raises:
        PlanError: the shapes differ, so the layers cannot be mixed.
    """
    (weight, first), *rest = parts
    if not rest and weight == 1.0:
        return first.to(dtype)
    total = first.to(torch.float32) * weight
    for weight, tensor in rest:
        if tensor.shape != first.shape:
            raise PlanError(f"layers of different shapes cannot be mixed: {tuple(first.shape)} and {tuple(tensor.shape)}")
        total.add_(tensor.to(torch.float32), alpha=weight)
    return total.to(dtype)


_fresh: OrderedDict[str, torch.Tensor] = OrderedDict()  # maps that were made and may yet be thrown away; the last few


def name_map(tensor: torch.Tensor) -> str:
    """Return the fingerprint of a repair's map (float32, [hidden, hidden] or one factor), by which a block names it, and
    remember the map for a while; see `keep_map`."""
    tensor = tensor.detach().cpu().to(torch.float32).contiguous()
    mark = hashlib.sha256(str(tuple(tensor.shape)).encode() + tensor.numpy().tobytes()).hexdigest()
    _fresh[mark] = tensor
    while len(_fresh) > _FRESH:
        _fresh.popitem(last=False)
    return mark


def keep_map(mark: str) -> None:
    """Write a map that `name_map` has named to the disk, to stay."""
    path = map_file(mark)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        save_file({"map": map_of(mark)}, partial)
        os.replace(partial, path)


def map_file(mark: str) -> Path:
    """Return where the map of a fingerprint is kept."""
    return cache_folder() / "repairs" / f"{mark}.safetensors"


def map_of(mark: str) -> torch.Tensor:
    """Return the map of a fingerprint.

    Raises:
        PlanError: it is not kept on this machine, or its file is broken.
    """
    fresh = _fresh.get(mark)
    return _read_map(map_file(mark)) if fresh is None else fresh


@functools.lru_cache(maxsize=16)
def _read_map(path: Path) -> torch.Tensor:
    try:
        return load_file(path)["map"]
    except (OSError, KeyError, SafetensorError) as error:
        raise PlanError(f"the repair {path.stem[:12]} of this plan is not on this machine; repair the plan again") from error


def pack_maps(marks: Iterable[str], file: Path) -> None:
    """Write the maps of these fingerprints into one safetensors file.

    Raises:
        PlanError: a map is not known here, or the file cannot be written.
    """
    try:
        save_file({mark: map_of(mark).contiguous() for mark in marks}, file)
    except (OSError, SafetensorError) as error:
        raise PlanError(f"the plan's repairs cannot be written to {file}: {error}") from error


def unpack_maps(file: Path) -> None:
    """Keep the maps of a file that `pack_maps` wrote; a file that is not there holds none.

    Raises:
        PlanError: the file is broken, or a map in it is not the one its name says.
    """
    if not file.exists():
        return
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise PlanError(f"{file} holds the plan's repairs and cannot be read: {error}") from error
    for mark, tensor in found.items():
        if name_map(tensor) != mark:
            raise PlanError(f"{file} holds a map that is not the one its plan names")
        keep_map(mark)


def repaired(parts: Iterable[tuple[float, torch.Tensor]], dtype: torch.dtype, mark: str, transposed: bool) -> torch.Tensor:
    """Return a mix (see `mix_tensors`) of projections' weights ([out, in], or [in, out] where `transposed`) or biases
    [out] with a repair's map folded in.

    The map is applied in float64 and the outcome cast once, so that every process finds the same bits.
    """
    mixed = mix_tensors(parts, torch.float32)
    values = exact(mixed)
    matrix = map_of(mark).to(values.device).double()
    width = values.shape[-1] if transposed else values.shape[0]
    if matrix.numel() > 1 and matrix.shape != (width, width):
        raise PlanError(f"the repair {mark[:12]} is a map of {tuple(matrix.shape)}, made for a model of another width than {width}")
    if matrix.numel() == 1:
        made = values * matrix
    elif transposed and values.dim() > 1:
        made = values @ matrix.mT
    else:
        made = matrix @ values
    return made.to(dtype).to(mixed.device)


class Mixer:
    """Builds what differs between a plan's block and its home layer; keeps a bounded number of summed blocks."""

    def __init__(self, network: Any, keep: int = 8) -> None:
        self._layers = blocks_of(network)
        self._row = architecture_of(network.config)
        self._keep = keep
        self._mixed: OrderedDict[Block, dict[str, torch.Tensor]] = OrderedDict()

    def overrides(self, block: Block) -> dict[str, torch.Tensor]:
        """Return the block's parameters that are not its home's, by their names in the block. Where only a repair makes
        the difference they include some that are.

        For a block with one source they are that layer's own tensors; sums are built in the weights' dtype.
        """
        if block.untouched:
            return {}
        if block in self._mixed:
            self._mixed.move_to_end(block)
            return self._mixed[block]
        tensors = {name: self._mix(name, block) for name in self.projection_parameters(block.home)}
        if len(block.mix) > 1 or block.repair:
            self._mixed[block] = tensors
            if len(self._mixed) > self._keep:
                self._mixed.popitem(last=False)
        return tensors

    def projection_parameters(self, layer: int) -> list[str]:
        """Return the names of a layer's projection weights and biases."""
        names = (f"{projection}.{kind}" for projection in self._row.projections for kind in ("weight", "bias"))
        present = dict(self._layers[layer].named_parameters())
        return [name for name in names if name in present]

    def cast(self, network: Any, dtype: torch.dtype) -> None:
        """Cast the network's parameters and every sum built so far, and leave buffers (rotary tables) as they are."""
        for parameter in network.parameters():
            parameter.data = parameter.data.to(dtype)
        for tensors in self._mixed.values():
            tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

    def _mix(self, name: str, block: Block) -> torch.Tensor:
        parts = [(weight, self._layers[layer].get_parameter(name)) for layer, weight in block.mix]
        if block.repair and name.rpartition(".")[0] == self._row.writes:
            return repaired(parts, parts[0][1].dtype, block.repair, self._row.transposed)
        return mix_tensors(parts, parts[0][1].dtype)
