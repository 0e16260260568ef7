"""Masks of some kinds of parts, and the Lagrangian that drives each kind to an exact number (see hard_concrete.py)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.methods.learned.hard_concrete import BOUNDS, SPREAD, START, SURE, Values, chance, drawn, soft, topmost


@dataclass(frozen=True, slots=True)
class MaskKind:
    """A kind of part: `rows` of `units` masks each, of which every row keeps `kept`. One mask stands for `each` reported parts, such as the
    query heads of a layer that has one row per KV group."""

    name: str
    rows: int
    units: int
    kept: int
    each: int = 1


def lagrangian(gone: torch.Tensor, wanted: float, multipliers: torch.Tensor) -> torch.Tensor:
    """Return the term that a kind adds to the loss: `gone` is the expected share of removed parts per row [rows], `wanted` its target."""
    off = gone - wanted
    return (multipliers[0] * off + multipliers[1] * off.square()).mean()


class Masks(nn.Module):
    """The masks of some kinds of parts: their parameters `a`, and two multipliers per kind."""

    def __init__(self, kinds: Iterable[MaskKind], seed: int) -> None:
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

    def _told(self, kind: MaskKind, way: float) -> dict[str, Any]:
        a, whole = self.a[kind.name], kind.units * kind.each
        masks = soft(a)
        return {
            "expected": float(chance(a).mean()) * whole,
            "wanted": (1 - way * _gone(kind)) * whole,
            "multipliers": self.multipliers[kind.name].tolist(),
            "undecided": int(((masks > SURE[0]) & (masks < SURE[1])).sum()),
            "masks": a.numel(),
        }


def _gone(kind: MaskKind) -> float:
    return 1 - kind.kept / kind.units
