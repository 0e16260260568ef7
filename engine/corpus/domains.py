"""How much of each domain a run reads, and how that changes: dynamic batch loading (Sheared LLaMA, 2310.06694, section 2.2).

The domain of each row of the run is drawn by a generator of (seed, row) from the proportions at its step; the domain then supplies its next
row. A resumed run therefore needs only the proportions and one integer per domain.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from engine.corpus.rows import Batch, Rows
from engine.corpus.settings import Update
from engine.errors import SettingsError, TextError

SMOOTHING = 1e-4  # from the published code: no domain's proportion ever becomes zero


@dataclass(frozen=True, slots=True)
class Mixture:
    """The state of reading several domains: their `proportions`, which sum to 1, and how many rows of each have been `read`."""

    domains: tuple[str, ...]
    proportions: tuple[float, ...]
    read: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the mixture as JSON values, without rounding."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Mixture":
        """Return a mixture from the result of `to_json`."""
        return cls(tuple(value["domains"]), tuple(value["proportions"]), tuple(value["read"]))


def mixture(rows: Rows, proportions: Sequence[float] | None = None) -> Mixture:
    """Return the initial mixture of a corpus's domains with some proportions, by default by their number of rows.

    Raises:
        SettingsError: there is not one number per domain, one is negative or infinite, or all are 0.
    """
    given = [float(len(rows.of(domain))) for domain in rows.domains] if proportions is None else list(proportions)
    if len(given) != len(rows.domains) or not all(0 <= one < math.inf for one in given) or not sum(given):
        raise SettingsError(
            "{given} does not give {count} proportions; write one number of at least 0 for each domain",
            given=given,
            count=len(rows.domains),
        )
    return Mixture(rows.domains, tuple(one / sum(given) for one in given), (0,) * len(given))


def draw(mix: Mixture, step: int, size: int, seed: int) -> tuple[int, ...]:
    """Return the domains [size], as indices in the mixture, of the run's rows step * size up to (step + 1) * size."""
    edges = np.cumsum(mix.proportions)
    thrown = [np.random.default_rng((seed, k)).random() for k in range(step * size, (step + 1) * size)]
    return tuple(int(place) for place in np.searchsorted(edges / edges[-1], thrown, "right"))


def mixed_batch(rows: Rows, mix: Mixture, step: int, size: int, seed: int) -> tuple[Batch, Mixture]:
    """Return a batch of rows from the drawn domains, and the mixture after it."""
    read, found = list(mix.read), []
    for place in draw(mix, step, size, seed):
        found.append(rows.number_in(place, read[place], seed))
        read[place] += 1
    return rows.some(found), replace(mix, read=tuple(read))


def reweighted(mix: Mixture, losses: Sequence[float], references: Sequence[float], update: Update = "as printed") -> Mixture:
    """Return the mixture after giving more weight to domains further above their reference loss (nats per token).

    "as printed": proportions times exp(max(loss - reference, 0)), normalised to sum to 1 (the paper's Algorithm 1). "as coded": without the
    max, so that a domain below its reference loses weight. Both are then smoothed as in the code: (1 - 1e-4) of the result and 1e-4 of
    equal shares.

    Raises:
        TextError: a loss is not finite, because the domain has too little held-out text.
    """
    for domain, loss, reference in zip(mix.domains, losses, references, strict=True):
        if not math.isfinite(loss) or not math.isfinite(reference):
            raise TextError(
                "the domain '{domain}' has too little held-out text: its loss is {loss}, its reference {reference}; "
                "add text to this domain",
                domain=domain,
                loss=loss,
                reference=reference,
            )
    excess = np.subtract(losses, references)
    excess = np.maximum(excess, 0) if update == "as printed" else excess
    grown = np.asarray(mix.proportions) * np.exp(excess - excess.max())
    smoothed = (1 - SMOOTHING) * grown / grown.sum() + SMOOTHING / len(excess)
    return replace(mix, proportions=tuple(smoothed.tolist()))


class RowReader:
    """Reads a corpus for a run batch by batch: its domains alternate or, with a mixture, are drawn from it."""

    def __init__(self, rows: Rows, seed: int, mix: Mixture | None = None) -> None:
        self.rows, self.seed, self.mix, self._first = rows, seed, mix, mix

    def batch(self, number: int, size: int) -> Batch:
        """Return the run's batch of that number; with a mixture, batches must be read in order.

        Raises:
            TextError: there are fewer rows than a batch has.
        """
        if self.mix is None:
            return self.rows.batch(number, size, self.seed)
        batch, self.mix = mixed_batch(self.rows, self.mix, number, size, self.seed)
        return batch

    def weigh(self, costs: Mapping[str, float], references: Mapping[str, float], update: Update) -> None:
        """Update the mixture from the losses of its domains; see `reweighted`."""
        if self.mix is not None:
            names = self.mix.domains
            self.mix = reweighted(self.mix, [costs[name] for name in names], [references[name] for name in names], update)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the state for a checkpoint, by name; {} if domains alternate."""
        if self.mix is None:
            return {}
        proportions = torch.tensor(self.mix.proportions, dtype=torch.float64)
        return {"mixture.proportions": proportions, "mixture.read": torch.tensor(self.mix.read)}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Resume from what `state` returned, ignoring other entries; without any, start from the beginning."""
        self.mix = self._first
        if self.mix is not None and "mixture.read" in state:
            proportions, read = (tuple(state[f"mixture.{name}"].tolist()) for name in ("proportions", "read"))
            self.mix = replace(self.mix, proportions=proportions, read=read)
