"""Chart data of a training run: its request, its state and its course, thinned to a chart's resolution. Reads only the run's files."""

import math
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from engine.cache import plain
from engine.recover.distill.heldout import Gap
from engine.recover.run.records import LearningRecord, ShearingRecord
from engine.recover.run.runs import Run
from engine.recover.shear.loop import recipe_of
from engine.training.recipe import Recipe

POINTS = 300  # of the training loss; a chart cannot show more
APART = 1.05  # other text has fallen behind where its ratio, divided by that of the training kind, grew by more than this factor
_LAST = 20  # number of last steps that the pace is taken from


def course(run: Run) -> dict[str, Any]:
    """Return the course of a run: its tokens so far and in total, its pace (tokens a second), the estimated seconds left, the training loss
    (mean of neighbouring steps), each held-out evaluation, and the masks of a shearing.

    Raises:
        TrainingError: the folder holds no run.
    """
    record, lines = run.about, run.lines()
    learned = record if isinstance(record, LearningRecord) else None
    shears, recipe, best = learned is None, _recipe(record), learned.best if learned else None
    steps = [line for line in lines if "loss" in line]
    looks = [_look(line, recipe.tokens) for line in lines if "kind" in line]
    done, pace = steps[-1]["step"] if steps else 0, _pace(steps, learned.seconds_a_step if learned else None)
    total = recipe.steps if learned is None or learned.recipe else None
    return plain(
        {
            "asked": _asked(record),
            "tokens": done * recipe.tokens,
            "total": total and total * recipe.tokens,
            "pace": pace and recipe.tokens / pace,
            "left": pace * (total - done) * _with_looks(lines) if pace and total and best is None else None,
            "loss": _thinned([(line["tokens"], line["text" if shears else "loss"]) for line in steps]),
            "looks": looks,
            "apart": _apart(looks),
            "domains": _domains(lines, recipe.tokens),
            "masks": _masks(steps) if shears else {},
            "before": _ratios(learned.before if learned else None),
            "after": _ratios(learned.after if learned else None)
            or (looks and {name: looks[-1][name][0] for name in ("kind", "other")})
            or None,
            "best": None if best is None else best * recipe.tokens,
        },
        6,
    )


def _recipe(record: LearningRecord | ShearingRecord) -> Recipe:
    """Return a run's recipe: the one it trains with, or the requested one before its learning rate is known."""
    return recipe_of(record.settings) if isinstance(record, ShearingRecord) else record.recipe or record.asked


def _asked(record: LearningRecord | ShearingRecord) -> dict[str, Any]:
    """Return what was requested of a run."""
    both = {"name": record.name, "text": record.text}
    if isinstance(record, LearningRecord):
        asked = {"train": record.train, "loss": record.loss, "budget": record.budget, "until": record.until}
        return {**both, "plan": asdict(record.plan), **asked, "memory": record.memory}
    facts = {"train": "shear", "loss": record.settings.loss, "budget": {"tokens": record.settings.tokens}}
    plan = {"depth": record.target.get("layers", record.depth), "of": record.depth}
    return {**both, "plan": plan, "target": record.target, **facts}


def _masks(steps: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Return, by kind of part and over thinned steps: tokens so far, the expected and the wanted share kept, the share of undecided
    masks, and the two multipliers."""
    some = steps[:: max(1, len(steps) // POINTS)]
    found = {}
    for name, first in (some[0]["masks"] if some else {}).items():
        facts = [line["masks"][name] for line in some]
        found[name] = {
            "tokens": [line["tokens"] for line in some],
            **{key: [one[key] / first["wanted"] for one in facts] for key in ("expected", "wanted")},
            "undecided": [one["undecided"] / one["masks"] for one in facts],
            **{key: [one["multipliers"][place] for one in facts] for place, key in enumerate(("first", "second"))},
        }
    return found


def _look(line: dict[str, Any], tokens: int) -> dict[str, Any]:
    facts = {name: [line[name][part] for part in ("ratio", "low", "high")] for name in ("kind", "other")}
    return {"tokens": line["step"] * tokens, **facts, "spoken": line["spoken"]}


def _ratios(gaps: dict[str, Gap] | None) -> dict[str, float] | None:
    return {name: gap.ratio for name, gap in gaps.items()} if gaps else None


def _pace(steps: list[dict[str, Any]], measured: float | None) -> float | None:
    """Return the seconds per step: the median of the last steps, else the time measured before the first; None without either."""
    return statistics.median(line["seconds"] for line in steps[-_LAST:]) if steps else measured


def _with_looks(lines: list[dict[str, Any]]) -> float:
    """Return the factor by which held-out evaluations have lengthened the run so far."""
    learning, all_of_it = (sum(line.get("seconds", 0.0) for line in some) for some in ([one for one in lines if "loss" in one], lines))
    return all_of_it / learning if learning else 1.0


def _domains(lines: list[dict[str, Any]], tokens: int) -> dict[str, list[list[float]]]:
    """Return, by domain, [tokens so far, loss (nats per token), proportion]. Empty where the proportions do not follow the loss."""
    facts = [(line["step"] * tokens, line["domains"]) for line in lines if "domains" in line]
    return {
        name: [[at, domains[name]["cost"], domains[name]["proportion"]] for at, domains in facts] for name in (facts[0][1] if facts else {})
    }


def _thinned(points: list[tuple[int, float]]) -> list[list[float]]:
    """Return at most POINTS points, each the mean of its neighbours."""
    if not points:
        return []
    return [part.mean(0).tolist() for part in np.array_split(np.array(points, float), min(POINTS, len(points)))]


def _apart(looks: list[dict[str, Any]]) -> bool:
    """Return whether other text has fallen behind text of the training kind since the first evaluation."""
    ratios = [[look[name][0] for name in ("other", "kind")] for look in looks[:1] + looks[-1:]]
    if len(looks) < 2 or not all(ratio and math.isfinite(ratio) for pair in ratios for ratio in pair):
        return False
    (other_before, kind_before), (other, kind) = ratios
    return other / kind > APART * other_before / kind_before


class Courses:
    """The courses of runs, read again only when their files change."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[list[float], dict[str, Any]]] = {}

    def of(self, run: Run) -> dict[str, Any]:
        """Return the course of a run."""
        seen = [path.stat().st_mtime if path.exists() else 0.0 for path in (run.folder / "run.json", run.folder / "metrics.jsonl")]
        known = self._known.get(run.folder)
        if known is None or known[0] != seen:
            known = self._known[run.folder] = (seen, course(run))
        return known[1]
