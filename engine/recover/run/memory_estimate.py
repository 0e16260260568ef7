"""Estimate the memory of training by counting on a student without weights, before anything slow starts.

Activations and the logits of a few tokens are extra; they depend on rows and length and are measured later.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM

from engine.errors import MemoryLimitError
from engine.plans.trimming import form_of
from engine.recover.distill.student import trained
from engine.types import ModelSpec, Plan

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_FLOAT = 4  # bytes; weights, gradients and moments are float32


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes of the student's weights, of the gradients and moments of trained parameters, and of the source."""

    student: int
    learning: int
    source: int

    def shared(self, processes: int) -> "MemoryEstimate":
        """Return each process's share."""
        return MemoryEstimate(self.student // processes, self.learning // processes, self.source // processes)

    @property
    def live(self) -> int:
        """The total, with the source in memory next to the student."""
        return self.student + self.learning + self.source

    @property
    def stored(self) -> int:
        """The peak if the source's outputs are stored first and the source is freed before training."""
        return self.student + max(self.learning, self.source)


def room(config: "PretrainedConfig", spec: ModelSpec, plan: Plan, train: str, trust_remote_code: bool = False) -> MemoryEstimate:
    """Return the memory for training the student of a plan.

    Raises:
        SettingsError: the plan cannot be trained this way.
    """
    with torch.device("meta"):
        student = AutoModelForCausalLM.from_config(form_of(config, plan).config, trust_remote_code=trust_remote_code).requires_grad_(False)
        learning = sum(one.numel() for one in trained(student, plan, train).values())
    return MemoryEstimate(_FLOAT * sum(one.numel() for one in student.parameters()), 3 * _FLOAT * learning, spec.bytes)


def way_to_teach(needed: MemoryEstimate, free: int, asked: str, storable: bool) -> str:
    """Return "live" if the source stays in memory next to the student, "stored" if its outputs are stored first; with "auto", "live" if it
    fits.

    Raises:
        MemoryLimitError: neither fits; the message gives the numbers.
    """
    if asked != "stored" and needed.live <= free:
        return "live"
    if asked != "live" and storable and needed.stored <= free:
        return "stored"
    most = needed.stored if asked == "stored" else needed.live
    parts = (most, needed.student, needed.learning, needed.source, free)
    whole, student, learning, source, there = (f"{part / 1e9:.3g}" for part in parts)
    raise MemoryLimitError(
        "training needs about {whole} GB ({student} for the student, {learning} for its gradients and moments, "
        "{source} for the source), but only {there} GB are free; train fewer parameters (lora, seams), or free some "
        "memory",
        whole=whole,
        student=student,
        learning=learning,
        source=source,
        there=there,
    )
