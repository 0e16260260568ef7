"""Wanda (Sun et al. 2023, 2306.11695), Eq. 1: a weight matters by its size times the length of what it reads."""

import torch

from engine.methods.masks import MASKS, MaskSettings, PruningInput


@MASKS.register("wanda", "weights go by |W| times the norm of their input", MaskSettings, reference="2306.11695")
def wanda(reading: PruningInput, settings: MaskSettings) -> torch.Tensor:
    """|W_ij| ||X_j||, X the projection's inputs over all tokens; compared within each output."""
    return reading.weight.abs() * reading.norm
