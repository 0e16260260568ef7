"""FLAP (An et al. 2023, 2312.11983): what hardly varies can be left out, since its mean is a constant.

The variance here is exact, over all tokens. The published code updates it batch by batch, but its old mean is the same tensor as
its new one, so that it is taken around the wrong mean, and its first sample adds nothing.
"""

import torch

from engine.methods.scores import SCORES, AxisStatistics, ScoreSettings


@SCORES.register("flap", "how much it varies, times the squared norm of the weights that read it", ScoreSettings, reference="2312.11983")
def flap(reading: AxisStatistics, settings: ScoreSettings) -> torch.Tensor:
    """var(X_j) ||W_:j||^2, summed over a head (WIFV). The published code squares it once more for heads; that changes no ranking
    within a layer but the sum over a head's elements, and is left out."""
    (sums,), ((weight,),) = reading.sums, reading.read
    return reading.folded(sums.variance * weight.square().sum(0))
