"""Wanda (Sun et al. 2023, 2306.11695), Eq. 1: a weight's importance is its magnitude times the norm of its input."""

import torch

from engine.methods.masks.pruning import MASKS, MaskSettings, PruningInput


@MASKS.register("wanda", "prunes by |W| times the norm of the input", MaskSettings, reference="2306.11695")
def wanda(reading: PruningInput, settings: MaskSettings) -> torch.Tensor:
    """Return |W_ij| ||X_j||, X the projection's inputs over all tokens; compared within each output."""
    return reading.weight.abs() * reading.norm
