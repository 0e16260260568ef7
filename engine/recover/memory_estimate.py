"""What learning takes in memory, counted on a student without weights, before anything is slow.

Activations and the logits of a few tokens come on top; how much they are depends on rows and length, and is measured later.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from engine.errors import MemoryLimitError
from engine.plans.trimming import plan_config
from engine.recover.student import trained
from engine.types import ModelSpec, Plan

_FLOAT = 4  # bytes; weights, gradients and moments are float32


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes: of the student's weights, of the gradients and moments of what learns, of the source as it is opened."""

    student: int
    learning: int
    source: int

    def shared(self, processes: int) -> "MemoryEstimate":
        """Return the part of it that each of some processes takes."""
        return MemoryEstimate(self.student // processes, self.learning // processes, self.source // processes)

    @property
    def live(self) -> int:
        """All of it, which is what a source that teaches beside the student takes."""
        return self.student + self.learning + self.source

    @property
    def stored(self) -> int:
        """The most at one time where the source says first what it has to say, and goes before the student learns."""
        return self.student + max(self.learning, self.source)


def room(config: Any, spec: ModelSpec, plan: Plan, train: str, trust_remote_code: bool = False) -> MemoryEstimate:
    """Return what it takes to train the student of a plan of a model.

    Raises:
        SettingsError: the plan cannot be trained so.
    """
    with torch.device("meta"):
        student = AutoModelForCausalLM.from_config(plan_config(config, plan), trust_remote_code=trust_remote_code).requires_grad_(False)
        learning = sum(one.numel() for one in trained(student, plan, train).values())
    return MemoryEstimate(_FLOAT * sum(one.numel() for one in student.parameters()), 3 * _FLOAT * learning, spec.bytes)


def way_to_teach(needed: MemoryEstimate, free: int, asked: str, storable: bool) -> str:
    """Return "live" where the source teaches beside the student, "stored" where it says first what it has to say: as asked for, or
    ("auto") the first where it fits.

    Raises:
        MemoryLimitError: neither fits; with the numbers.
    """
    if asked != "stored" and needed.live <= free:
        return "live"
    if asked != "live" and storable and needed.stored <= free:
        return "stored"
    most = needed.stored if asked == "stored" else needed.live
    parts = (most, needed.student, needed.learning, needed.source, free)
    whole, student, learning, source, there = (f"{part / 1e9:.3g}" for part in parts)
    raise MemoryLimitError(
        f"learning takes about {whole} GB ({student} for the student, {learning} for its gradients and moments, {source} for the "
        f"source), but {there} GB are free; let fewer parameters learn (lora, seams), or free some memory"
    )
