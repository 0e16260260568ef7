"""Agreement between two scores of the same units, or between a score and measured losses: Spearman's rank correlation per layer, because
scores rank units only within a layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

Layers = Sequence[Sequence[float]]
LEAST = 4  # units per layer; fewer ranks carry no information


@dataclass(frozen=True, slots=True)
class Agreement:
    """The rank correlation of two scores per layer, in [-1, 1]; NaN if a score is constant. `units` is the total number compared."""

    first: str
    second: str
    layers: tuple[float, ...]
    units: int


def agreements(scores: Mapping[str, Layers]) -> tuple[Agreement, ...]:
    """Return the agreement of every pair of scores."""
    return tuple(_agreement(a, b, scores[a], scores[b]) for a, b in combinations(scores, 2))


def with_losses(scores: Mapping[str, Layers], losses: Mapping[tuple[int, int], float]) -> tuple[Agreement, ...]:
    """Return each score's agreement with the loss of removing single units, given by (layer, unit), in layers with at least LEAST measured
    units; () if there are none. `second` is "loss" in each."""
    measured: dict[int, list[int]] = {}
    for layer, unit in sorted(losses):
        measured.setdefault(layer, []).append(unit)
    enough = {layer: units for layer, units in measured.items() if len(units) >= LEAST}
    if not enough:
        return ()
    lost = [[losses[layer, unit] for unit in units] for layer, units in enough.items()]
    return tuple(
        _agreement(name, "loss", [[found[layer][unit] for unit in units] for layer, units in enough.items()], lost)
        for name, found in scores.items()
    )


def _agreement(first: str, second: str, scores: Layers, others: Layers) -> Agreement:
    return Agreement(first, second, tuple(map(spearman, scores, others)), sum(map(len, others)))


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the correlation of the ranks of two lists; equal values share the mean of their ranks."""
    return float(torch.corrcoef(torch.stack([_ranks(x), _ranks(y)]))[0, 1])


def _ranks(values: Sequence[float]) -> torch.Tensor:
    found = torch.tensor(values, dtype=torch.float64)
    _, places, counts = found.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    return (ends - (counts - 1) / 2)[places]
