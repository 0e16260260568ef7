"""Scores of a unit from its activations and the weights that read them: their product, and the loss after the remaining weights are
adjusted."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from engine.methods.width.scores import SCORES, AxisStatistics, ScoreSettings

_DAMPING = 0.01  # of the mean of the diagonal of X^T X


@dataclass(frozen=True, slots=True)
class WeightedSettings(ScoreSettings):
    """Settings of the product score."""

    axes: ClassVar[tuple[str, ...]] = ("heads", "neurons", "channels")


@dataclass(frozen=True, slots=True)
class ObsSettings(ScoreSettings):
    """Settings of the Optimal Brain Surgeon's score."""

    needs: ClassVar[frozenset[str]] = frozenset({"gram"})


@SCORES.register(
    "weighted", "the norm of the activation times the norm of the weights that read it", WeightedSettings, reference="2306.11695"
)
def weighted(reading: AxisStatistics, settings: WeightedSettings) -> torch.Tensor:
    """Return ||X_j|| ||W_:j||, W all the projections that read it (Wanda's score of a whole column, 2306.11695); a head gets the root of
    the sum of its elements' squares."""
    pairs = zip(reading.sums, reading.read, strict=True)
    squares = [sums.norm.square() * sum(weight.square().sum(0) for weight in read) for sums, read in pairs]
    return reading.folded(torch.stack(squares).sum(0)).sqrt()


@SCORES.register("obs", "the loss of removing it when the others compensate (optimal brain surgeon)", ObsSettings, reference="2412.18110")
def obs(reading: AxisStatistics, settings: ObsSettings) -> torch.Tensor:
    """Return trace(W_u [G^-1]_uu^-1 W_u^T) for the columns u of a unit, G = X^T X, damped by 1 % of its mean diagonal: the least squared
    error of the projection without them (SlimGPT, 2412.18110; for one column ||W_:j||^2 / [G^-1]_jj)."""
    (sums,), ((weight,),) = reading.sums, reading.read
    assert sums.gram is not None
    gram = sums.gram.clone()
    gram.diagonal().add_(_DAMPING * gram.diagonal().mean().clamp_min(1e-30))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    units = len(inverse) // reading.unit
    places = torch.arange(units)
    own = inverse.reshape(units, reading.unit, units, reading.unit)[places, :, places, :]  # [units, unit, unit]
    columns = weight.mT.reshape(units, reading.unit, -1)
    return (torch.linalg.solve(own, columns) * columns).sum((1, 2))
