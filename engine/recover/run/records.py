"""The content of run.json: what was requested of a run, and what was measured since. Each record's JSON is its fields; what is not known
yet is left out."""

from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from engine.corpus.settings import Update, WritingSettings
from engine.records import FloatOrNaN, from_json, to_json
from engine.recover.distill.heldout import Gap, TextLosses
from engine.recover.run.settings import ShearSettings
from engine.training.recipe import Recipe
from engine.types import Check, ModelSource


@dataclass(frozen=True, slots=True)
class Trained:
    """The plan of a run: its method, its number of layers, the source's (`of`), and its number of parameters."""

    method: str
    depth: int
    of: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Correction:
    """The result of a teacher's correction: its perplexity on held-out text before and after, the step of its best weights, what was spent,
    and whether it gained enough to be used."""

    before: FloatOrNaN
    after: FloatOrNaN
    ratio: FloatOrNaN
    best: int
    tokens: int
    seconds: float
    used: bool


@dataclass(frozen=True, slots=True)
class LearningRecord:
    """The record of a run that trains a plan. `text` names its text and `budget` has its minutes or its tokens; `asked` is the requested
    recipe, and `recipe` the one that it uses after a step was measured."""

    layerscope: int
    source: ModelSource
    name: str
    plan: Trained
    text: tuple[str, ...]
    own: WritingSettings
    train: str
    loss: str
    teacher: str
    correct_teacher: float
    top: int
    budget: dict[str, int | float]
    until: float | None
    language: str
    measure: bool
    track: str
    update: Literal["none"] | Update
    every: int
    known_references: dict[str, float]
    asked: Recipe

    fingerprint: str | None = None  # of the source
    corpus: str | None = None  # fingerprint of the text's rows
    recipe: Recipe | None = None
    seconds_a_step: float | None = None
    memory: int | None = None  # bytes that a step takes
    source_scores: dict[str, TextLosses] | None = None  # of both held-out texts, before and after
    quick_scores: dict[str, TextLosses] | None = None  # of their beginnings, in the number format of the passes
    references: dict[str, FloatOrNaN] | None = None  # by domain, nats per token
    missing: FloatOrNaN | None = None  # the mean probability outside the teacher's stored tokens
    correction: Correction | None = None
    rising: bool = False  # whether it ends when the held-out loss rises
    best: int | None = None  # the step of the best weights
    before: dict[str, Gap] | None = None
    after: dict[str, Gap] | None = None
    checks: tuple[Check, ...] | None = None
    track_error: str | None = None


@dataclass(frozen=True, slots=True)
class ShearingRecord:
    """The record of a shearing: the source's fingerprint (`shear`), the target by axis, and the source's layers (`depth`)."""

    shear: str
    target: dict[str, int]
    text: tuple[str, ...]
    settings: ShearSettings
    name: str
    source: ModelSource
    depth: int

    references: dict[str, FloatOrNaN] | None = None  # by domain, nats per token
    autocast: str | None = None  # the number format of the passes

    def asks(self) -> tuple[object, ...]:
        """Return the request; shearings with equal requests are the same."""
        return self.shear, self.target, self.text, self.settings


def run_to_json(record: LearningRecord | ShearingRecord) -> dict[str, Any]:
    """Return the content of run.json."""
    found = to_json(record)
    unknown = {field.name for field in fields(record) if field.default is not MISSING and getattr(record, field.name) == field.default}
    return {key: value for key, value in found.items() if key not in unknown}


def run_from_json(value: Any) -> LearningRecord | ShearingRecord:
    """Return the record in the content of run.json.

    Raises:
        ForeignError: a value is missing or of another type.
    """
    if isinstance(value, dict) and "shear" in value:
        return from_json(ShearingRecord, value)
    return from_json(LearningRecord, value)
