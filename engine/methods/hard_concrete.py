"""Learned masks that select the parts of a model to keep, and the Lagrangian that drives them to an exact number (Sheared LLaMA,
2310.06694, section 2.1, after Louizos et al., 1712.01312). The constants are those of the published code.

A part's mask is z in [0, 1], drawn anew for every pass from its parameter a by

    u ~ U(0, 1),   s = sigmoid((log u - log(1 - u) + a) / beta),   z = min(1, max(0, s (1.1 + 0.1) - 0.1))

so that both ends have positive probability: P(z > 0) = sigmoid(a - beta log(0.1 / 1.1)). With s the expected share of removed parts, t its
target, and two multipliers that ascend while all other parameters descend, each kind of part adds

    lambda_1 (s - t) + lambda_2 (s - t)^2,   the mean over its rows
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

BETA = 2 / 3
LOW, HIGH = -0.1, 1.1
EDGE = 1e-6  # the distance of u and P(z > 0) from 0 and 1
START, SPREAD = 5.0, 0.01  # mean and deviation of the initial parameters
BOUNDS = (math.log(0.01), math.log(100))  # limits of the parameters, applied in every pass
SOFT = 0.8  # slope of the mask without drawing, from the published code
SURE = (0.01, 0.99)  # a mask between these is undecided

Values = Mapping[str, torch.Tensor]  # masks by kind: [rows, units]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of part: `rows` of `units` masks each, of which every row keeps `kept`. One mask stands for `each` reported parts, such as the
    query heads of a layer that has one row per KV group."""

    name: str
    rows: int
    units: int
    kept: int
    each: int = 1


def stretched(a: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Return masks from their parameters and draws from U(0, 1)."""
    s = torch.sigmoid((u.log() - torch.log1p(-u) + a) / BETA)
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


def drawn(a: torch.Tensor) -> torch.Tensor:
    """Return masks drawn with torch's generator."""
    return stretched(a, torch.empty_like(a).uniform_(EDGE, 1 - EDGE))


def chance(a: torch.Tensor) -> torch.Tensor:
    """Return the probability that a mask is not 0."""
    return torch.sigmoid(a - BETA * math.log(-LOW / HIGH)).clamp(EDGE, 1 - EDGE)


def soft(a: torch.Tensor) -> torch.Tensor:
    """Return the value of a kept mask without drawing."""
    return torch.sigmoid(a / BETA * SOFT)


def topmost(a: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return masks [rows, units] without drawing: soft values for the `kept` [rows] highest parameters of each row (the first of equal
    ones), and 0 for the others."""
    ranks = a.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return soft(a) * (ranks < kept[:, None])


def lagrangian(gone: torch.Tensor, wanted: float, multipliers: torch.Tensor) -> torch.Tensor:
    """Return the term that a kind adds to the loss: `gone` is the expected share of removed parts per row [rows], `wanted` its target."""
    off = gone - wanted
    return (multipliers[0] * off + multipliers[1] * off.square()).mean()


class Masks(nn.Module):
    """The masks of some kinds of parts: their parameters `a`, and two multipliers per kind."""

    def __init__(self, kinds: Iterable[Kind], seed: int) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        generator = torch.Generator().manual_seed(seed)
        self.a = nn.ParameterDict()
        self.multipliers = nn.ParameterDict()
        for kind in self.kinds:
            start = torch.randn(kind.rows, kind.units, generator=generator) * SPREAD + START
            self.a[kind.name], self.multipliers[kind.name] = nn.Parameter(start), nn.Parameter(torch.zeros(2))

    def drawn(self) -> Values:
        """Return masks for a training pass. The parameters are first clamped to their bounds."""
        with torch.no_grad():
            for a in self.a.values():
                a.clamp_(*BOUNDS)
        return {name: drawn(a) for name, a in self.a.items()}

    @torch.no_grad()
    def expected(self) -> Values:
        """Return masks for an evaluation during training, which keep as many parts as expected."""
        return {name: topmost(a, chance(a).sum(1).round()) for name, a in self.a.items()}

    @torch.no_grad()
    def exact(self) -> Values:
        """Return masks of which each row keeps exactly the target number of parts."""
        rows = {kind.name: self.a[kind.name].new_full((kind.rows,), kind.kept) for kind in self.kinds}
        return {name: topmost(self.a[name], kept) for name, kept in rows.items()}

    def lagrangian(self, way: float) -> torch.Tensor:
        """Return the loss terms of all kinds, when the target has moved `way` of the way from the whole model to the final target."""
        each = [lagrangian(1 - chance(self.a[kind.name]).mean(1), way * _gone(kind), self.multipliers[kind.name]) for kind in self.kinds]
        return torch.stack(each).sum()

    @torch.no_grad()
    def summary(self, way: float) -> dict[str, dict[str, Any]]:
        """Return the state of each kind: the parts expected to stay per layer (or of all layers, or of the model's channels), the current
        target, the multipliers, and the number of undecided masks."""
        return {kind.name: self._told(kind, way) for kind in self.kinds}

    def _told(self, kind: Kind, way: float) -> dict[str, Any]:
        a, whole = self.a[kind.name], kind.units * kind.each
        masks = soft(a)
        return {
            "expected": float(chance(a).mean()) * whole,
            "wanted": (1 - way * _gone(kind)) * whole,
            "multipliers": self.multipliers[kind.name].tolist(),
            "undecided": int(((masks > SURE[0]) & (masks < SURE[1])).sum()),
            "masks": a.numel(),
        }


def _gone(kind: Kind) -> float:
    return 1 - kind.kept / kind.units
