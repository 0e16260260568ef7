"""The distribution of a mask method's scores over the weights of each projection: the score lost at each sparsity, without storing the
scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.jobs import Job
from engine.methods.masks.pruning import weight_scores
from engine.models.texts import Pack
from engine.types import Model, Plan

SHARES = 20  # steps of the share of a projection's weights, lowest scores first
BINS = 48  # bins of a histogram


@dataclass(frozen=True, slots=True)
class Histogram:
    """The number of weights per score, in BINS equal steps of log10 of the score from `low` to `high`; `zeros` counts scores of 0."""

    low: float
    high: float
    counts: tuple[int, ...]
    zeros: int


@dataclass(frozen=True, slots=True)
class LostScore:
    """The scores of a projection's weights: their mean, the share of the total score lost at each of SHARES sparsities (lowest of each
    output first), and the histogram."""

    mean: float
    lost: tuple[float, ...]
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class Distributions:
    """One row per layer, with a distribution for each of `projections`."""

    projections: tuple[str, ...]
    layers: tuple[tuple[LostScore, ...], ...]


def distributions(model: Model, plan: Plan, packs: Sequence[Pack], method: str) -> Job[Distributions]:
    """Return the distribution of a method's scores in a plan; each projection's scores are freed before the next one's are computed."""
    found: dict[tuple[int, str], LostScore] = {}

    def take(place: int, name: str, scored: torch.Tensor) -> None:
        values = np.sort(scored.float().numpy(), axis=1)
        found[place, name] = LostScore(float(values.mean()), _lost(values), _histogram(values))

    yield from weight_scores(model, plan, packs, method, take)
    names = tuple(dict.fromkeys(name for _, name in found))
    return Distributions(names, tuple(tuple(found[place, name] for name in names) for place in range(plan.depth)))


def _lost(values: np.ndarray) -> tuple[float, ...]:
    """Return the lost shares of the score, from sorted rows [out, in]."""
    together = values.sum(0, dtype=np.float64).cumsum()
    ends = [int(values.shape[1] * part / SHARES) for part in range(SHARES)]
    return tuple(float(together[end - 1] / together[-1]) if end else 0.0 for end in ends)


def _histogram(values: np.ndarray) -> Histogram:
    positive = values[values > 0]
    counts, edges = np.histogram(np.log10(positive), BINS)
    return Histogram(float(edges[0]), float(edges[-1]), tuple(counts.tolist()), values.size - positive.size)
