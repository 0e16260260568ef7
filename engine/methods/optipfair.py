"""OptiPFair's maximum absolute weight (github.com/peremartra/optipfair): a score of neurons that reads no text, here to compare.

On the models that were tried it is no better than chance; people come from it, so it stands beside the others.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from engine.methods.scores import SCORES, AxisStatistics, ScoreSettings


@dataclass(frozen=True, slots=True)
class MawSettings(ScoreSettings):
    """Of the maximum absolute weight."""

    axes: ClassVar[tuple[str, ...]] = ("neurons",)


@SCORES.register("maw", "its largest weights, for comparison", MawSettings)
def maw(reading: AxisStatistics, settings: MawSettings) -> torch.Tensor:
    """max(w) + |min(w)| of the neuron's rows of gate and up, summed."""
    return torch.stack([rows.max(1).values + rows.min(1).values.abs() for rows in reading.written]).sum(0)
