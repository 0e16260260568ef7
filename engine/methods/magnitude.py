"""Magnitude pruning (Han et al. 2015, 1506.02626): the weights nearest to zero go. No text is needed.

Exactly int(numel * s) weights of a matrix go, the first of equal ones. The functions published with SparseGPT and Wanda take as a
threshold the sorted size at that place and remove all that is not above it: at least one weight more, and every weight that ties
with it. A matrix with many equal weights, such as one that was quantised, therefore keeps ties here that they remove.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from engine.methods.masks import MASKS, MaskSettings, PruningInput


@dataclass(frozen=True, slots=True)
class MagnitudeSettings(MaskSettings):
    """Of magnitude pruning, which reads no text."""

    needs: ClassVar[frozenset[str]] = frozenset()
    group: ClassVar[str] = "layer"  # one threshold a matrix, as the baselines of SparseGPT and Wanda have it


@MASKS.register("magnitude", "the smallest weights go", MagnitudeSettings, reference="1506.02626")
def magnitude(reading: PruningInput, settings: MagnitudeSettings) -> torch.Tensor:
    """|W|."""
    return reading.weight.abs()
