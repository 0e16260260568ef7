"""The origin of an exported plan: how it was found, and its measurements."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.judge.evaluation import Evaluation
from engine.judge.memory import Memory
from engine.judge.speed import Speed
from engine.methods.depth.laco import Trial
from engine.records import Count, from_json, to_json


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibration set: how many texts, the fingerprint of their words, and its name."""

    texts: Count
    fingerprint: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Gains:
    """What a plan gains: its speed, where it was measured, and its memory."""

    speed: Speed | None
    memory: Memory


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a plan was found and what was measured of it; None stands for what is not known."""

    settings: Mapping[str, Any] | None = None
    trials: tuple[Trial, ...] | None = None
    calibration: Calibration | None = None
    evaluation: Evaluation | None = None
    speed: Speed | None = None
    memory: Memory | None = None


UNKNOWN = Provenance()


def provenance_to_json(known: Provenance) -> dict[str, Any]:
    """Return what is known as JSON values, without what is not."""
    return {key: value for key, value in to_json(known).items() if value is not None}


def trials_from_json(value: Any) -> tuple[Trial, ...]:
    """Return the trials in a saved proposal, which has other keys, too.

    Raises:
        ForeignError: a value is missing or of another type.
    """
    return from_json(Provenance, {"trials": value["trials"]}, "forbid").trials or ()


def gains_from_json(value: Any) -> Gains:
    """Return the gains in saved measurements, which have other keys, too.

    Raises:
        ForeignError: a value is missing or of another type.
    """
    return from_json(
        Gains, {key: value[key] for key in ("speed", "memory") if key in value} if isinstance(value, dict) else value, "forbid"
    )
