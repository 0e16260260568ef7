"""How far two scores of the same units agree, and how far a score agrees with what was measured: Spearman's rank correlation, layer by
layer, since scores rank the units of a layer and no more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

Layers = Sequence[Sequence[float]]
LEAST = 4  # units of a layer; the ranks of fewer say nothing


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two scores, a rank correlation a layer in [-1, 1]; NaN where one of them is the same for all units. `units` were compared
    in all."""

    first: str
    second: str
    layers: tuple[float, ...]
    units: int


def agreements(scores: Mapping[str, Layers]) -> tuple[Agreement, ...]:
    """Return how far any two of some scores agree."""
    return tuple(_agreement(a, b, scores[a], scores[b]) for a, b in combinations(scores, 2))


def with_losses(scores: Mapping[str, Layers], losses: Mapping[tuple[int, int], float]) -> tuple[Agreement, ...]:
    """Return how far each score agrees with what the model loses without single units, by (layer, unit), in those layers of which at
    least LEAST units were measured; nothing where there is no such layer. The second of each is called "loss"."""
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
    """Return the correlation of the ranks of two lists, equal values sharing the mean of their ranks."""
    return float(torch.corrcoef(torch.stack([_ranks(x), _ranks(y)]))[0, 1])


def _ranks(values: Sequence[float]) -> torch.Tensor:
    found = torch.tensor(values, dtype=torch.float64)
    _, places, counts = found.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    return (ends - (counts - 1) / 2)[places]
