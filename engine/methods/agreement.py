"""How far two scores of the same units agree: Spearman's rank correlation, layer by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

Layers = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two scores, a rank correlation a layer in [-1, 1]; NaN where one of them is the same for all units."""

    first: str
    second: str
    layers: tuple[float, ...]


def agreements(scores: Mapping[str, Layers]) -> tuple[Agreement, ...]:
    """Return how far any two of some scores agree."""
    return tuple(
        Agreement(a, b, tuple(spearman(x, y) for x, y in zip(scores[a], scores[b], strict=True))) for a, b in combinations(scores, 2)
    )


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the correlation of the ranks of two lists, equal values sharing the mean of their ranks."""
    return float(torch.corrcoef(torch.stack([_ranks(x), _ranks(y)]))[0, 1])


def _ranks(values: Sequence[float]) -> torch.Tensor:
    found = torch.tensor(values, dtype=torch.float64)
    _, places, counts = found.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    return (ends - (counts - 1) / 2)[places]
