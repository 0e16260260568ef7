"""Sheared LLaMA (Xia et al. 2023, 2310.06694), section 2.1: targeted structured pruning. Masks learn which layers, heads, neurons and
channels to keep (see hard_concrete.py and masks.py) while the weights are trained too; every layer ends with the same given shape.

The masks are applied to the weights, so that no forward pass changes. With h the masks of channels, l those of layers, and a mask of the
heads or the neurons on the input of the projection that mixes them:

    embedding * h        o_proj, down_proj: rows * h * l, columns * their mask        gains of norms * h * sqrt(kept / width)

The root compensates for a norm's mean, which is taken over all channels instead of the kept ones. A norm that closes a block (Gemma's) gets
l, because it would undo any factor before it. The published code masks activations instead: the result is the same, except for KV groups of
several query heads, which it does not support. Here each group has its own row of masks, or one mask for the whole group. The head has no
mask.

At the end the masks are exact. Those of heads and neurons keep their soft values, which are folded into the projections. Those of layers
and channels are 1 where kept, because a plan takes its norms and its embedding from the source: only projections have been trained.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.func import functional_call

from engine.methods.depth.baselines import plan_of_kept
from engine.methods.learned.hard_concrete import Values
from engine.methods.learned.masks import Masks
from engine.methods.width.refit import with_tensor
from engine.models.families import blocks_of
from engine.plans.rules import untouched
from engine.plans.trimming import Cutter
from engine.types import Block, Part, Plan, Trim

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Masked(nn.Module):
    """A network under masks, usable as a causal language model: masks are drawn during training, keep the expected number of parts during
    evaluation, and are exact once `settled`. Only its projections are trained."""

    def __init__(self, network: "PreTrainedModel", masks: Masks) -> None:
        super().__init__()
        self.network, self.masks, self.settled = network, masks, False
        self._cutter = Cutter(network.config)

    @property
    def config(self) -> Any:
        """The network's own config."""
        return self.network.config

    def get_output_embeddings(self) -> Any:
        """Return the network's own output embeddings, which have no mask."""
        return self.network.get_output_embeddings()

    def base_model(self, **inputs: Any) -> Any:
        """Run the network up to its final states."""
        weights = {name.partition(".")[2]: tensor for name, tensor in self.weights(self.values()).items()}
        return functional_call(self.network.base_model, weights, kwargs=inputs, tie_weights=True)

    def forward(self, **inputs: Any) -> Any:
        """Run the whole network. Its head is masked too if it is tied to the embedding."""
        return functional_call(self.network, self.weights(self.values()), kwargs=inputs, tie_weights=True)

    def projections(self) -> dict[str, nn.Parameter]:
        """Return the parameters of all projections, by name."""
        row = self._cutter.row
        stems = [f"{row.blocks}.{place}.{name}." for place in range(self._cutter.shape.depth) for name in row.projections]
        return {name: one for name, one in self.network.named_parameters() if name.startswith(tuple(stems))}

    def values(self) -> Values:
        """Return the masks by kind: [1, units] of layers and channels, [layers, units] of heads and neurons."""
        found = self._exact() if self.settled else self.masks.drawn() if self.training else self.masks.expected()
        shared = ("layers", "channels")
        return {name: value if name in shared else value.reshape(self._cutter.shape.depth, -1) for name, value in found.items()}

    def _exact(self) -> Values:
        return {name: value if name in ("heads", "neurons") else value.ceil() for name, value in self.masks.exact().items()}

    def weights(self, values: Values) -> dict[str, torch.Tensor]:
        """Return the parameters that masks change, by name."""
        row, found = self._cutter.row, {}
        for place, block in enumerate(blocks_of(self.network)):
            for name, tensor in (*self._written(place, block, values), *self._normed(place, block, values)):
                found[f"{row.blocks}.{place}.{name}"] = tensor
        if "channels" in values:
            found[f"{row.embedding}.weight"] = self.network.get_parameter(f"{row.embedding}.weight") * values["channels"]
            gains = self.network.get_parameter(f"{row.norm}.weight")
            found[f"{row.norm}.weight"] = self._gained(gains, _root(values["channels"]), values["channels"][0])
        return found

    def _written(self, place: int, block: nn.Module, values: Values) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the projections that read heads and neurons and write to the residual stream."""
        row = self._cutter.row
        factors = [values["channels"][0]] if "channels" in values else []
        factors += [values["layers"][0, place]] if "layers" in values and not row.closing else []
        for name, kind in zip(row.consumers, ("heads", "neurons"), strict=True):
            projection: Any = block.get_submodule(name)
            weight, bias = self._cutter.oriented(projection.weight), projection.bias
            if kind in values:
                mask = values[kind][place]
                weight = weight * mask.repeat_interleave(weight.shape[1] // len(mask))
            for factor in factors:
                weight = weight * factor.reshape(-1, 1)
                bias = None if bias is None else bias * factor
            yield f"{name}.weight", self._cutter.oriented(weight)
            if bias is not None:
                yield f"{name}.bias", bias

    def _normed(self, place: int, block: nn.Module, values: Values) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the gains of the norms."""
        row = self._cutter.row
        for name in row.norms:
            closing = name in row.closing
            factors = [_root(values["channels"])] if "channels" in values else []
            # the input of a closing norm has them already
            factors += [values["channels"][0]] if "channels" in values and not closing else []
            factors += [values["layers"][0, place]] if "layers" in values and closing else []
            if factors:
                yield f"{name}.weight", self._gained(block.get_parameter(f"{name}.weight"), *factors)

    def _gained(self, gains: torch.Tensor, *factors: torch.Tensor) -> torch.Tensor:
        unit = 1.0 if self._cutter.row.unit_gains else 0.0
        return functools.reduce(torch.mul, factors, gains + unit) - unit

    @torch.no_grad()
    def plan(self, dtype: torch.dtype, facts: Mapping[str, Any]) -> Plan:
        """Return the kept parts as a plan, its projections in `dtype` as tensors stored with it; `facts` are the settings it records.

        Its gains are plain: its norms are those under the masks, over the kept channels (see engine/plans/trimming.py).
        """
        self.settled = True
        values, depth = self.values(), self._cutter.shape.depth
        weights = dict(self.projections()) | self.weights(values)
        begun = untouched(depth)
        if "layers" in values:
            begun = plan_of_kept(depth, values["layers"][0].nonzero().flatten().tolist(), "sheared", **facts)
        blocks = tuple(self._folded(block, values, weights, dtype) for block in begun.blocks)
        wide = blocks[0].trim is not None
        return replace(begun, blocks=blocks, width=Part("sheared", (*facts.items(), ("learned", True))) if wide else None)

    def _folded(self, block: Block, values: Values, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Block:
        block = replace(block, trim=self._trim(block.home, values))
        stem = f"{self._cutter.row.blocks}.{block.home}."
        for name, tensor in weights.items():
            parameter = name.removeprefix(stem)
            if name.startswith(stem) and parameter.rpartition(".")[0] in self._cutter.row.projections:
                block = with_tensor(block, parameter, self._cutter.cut(parameter, tensor, block.trim).to(dtype))
        return block

    def _trim(self, place: int, values: Values) -> Trim | None:
        kept = {kind: tuple(value[place % len(value)].nonzero().flatten().tolist()) for kind, value in values.items() if kind != "layers"}
        if "heads" in kept:
            each = self._cutter.shape.heads // values["heads"].shape[1]
            kept["heads"] = tuple(unit * each + one for unit in kept["heads"] for one in range(each))
        return Trim(**kept, plain="channels" in kept) if kept else None


def _root(channels: torch.Tensor) -> torch.Tensor:
    """Return sqrt(kept / width): a norm's mean is over all channels, of which only these are not 0."""
    return (channels.count_nonzero() / channels.numel()).sqrt()
