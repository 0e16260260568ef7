"""How much of each domain a run reads, and how that changes: dynamic batch loading (Sheared LLaMA, 2310.06694, section 2.2).

Which domain a row of the run comes from is drawn by a generator of (seed, row) from the proportions that hold at its step; each domain then
gives its next row. So a run that goes on needs the proportions and one integer a domain.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from engine.corpus.rows import Batch, Rows
from engine.corpus.settings import Update
from engine.errors import SettingsError, TextError

SMOOTHING = 1e-4  # of the published code: no domain's proportion ever comes to nothing


@dataclass(frozen=True, slots=True)
class Mixture:
    """The state of reading several domains: their `proportions`, which sum to 1, and how many rows of each have been `read`."""

    domains: tuple[str, ...]
    proportions: tuple[float, ...]
    read: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as what JSON holds, to the last digit."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Mixture":
        """Return what `to_json` made."""
        return cls(tuple(value["domains"]), tuple(value["proportions"]), tuple(value["read"]))


def mixture(rows: Rows, proportions: Sequence[float] | None = None) -> Mixture:
    """Return the beginning of reading a corpus' domains in some proportions; left out, by how many rows each has.

    Raises:
        SettingsError: they are not one number a domain, none below 0 and not all 0.
    """
    given = [float(len(rows.of(domain))) for domain in rows.domains] if proportions is None else list(proportions)
    if len(given) != len(rows.domains) or not all(0 <= one < math.inf for one in given) or not sum(given):
        raise SettingsError(f"{given} are no proportions of {len(rows.domains)} domains: write one number from 0 on for each")
    return Mixture(rows.domains, tuple(one / sum(given) for one in given), (0,) * len(given))


def draw(mix: Mixture, step: int, size: int, seed: int) -> tuple[int, ...]:
    """Return the domains [size], as places in the mixture, that the run's rows step * size up to (step + 1) * size come from."""
    edges = np.cumsum(mix.proportions)
    thrown = [np.random.default_rng((seed, k)).random() for k in range(step * size, (step + 1) * size)]
    return tuple(int(place) for place in np.searchsorted(edges / edges[-1], thrown, "right"))


def mixed_batch(rows: Rows, mix: Mixture, step: int, size: int, seed: int) -> tuple[Batch, Mixture]:
    """Return a batch of rows from the domains that are drawn, and the mixture after it."""
    read, found = list(mix.read), []
    for place in draw(mix, step, size, seed):
        found.append(rows.number_in(place, read[place], seed))
        read[place] += 1
    return rows.some(found), replace(mix, read=tuple(read))


def reweighted(mix: Mixture, losses: Sequence[float], references: Sequence[float], update: Update = "as printed") -> Mixture:
    """Return the mixture in which domains that are further above their reference loss (nats a token) get more.

    "as printed": proportions times exp(max(loss - reference, 0)), made to sum to 1 (the paper's Algorithm 1). "as coded": without the
    max, so that a domain below its reference loses. Then both are smoothed: (1 - 1e-4) of that and 1e-4 of equal shares, as coded.

    Raises:
        TextError: a loss is no finite number, which a domain with too little held-out text has.
    """
    for domain, loss, reference in zip(mix.domains, losses, references, strict=True):
        if not math.isfinite(loss) or not math.isfinite(reference):
            raise TextError(f"the domain '{domain}' has a held-out loss of {loss} and a reference of {reference}; bring more text of it")
    excess = np.subtract(losses, references)
    excess = np.maximum(excess, 0) if update == "as printed" else excess
    grown = np.asarray(mix.proportions) * np.exp(excess - excess.max())
    smoothed = (1 - SMOOTHING) * grown / grown.sum() + SMOOTHING / len(excess)
    return replace(mix, proportions=tuple(smoothed.tolist()))
