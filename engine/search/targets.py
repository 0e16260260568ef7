"""What a smaller model must come down to: layers, parameters, or the memory of weights and KV cache."""

from dataclasses import dataclass
from typing import Any

import torch

from engine.errors import SettingsError
from engine.judge.memory import cache_by_layer
from engine.methods.baselines import require_target
from engine.types import ModelSpec


@dataclass(frozen=True, slots=True)
class Target:
    """What a plan must come down to; exactly one of the first three is given.

    `keep` layers, or at most so many `parameters`, or at most so many `bytes` of weights and the KV cache of `batch`
    sequences of `context` tokens.
    """

    keep: int | None = None
    parameters: float | None = None
    bytes: float | None = None
    context: int = 0
    batch: int = 1

    def check(self, depth: int) -> None:
        """Raise SettingsError where that is clear before a weight is read."""
        if sum(value is not None for value in (self.keep, self.parameters, self.bytes)) != 1:
            raise SettingsError("name one target: layers to keep, parameters, or gigabytes")
        if self.context < 0 or self.batch < 1:
            raise SettingsError(f"a cache of {self.batch} sequences of {self.context} tokens makes no sense; at least 1 and 0 do")
        if self.keep is not None:
            require_target(depth, self.keep)


def layers_for(spec: ModelSpec, config: Any, target: Target) -> int:
    """Return the most layers that meet a target whichever layers they are: the largest ones are counted.

    Raises:
        SettingsError: not even one layer does; the nearest that can be met is named.
    """
    target.check(spec.depth)
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
        what = f"{costs[1] / 1e9:.3f} GB" if counted else f"{costs[1]:.0f} parameters"
        raise SettingsError(f"the target cannot be met by leaving layers out; one layer alone comes to {what}")
    return found
