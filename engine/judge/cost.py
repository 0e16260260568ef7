"""What a plan costs, quickly: judged on a small fixed slice of the practice texts, so that every step of a slider can carry its cost.

The evaluation texts stay untouched: who picks a plan by these figures has fitted to the practice texts, not to what judges.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.cache import Definition
from engine.jobs import Job, as_part
from engine.judge.evaluation import EVALUATION, Evaluation, Judge
from engine.models.texts import BUNDLED, bundled
from engine.types import Model, Plan, TextSet

COST = Definition("cost", 1, (EVALUATION,))
# Eight openings. Of plans of the demo whose costs differ by a tenth or more, so many tokens put 2 pairs in 100 in another order than
# 3,900 do (half as many 4, twice as many 1). Texts differ more than their tokens, but of 64 tokens most still lack what stands before.
SLICE_EACH = 128
SLICE_TEXTS = 8
SLICE_TOKENS = SLICE_TEXTS * (SLICE_EACH - 1)  # the first of each cannot be predicted

# How a perplexity ratio is called, from this one up to the limit: a level, and the words for it. A rule of thumb, told as one.
LEVELS = (
    (1.05, "good", "It costs very little"),
    (1.25, "good", "It has a small but measurable cost"),
    (2.0, "fair", "It has a clear cost"),
    (10.0, "poor", "It has a heavy cost: unlikely to be useful without retraining"),
    (math.inf, "broken", "In effect it is broken: most of what the source knew is gone"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """A plan's perplexity over its source's, its 95 % interval over texts, and KL(source || plan) in nats a token; NaN or
    infinite where the plan's numbers are."""

    ratio: float
    low: float
    high: float
    kl: float


def cost_judge(model: Model, calibration: str = "english", tokens: int = SLICE_TOKENS) -> Judge:
    """Return the judge of quick costs: the openings of the practice texts in the language of the calibration, English where that
    is none of ours. It shares what its plans have in common, so that many of them cost little more than their own blocks."""
    judge = Judge(model, practice_texts(calibration), limit=tokens, each=SLICE_EACH)
    judge.share_trails()
    return judge


def costs(judge: Judge, plans: Sequence[Plan], tell: Callable[[Plan, Cost], object]) -> Job[None]:
    """Measure plans in this order and tell each one's cost as soon as it is there; what is remembered takes no time."""
    for number, plan in enumerate(plans):
        label = f"Plan {number + 1} of {len(plans)} ({plan.depth} layers)"
        tell(plan, cost_of((yield from as_part(judge.judge(plan), label, number, len(plans)))))


def practice_texts(calibration: str) -> TextSet:
    """Return the texts that search, repair and quick costs use for a calibration of this name."""
    return bundled(calibration if calibration in BUNDLED else "english", "practice")


def cost_of(evaluation: Evaluation) -> Cost:
    """Return what the sliders tell of an evaluation."""
    return Cost(evaluation.ratio, evaluation.ratio_low, evaluation.ratio_high, evaluation.kl)


def place_of(ratio: float) -> int:
    """Return which of LEVELS a ratio belongs to; one that is no number belongs to the last."""
    return next((place for place, (limit, *_) in enumerate(LEVELS) if ratio <= limit), len(LEVELS) - 1)


def level_of(ratio: float) -> str:
    """Return good, fair, poor or broken; a ratio that is no number is broken."""
    return LEVELS[place_of(ratio)][1]
