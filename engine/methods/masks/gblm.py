"""GBLM-Pruner (Das et al. 2023, 2311.04902): Wanda's score plus the size of the gradients.

|W| ||X|| + alpha |W| G, with G over the texts' gradients g of the loss: sum |g| for l1, the root of sum g^2 for l2. As in the published
code, neither is divided by the number of texts, so more texts give the gradients more weight.

`gblm-local` uses the gradients of the norm of a single block's output (Wanda++, 2503.04992: the regional gradient), which needs one block's
memory and no backward pass through the model.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from engine.errors import SettingsError
from engine.methods.masks.pruning import MASKS, MaskSettings, PruningInput
from engine.settings import control

NORMS = ("l1", "l2")


@dataclass(frozen=True, slots=True)
class GblmSettings(MaskSettings):
    """Settings of GBLM-Pruner."""

    needs: ClassVar[frozenset[str]] = frozenset({"sums", "full"})
    alpha: float = field(default=100.0, metadata=control("weight of the gradients relative to the activations", 0.0, None, 10.0))
    norm: str = field(default="l2", metadata=control("how the gradients of the texts are combined", choices=NORMS))

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise SettingsError("unknown norm '{norm}'; choose one of {choices}", norm=self.norm, choices=", ".join(NORMS))

    def summed(self, gradient: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
        """Return the running sum of |g|, or of g^2."""
        size = gradient.float().abs() if self.norm == "l1" else gradient.float().square()
        return size if before is None else before.add_(size)


@dataclass(frozen=True, slots=True)
class LocalSettings(GblmSettings):
    """Settings of the variant with block-local gradients."""

    needs: ClassVar[frozenset[str]] = frozenset({"sums", "local"})


@MASKS.register("gblm", "Wanda's score plus the magnitude of the loss's gradients", GblmSettings, reference="2311.04902")
def gblm(reading: PruningInput, settings: GblmSettings) -> torch.Tensor:
    """Return |W| ||X|| + alpha |W| G."""
    assert reading.gradient is not None
    size = reading.gradient if settings.norm == "l1" else reading.gradient.sqrt()
    return reading.weight.abs() * reading.norm + settings.alpha * reading.weight.abs() * size


@MASKS.register("gblm-local", "GBLM with each block's own gradients, which needs little memory", LocalSettings, reference="2503.04992")
def gblm_local(reading: PruningInput, settings: LocalSettings) -> torch.Tensor:
    """Return |W| ||X|| + alpha |W| G, with G from the block's own gradients."""
    return gblm(reading, settings)
