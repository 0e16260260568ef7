"""The only weight arithmetic: projections as weighted sums of source projections."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch

from engine.architectures import architecture_of, blocks_of
from engine.errors import PlanError
from engine.types import Block


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


class Mixer:
    """Builds what differs between a plan's block and its home layer; keeps a bounded number of summed blocks."""

    def __init__(self, network: Any, keep: int = 8) -> None:
        self._layers = blocks_of(network)
        self._projections = architecture_of(network.config).projections
        self._keep = keep
        self._mixed: OrderedDict[Block, dict[str, torch.Tensor]] = OrderedDict()

    def overrides(self, block: Block) -> dict[str, torch.Tensor]:
        """Return the block's parameters that are not its home's, by their names in the block.

        For a block with one source they are that layer's own tensors; sums are built in the weights' dtype.
        """
        if block.untouched:
            return {}
        if block in self._mixed:
            self._mixed.move_to_end(block)
            return self._mixed[block]
        tensors = {name: self._mix(name, block) for name in self.projection_parameters(block.home)}
        if len(block.mix) > 1:
            self._mixed[block] = tensors
            if len(self._mixed) > self._keep:
                self._mixed.popitem(last=False)
        return tensors

    def projection_parameters(self, layer: int) -> list[str]:
        """Return the names of a layer's projection weights and biases."""
        names = (f"{projection}.{kind}" for projection in self._projections for kind in ("weight", "bias"))
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
        return mix_tensors(parts, parts[0][1].dtype)
