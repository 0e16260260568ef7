"""Next-token log-probabilities from final states, a few tokens at a time; a cache of the source's; their KL divergence.

A vocabulary is wide: at most CHUNK tokens have their logits in memory at once. Elementwise steps process ROWS tokens at a time (a divisor
of CHUNK), as many as fit into a processor's cache.
"""

from collections.abc import Hashable, Iterator

import torch

from engine.model_lock import check_cancelled
from engine.passes.forward import logits_of
from engine.types import Model

CHUNK = 256
ROWS = 32
KEEP = 512 << 20  # bytes of the source's log-probabilities


def by_rows(model: Model, final: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the log-probabilities of final states [tokens, hidden] in float32, ROWS tokens at a time."""
    for part in final.split(CHUNK):
        yield from _log_rows(model, part)


def _log_rows(model: Model, part: torch.Tensor) -> Iterator[torch.Tensor]:
    for rows in logits_of(model, part).split(ROWS):
        check_cancelled()
        yield rows.float().log_softmax(-1)


def divergence(source: torch.Tensor, plan: torch.Tensor) -> torch.Tensor:
    """Return KL(source || plan) in nats from two tensors of log-probabilities [tokens, vocabulary]: [tokens]."""
    return torch.nn.functional.kl_div(plan, source, reduction="none", log_target=True).sum(-1)


class SourceLogs:
    """The source's log-probabilities, cached up to a limit; the rest is recomputed each time, with identical bits."""

    def __init__(self, model: Model, keep: int = KEEP) -> None:
        """`keep` is the cache size in bytes; use 0 if nothing is asked for twice."""
        self._model, self._keep = model, keep
        self._kept: dict[Hashable, torch.Tensor] = {}

    def paired(self, key: Hashable, source: torch.Tensor, plan: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield pairs of log-probabilities of the source's and a plan's final states [tokens, hidden], see `by_rows`; `key` identifies
        these tokens of the source."""
        for number, (ours, theirs) in enumerate(zip(source.split(CHUNK), plan.split(CHUNK), strict=True)):
            yield from zip(self._rows((key, number), ours), _log_rows(self._model, theirs), strict=True)

    def _rows(self, key: Hashable, part: torch.Tensor) -> Iterator[torch.Tensor]:
        if key in self._kept:
            return iter(self._kept[key].split(ROWS))
        rows = _log_rows(self._model, part)
        width = self._model.network.get_output_embeddings().weight.shape[0]
        if sum(kept.nbytes for kept in self._kept.values()) + 4 * len(part) * width > self._keep:
            return rows
        self._kept[key] = torch.cat(list(rows))
        return iter(self._kept[key].split(ROWS))
