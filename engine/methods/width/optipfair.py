"""OptiPFair's maximum absolute weight (github.com/peremartra/optipfair): a score of neurons that reads no text, for comparison.

On the models tested it was no better than chance; it is included for users who come from OptiPFair.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from engine.methods.width.scores import SCORES, AxisStatistics, ScoreSettings


@dataclass(frozen=True, slots=True)
class MawSettings(ScoreSettings):
    """Settings of the maximum absolute weight."""

    axes: ClassVar[tuple[str, ...]] = ("neurons",)


@SCORES.register("maw", "the maximum absolute weight, for comparison", MawSettings)
def maw(reading: AxisStatistics, settings: MawSettings) -> torch.Tensor:
    """Return max(w) + |min(w)| of the neuron's rows of gate and up, summed."""
    return torch.stack([rows.max(1).values + rows.min(1).values.abs() for rows in reading.written]).sum(0)
