"""The results of ablations: rows of evaluated plans, and how well a measure ranks them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import SettingsError
from engine.jobs import Job, as_part
from engine.judge.evaluation import Evaluation, Judge
from engine.judge.similarity import SimilarityMeter
from engine.methods.analysis import agreement
from engine.methods.depth.laco import LacoSettings, Proposal, mean_and_spread, propose
from engine.plans.description import describe
from engine.plans.files import plan_to_json
from engine.types import Plan


@dataclass(frozen=True, slots=True)
class Row:
    """One plan of an ablation and its cost.

    `similarity` is the mean over the user's own calibration texts, by the settings' definition; `measures` are other figures by name. NaN
    where the plan's states are not finite.
    """

    label: str
    settings: LacoSettings
    plan: Plan
    depth: int
    similarity: float
    evaluation: Evaluation
    measures: tuple[tuple[str, float], ...] = ()

    @property
    def folds(self) -> tuple[str, ...]:
        """The plan's description."""
        return describe(self.plan)


@dataclass(frozen=True, slots=True)
class Telling:
    """How well a measure ranks the `plans` of a T map: Spearman's rank correlation with the measured perplexity ratio (-1 is best: the more
    alike, the cheaper; NaN for fewer than three plans), and the range of its values."""

    measure: str
    correlation: float
    lowest: float
    highest: float
    plans: int


@dataclass(frozen=True, slots=True)
class Ablation:
    """The rows that answer one question; `telling` is used only for the acceptance measures."""

    name: str
    question: str
    rows: tuple[Row, ...]
    telling: tuple[Telling, ...] = ()


def row_of(meter: SimilarityMeter, judge: Judge, label: str, settings: LacoSettings, plan: Plan) -> Job[Row]:
    """Evaluate a plan and measure its similarity."""
    evaluation = yield from judge.judge(plan)
    return Row(label, settings, plan, plan.depth, mean_similarity(meter, plan, settings), evaluation)


def proposed(own: SimilarityMeter, meter: SimilarityMeter, judge: Judge, label: str, settings: LacoSettings) -> Job[Row]:
    """Run Algorithm 1 on the texts of `own` and evaluate its plan; the row's similarity is measured by `meter`."""
    plan = (yield from as_part(propose(own, settings), "", 0, 2)).plan
    return (yield from as_part(row_of(meter, judge, label, settings, plan), "", 1, 2))


def folding(meter: SimilarityMeter, settings: LacoSettings) -> Job[Proposal]:
    """Run Algorithm 1.

    Raises:
        SettingsError: no fold is accepted, so an ablation of folds has nothing to compare.
    """
    proposal = yield from propose(meter, settings)
    if not any(trial.accepted for trial in proposal.trials):
        raise SettingsError("no fold is accepted at T = {t:g}, so there is nothing to compare; lower T", t=settings.T)
    return proposal


def mean_similarity(meter: SimilarityMeter, plan: Plan, settings: LacoSettings) -> float:
    """Return a plan's mean similarity over the texts, by the settings' definition."""
    return mean_and_spread(meter.measure(plan.blocks, plan.prefix), settings.similarity)[0]


def named(meter: SimilarityMeter, settings: LacoSettings) -> tuple[tuple[str, Any], ...]:
    """Return the settings as recorded in a plan, with the fingerprint of the calibration texts."""
    return (*settings.items(), ("calibration", meter.calibration.fingerprint))


def telling_of(name: str, rows: Sequence[Row]) -> Telling:
    pairs = [(dict(row.measures)[name], row.evaluation.perplexity.ratio) for row in rows]
    pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
    values = [value for value, _ in pairs] or [math.nan]
    return Telling(name, spearman(pairs), min(values), max(values), len(pairs))


def spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """Return Spearman's rank correlation; NaN for fewer than three pairs, and if one side is constant."""
    return agreement.spearman(*zip(*pairs, strict=True)) if len(pairs) >= 3 else math.nan


def ablation_to_json(ablation: Ablation) -> dict[str, Any]:
    """Return an ablation with each row's plan; figures that are NaN or infinite are left so."""
    return {
        "name": ablation.name,
        "question": ablation.question,
        "rows": [_row_to_json(row) for row in ablation.rows],
        **({"telling": [asdict(entry) for entry in ablation.telling]} if ablation.telling else {}),
    }


def _row_to_json(row: Row) -> dict[str, Any]:
    judged = row.evaluation
    return {
        "label": row.label,
        "settings": dict(row.settings.items()),
        "depth": row.depth,
        "folds": list(row.folds),
        "similarity": row.similarity,
        "ratio": judged.perplexity.ratio,
        "interval": list(judged.perplexity.interval),
        "kl": judged.kl,
        "measures": dict(row.measures),
        "plan": plan_to_json(row.plan),
    }
