"""Convert a target (layers, parameters, or the memory of weights and KV cache) to a number of layers."""

from typing import TYPE_CHECKING

import torch

from engine.errors import SettingsError
from engine.judge.memory import cache_by_layer
from engine.messages import Message
from engine.search.settings import Target
from engine.types import ModelSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def layers_for(spec: ModelSpec, config: "PretrainedConfig", target: Target) -> int:
    """Return the most layers that meet a target whichever layers are kept: the largest ones are counted.

    Raises:
        SettingsError: not even one layer meets it; the message gives the smallest possible size.
    """
    target.checked(spec.depth)
    if target.keep is not None:
        return target.keep
    counted = target.bytes is not None
    unit = spec.bytes_per_parameter if counted else 1
    cache = cache_by_layer(config, getattr(torch, spec.dtype), target.context, target.batch) if counted else (0,) * spec.depth
    layers = sorted((own * unit + kept for own, kept in zip(spec.block_parameters, cache, strict=True)), reverse=True)
    costs = [(spec.parameters - sum(spec.block_parameters)) * unit + sum(layers[:keep]) for keep in range(spec.depth + 1)]
    limit = target.bytes if counted else target.parameters
    assert limit is not None
    found = max((keep for keep in range(1, spec.depth + 1) if costs[keep] <= limit), default=0)
    if not found:
        what = Message("{size:.3f} GB", size=costs[1] / 1e9) if counted else Message("{size:.0f} parameters", size=costs[1])
        raise SettingsError("removing layers alone cannot meet the target; a single layer already has {what}", what=what)
    return found
