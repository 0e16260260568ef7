"""Measure a plan's cost quickly, on a small fixed slice of the practice texts, so that every step of a slider can show its cost.

The evaluation texts stay untouched: choosing a plan by these figures fits it to the practice texts, not to the evaluation texts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.cache import Definition
from engine.jobs import Job, as_part
from engine.judge.evaluation import EVALUATION, Evaluation, Judge
from engine.messages import Message
from engine.models.texts import BUNDLED, bundled
from engine.records import to_json
from engine.types import Model, Plan, TextSet

COST = Definition("cost", 1, (EVALUATION,))
# The first tokens of eight texts. Among plans of the demo whose costs differ by a tenth or more, this many tokens order 2 pairs in 100
# differently from 3,900 tokens (half as many: 4, twice as many: 1). Texts vary more than tokens within a text, but in only 64 tokens most
# lack context.
SLICE_EACH = 128
SLICE_TEXTS = 8
SLICE_TOKENS = SLICE_TEXTS * (SLICE_EACH - 1)  # the first token of each cannot be predicted

# Levels of perplexity ratios: the upper limit, the level, and its description. This is a rule of thumb and is shown as one.
LEVELS = (
    (1.05, "good", "It costs very little"),
    (1.25, "good", "It has a small but measurable cost"),
    (2.0, "fair", "It has a clear cost"),
    (10.0, "poor", "It has a heavy cost: unlikely to be useful without retraining"),
    (math.inf, "broken", "It is effectively broken: most of what the source knew is lost"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """A plan's perplexity ratio to its source, its 95 % interval over texts, and KL(source || plan) in nats per token; NaN or infinite
    where the plan's numbers are."""

    ratio: float
    low: float
    high: float
    kl: float


def cost_judge(model: Model, calibration: str = "english", tokens: int = SLICE_TOKENS) -> Judge:
    """Return the judge for quick costs: the first tokens of the practice texts in the calibration set's language, or English for other
    texts. It caches shared work, so many plans cost little more than their own blocks."""
    judge = Judge(model, practice_texts(calibration), limit=tokens, each=SLICE_EACH)
    judge.keep_trails()
    return judge


def costs(judge: Judge, plans: Sequence[Plan], report: Callable[[Plan, Cost], object]) -> Job[None]:
    """Measure plans in order and call `tell` with each cost as soon as it is known; cached costs take no time."""
    for number, plan in enumerate(plans):
        label = Message("Plan {number} of {count} ({depth} layers)", number=number + 1, count=len(plans), depth=plan.depth)
        report(plan, cost_of((yield from as_part(judge.judge(plan), label, number, len(plans)))))


def practice_texts(calibration: str) -> TextSet:
    """Return the practice texts used by search, repair and quick costs for a calibration set of this name."""
    return bundled(calibration if calibration in BUNDLED else "english", "practice")


def cost_of(evaluation: Evaluation) -> Cost:
    """Return the figures of an evaluation that the sliders show."""
    return Cost(evaluation.perplexity.ratio, evaluation.perplexity.interval[0], evaluation.perplexity.interval[1], evaluation.kl)


def place_of(ratio: float) -> int:
    """Return the index of a ratio's entry in LEVELS; NaN belongs to the last."""
    return next((place for place, (limit, *_) in enumerate(LEVELS) if ratio <= limit), len(LEVELS) - 1)


def level_of(ratio: float) -> str:
    """Return good, fair, poor or broken; NaN is broken."""
    return LEVELS[place_of(ratio)][1]


def cost_to_json(cost: Cost | None) -> dict[str, Any] | None:
    """Return a quick cost; None where there is none or its ratio is no number, and null for each other figure that is none."""
    return None if cost is None or not math.isfinite(cost.ratio) else to_json(cost)
