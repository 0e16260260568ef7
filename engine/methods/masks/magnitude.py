"""Magnitude pruning (Han et al. 2015, 1506.02626): prune the weights nearest to zero. No text is needed.

Exactly int(numel * s) weights of a matrix are pruned, the first of equal ones. The functions published with SparseGPT and Wanda use the
sorted magnitude at that index as a threshold and prune every weight not above it: at least one more, and all ties. A matrix with many equal
weights, such as a formerly quantised one, therefore keeps ties here that they prune.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from engine.methods.masks.pruning import MASKS, MaskSettings, PruningInput


@dataclass(frozen=True, slots=True)
class MagnitudeSettings(MaskSettings):
    """Settings of magnitude pruning, which reads no text."""

    needs: ClassVar[frozenset[str]] = frozenset()
    group: ClassVar[str] = "layer"  # one threshold per matrix, as in the baselines of SparseGPT and Wanda


@MASKS.register("magnitude", "prunes the smallest |W|", MagnitudeSettings, reference="1506.02626")
def magnitude(reading: PruningInput, settings: MagnitudeSettings) -> torch.Tensor:
    """Return |W|."""
    return reading.weight.abs()
