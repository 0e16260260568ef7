"""OWL (Yin et al. 2023, 2310.05175): layers with many outliers of Wanda's score keep more of their weights.

D of a layer is the share of its weights whose |W| ||X|| exceeds five times the layer's mean. It changes the layer's sparsity by at most
0.08 in either direction; the mean over layers stays the requested sparsity.
"""

from collections.abc import Sequence

import torch

LOWEST = 0.6  # at lower sparsities there is no gain
_TIMES = 5.0  # M
_MOST = 0.08  # lambda


def outliers(scores: Sequence[torch.Tensor]) -> float:
    """Return D of a layer from the scores of all its weights."""
    together = torch.cat(list(scores))
    return float((together > _TIMES * together.mean()).double().mean())


def sparsities(shares: Sequence[float], sparsity: float) -> list[float]:
    """Return each layer's sparsity, given its D; equal if all D are equal. None exceeds 0.99."""
    low, high = min(shares), max(shares)
    if high == low:
        return [sparsity] * len(shares)
    moved = [2 * _MOST * (share - low) / (high - low) for share in shares]
    mean = sum(moved) / len(moved)
    return [min(sparsity - (one - mean), 0.99) for one in moved]
