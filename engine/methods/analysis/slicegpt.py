"""SliceGPT (Ashkboos et al. 2024, 2401.15024), section 3: the share of the residual stream's variance kept by its k principal directions.
This is an analysis only: no stock class loads such a checkpoint.

C = sum over tokens of x^T x, where x is the output of the layer's first norm without its gain, so that every token counts equally. This is
the paper's definition; in the raw stream, which the published code uses, a few tokens with massive values dominate. The k largest
eigenvalues of C are kept. To rotate each layer to its own eigenvectors, every residual connection would need the product of two layers'
rotations, and norms would need their gains folded into the projections that read them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.func import functional_call

from engine.jobs import Job, scaled
from engine.models.families import blocks_of
from engine.models.texts import Pack
from engine.passes.sums import Gram
from engine.passes.walk import Walk
from engine.types import Model, Plan

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Directions:
    """Shares of the (uncentred) variance of the residual stream that enters each layer: of its `principal` directions, the largest first,
    and of its `channels`. One row per layer; each adds up to 1."""

    principal: Rows
    channels: Rows


def directions(model: Model, plan: Plan, packs: Sequence[Pack]) -> Job[Directions]:
    """Return the variance shares of the residual stream's directions and channels in a plan, from one pass; in float64."""
    walk, principal, channels = Walk(model, packs, plan.blocks), list[tuple[float, ...]](), list[tuple[float, ...]]()
    for place, block in enumerate(plan.blocks):
        gram = _gram(model, walk, block.home)
        principal.append(_shares(torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)))
        channels.append(_shares(gram.diagonal()))
        if place + 1 < plan.depth:
            yield from scaled(walk.step(block), place / plan.depth, (place + 1) / plan.depth)
    return Directions(tuple(principal), tuple(channels))


def _shares(values: torch.Tensor) -> tuple[float, ...]:
    return tuple((values / values.sum()).tolist())


@torch.no_grad()
def _gram(model: Model, walk: Walk, home: int) -> torch.Tensor:
    """Return the sum of x^T x [hidden, hidden] over all tokens before a layer, x after its first norm with neutral gain and bias."""
    row = walk.mixer.cutter.row
    norm = blocks_of(model.network)[home].get_submodule(row.norms[0])
    neutral = {"weight": torch.zeros_like if row.unit_gains else torch.ones_like, "bias": torch.zeros_like}
    named = {name: neutral[name](parameter) for name, parameter in norm.named_parameters()}
    gram = Gram(walk.states[0].shape[-1], torch.float64)
    with model.lock:
        for state in walk.states:
            gram.add(functional_call(norm, named, (state[0],)))
    return gram.total()
