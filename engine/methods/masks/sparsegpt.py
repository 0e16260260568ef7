"""SparseGPT (Frantar and Alistarh 2023, 2301.00774), Algorithm 1: prune columns in order, and adjust the later ones to compensate.

H = 2 / N sum X X^T over N texts, damped; U is the upper Cholesky factor of its inverse. In blocks of 128 columns the weights with the
lowest W^2 / U_ii^2 are pruned: of all rows together, or N of every M of a row. Each column's error, divided by U_ii, is subtracted from the
later columns. Computed in float64. An input that is always zero loses its weights. If H has no factor, the damping grows tenfold until it
has one (other code silently falls back to magnitude).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from engine.errors import SettingsError
from engine.methods.masks.pruning import MASKS, MaskSettings, PruningInput, Updated
from engine.methods.masks.selection import Wanted, lowest
from engine.model_lock import check_cancelled
from engine.settings import control

COLUMNS = 128
_MOST = 10.0  # a damping of ten times the mean of the diagonal makes H meaningless


@dataclass(frozen=True, slots=True)
class SparseGptSettings(MaskSettings):
    """Settings of SparseGPT."""

    needs: ClassVar[frozenset[str]] = frozenset({"sums", "gram"})
    updates: ClassVar[bool] = True
    damping: float = field(default=0.01, metadata=control("added to the diagonal of H, as a share of its mean", 1e-6, 1.0, 0.01))

    def update(self, reading: PruningInput, want: Wanted) -> Updated:
        """Return the pruned weights, the new weights, and the damping if it had to be raised."""
        gone, weight, damping = solve(reading, want, self.damping)
        return Updated(gone, weight, f"damping {damping:g}" if damping > self.damping else "")


@MASKS.register("sparsegpt", "prunes by saliency and updates the kept weights to compensate", SparseGptSettings, reference="2301.00774")
def saliency(reading: PruningInput, settings: SparseGptSettings) -> torch.Tensor:
    """Return W_ij^2 / U_jj^2, before any weight is updated."""
    factor, *_ = factored(reading, settings.damping)
    return (reading.weight / factor.diagonal()).square()


def factored(reading: PruningInput, damping: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return the upper Cholesky factor U [in, in] of the damped H's inverse, the inputs that are always zero (bool [in]), and the damping.

    Raises:
        SettingsError: no damping up to ten times the diagonal's mean makes H positive definite.
    """
    assert reading.sums is not None
    hessian = 2.0 / reading.sums.texts * reading.gram
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1.0
    mean = hessian.diagonal().mean()
    while damping <= _MOST:
        damped = hessian.clone()
        damped.diagonal().add_(damping * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                return upper, dead, damping
        damping *= 10
    raise SettingsError("the inputs of a projection are not finite, so SparseGPT cannot solve for its weights")


def solve(reading: PruningInput, want: Wanted, damping: float = 0.01) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return the pruned weights (bool), the new weights [out, in] with zeros where pruned, and the damping used."""
    factor, dead, damping = factored(reading, damping)
    weight = reading.weight.clone()
    weight[:, dead] = 0.0
    rows, columns = weight.shape
    if want.m and columns % want.m:
        raise SettingsError("the pattern {n}:{m} does not divide a projection's {columns} inputs", n=want.n, m=want.m, columns=columns)
    gone = torch.zeros(rows, columns, dtype=torch.bool)
    wide = COLUMNS - COLUMNS % want.m if want.m else COLUMNS  # no group of a pattern spans two blocks
    for start in range(0, columns, wide):
        check_cancelled()
        stop = min(start + wide, columns)
        part, upper = weight[:, start:stop].clone(), factor[start:stop, start:stop]
        cut = _below(part, upper, want.sparsity) if not want.m else torch.zeros_like(part, dtype=torch.bool)
        errors = torch.zeros_like(part)
        for column in range(stop - start):
            if want.m and column % want.m == 0:
                few = slice(column, column + want.m)
                cut[:, few] = lowest((part[:, few] / upper.diagonal()[few]).square(), want.n)
            kept = torch.where(cut[:, column], 0.0, part[:, column])
            errors[:, column] = (part[:, column] - kept) / upper[column, column]
            part[:, column:] -= torch.outer(errors[:, column], upper[column, column:])
            part[:, column] = kept
        weight[:, start:stop], gone[:, start:stop] = part, cut
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return gone, weight, damping


def _below(part: torch.Tensor, upper: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Return the weights whose score is at most the sorted score at index int(numel * sparsity), over all rows: one more than that many."""
    if sparsity == 0:
        return torch.zeros_like(part, dtype=torch.bool)
    scores = (part / upper.diagonal()).square()
    return scores <= scores.flatten().kthvalue(int(scores.numel() * sparsity) + 1).values
