"""FLAP (An et al. 2023, 2312.11983): an input that hardly varies can be cut, because its mean is a constant.

The variance here is exact, over all tokens. The published code updates it batch by batch, but its old mean is the same tensor as its new
one: the variance is taken around the wrong mean, and the first sample adds nothing.
"""

import torch

from engine.methods.width.scores import SCORES, AxisStatistics, ScoreSettings


@SCORES.register(
    "flap", "the variance of the activation times the squared norm of the weights that read it", ScoreSettings, reference="2312.11983"
)
def flap(reading: AxisStatistics, settings: ScoreSettings) -> torch.Tensor:
    """Return var(X_j) ||W_:j||^2, summed over a head (WIFV). The published code squares it once more for heads. That keeps the ranking of
    single elements but changes a head's sum, so it is left out."""
    (sums,), ((weight,),) = reading.sums, reading.read
    return reading.folded(sums.variance * weight.square().sum(0))
