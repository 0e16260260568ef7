"""LLM-Pruner (Ma et al. 2023, 2305.11627), Eq. 3 to 5: the first-order change of the loss if a group of weights is removed.

A group is everything that belongs to a head or a neuron: the rows that write it and the columns that read it. A head's key and value rows
count if no other head shares them. If several heads share them they stay and do not count; the published code then scores and cuts whole KV
groups, whereas we score each query head. Biases do not count, as in the published code.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from engine.errors import SettingsError
from engine.methods.width.scores import SCORES, AxisStatistics, ScoreSettings
from engine.settings import control

VARIANTS = ("element", "vector")


@dataclass(frozen=True, slots=True)
class TaylorSettings(ScoreSettings):
    """Settings of the Taylor score."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    version: ClassVar[int] = 2  # version 1 omitted the keys and values of unshared heads
    variant: str = field(
        default="element", metadata=control("element: sum |w g| over a row or column; vector: |sum w g| of each", choices=VARIANTS)
    )

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise SettingsError("unknown variant '{variant}'; choose one of {choices}", variant=self.variant, choices=", ".join(VARIANTS))


@SCORES.register("taylor", "the first-order change of the loss without it (LLM-Pruner)", TaylorSettings, reference="2305.11627")
def taylor(reading: AxisStatistics, settings: TaylorSettings) -> torch.Tensor:
    """Return the sum over a group's rows and columns of sum |w g| (element) or |sum w g| (vector), g the gradient of the texts' losses. The
    published code calls them param_first and vectorize; its second-order variants are not implemented."""
    ((weight,),) = reading.read
    pairs = [(weight.mT, reading.read_gradients[0].mT), *zip(reading.written, reading.written_gradients, strict=True)]
    changes = [rows * slopes for rows, slopes in pairs]  # [elements of the axis, connected weights]
    sizes = [change.abs().sum(1) if settings.variant == "element" else change.sum(1).abs() for change in changes]
    return reading.folded(torch.stack(sizes).sum(0))
