"""A run as the page draws it: what it is, where it stands, and how it came there, thinned to what a chart can show. Reads files alone."""

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from engine.cache import plain
from engine.recover.runs import Run
from engine.recover.settings import ShearSettings
from engine.recover.shearing import recipe_of
from engine.training.recipe import Recipe

POINTS = 300  # of the training loss: more are told apart by no eye
APART = 1.05  # other text has fallen behind where its ratio, over that of the training kind, grew by more than this
_LAST = 20  # steps that the pace is taken from


def course(run: Run) -> dict[str, Any]:
    """Return the course of a run: its tokens so far and of all, its pace, the training loss (mean of neighbouring steps), each look at
    held-out text, and how the masks of a shearing have gone.

    Raises:
        TrainingError: the folder holds no run. KeyError: it holds one of another form.
    """
    record, lines, recipe = run.record, run.lines(), _recipe(run)
    steps = [line for line in lines if "loss" in line]
    looks = [_look(line, recipe.tokens) for line in lines if "kind" in line]
    done, pace = steps[-1]["step"] if steps else 0, _pace(steps, record)
    total = recipe.steps if run.shears or "recipe" in record else None
    return plain(
        {
            "asked": _asked(run),
            "tokens": done * recipe.tokens,
            "total": total and total * recipe.tokens,
            "pace": pace and recipe.tokens / pace,
            "left": pace * (total - done) * _with_looks(lines) if pace and total and "best" not in record else None,
            "loss": _thinned([(line["tokens"], line["text" if run.shears else "loss"]) for line in steps]),
            "looks": looks,
            "apart": _apart(looks),
            "domains": _domains(lines, recipe.tokens),
            "masks": _masks(steps) if run.shears else {},
            "before": _ratios(record, "before"),
            "after": _ratios(record, "after") or (looks and {name: looks[-1][name][0] for name in ("kind", "other")}) or None,
            "best": record["best"] * recipe.tokens if "best" in record else None,
        },
        6,
    )


def _recipe(run: Run) -> Recipe:
    """Return how a run learns; before its rates are known, how it was asked to."""
    record = run.record
    return recipe_of(ShearSettings(**record["settings"])) if run.shears else Recipe(**record.get("recipe", record["asked"]))


def _asked(run: Run) -> dict[str, Any]:
    """Return what a run was asked for."""
    record = run.record
    if not run.shears:
        asked = {name: record[name] for name in ("name", "plan", "text", "train", "loss", "budget", "until")}
        return asked | {"memory": record.get("memory")}
    told = {"train": "shear", "loss": record["settings"]["loss"], "budget": {"tokens": record["settings"]["tokens"]}}
    plan = {"depth": record["target"].get("layers", record["depth"]), "of": record["depth"]}
    return {"name": record["name"], "plan": plan, "text": record["text"], "target": record["target"], **told}


def _masks(steps: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Return by kind of part, at some steps: tokens so far, the shares that are expected and wanted to stay, the share of masks that is
    undecided, and the two multipliers."""
    some = steps[:: max(1, len(steps) // POINTS)]
    found = {}
    for name, first in (some[0]["masks"] if some else {}).items():
        told = [line["masks"][name] for line in some]
        found[name] = {
            "tokens": [line["tokens"] for line in some],
            **{key: [one[key] / first["wanted"] for one in told] for key in ("expected", "wanted")},
            "undecided": [one["undecided"] / one["masks"] for one in told],
            **{key: [one["multipliers"][place] for one in told] for place, key in enumerate(("first", "second"))},
        }
    return found


def _look(line: dict[str, Any], tokens: int) -> dict[str, Any]:
    told = {name: [line[name][part] for part in ("ratio", "low", "high")] for name in ("kind", "other")}
    return {"tokens": line["step"] * tokens, **told, "spoken": line["spoken"]}


def _ratios(record: dict[str, Any], side: str) -> dict[str, float] | None:
    return {name: gap["ratio"] for name, gap in record[side].items()} if side in record else None


def _pace(steps: list[dict[str, Any]], record: dict[str, Any]) -> float | None:
    """Return the seconds that a step takes: of the last ones, else as measured before the first; None before that."""
    return statistics.median(line["seconds"] for line in steps[-_LAST:]) if steps else record.get("seconds_a_step")


def _with_looks(lines: list[dict[str, Any]]) -> float:
    """Return by how much looking at held-out text has made the steps so far longer."""
    learning, all_of_it = (sum(line.get("seconds", 0.0) for line in some) for some in ([one for one in lines if "loss" in one], lines))
    return all_of_it / learning if learning else 1.0


def _domains(lines: list[dict[str, Any]], tokens: int) -> dict[str, list[list[float]]]:
    """Return by domain, where they are read by what they cost: tokens so far, the loss (nats a token) and the proportion there."""
    told = [(line["step"] * tokens, line["domains"]) for line in lines if "domains" in line]
    return {
        name: [[at, domains[name]["cost"], domains[name]["proportion"]] for at, domains in told] for name in (told[0][1] if told else {})
    }


def _thinned(points: list[tuple[int, float]]) -> list[list[float]]:
    """Return at most POINTS points, each the mean of its neighbours."""
    if not points:
        return []
    return [part.mean(0).tolist() for part in np.array_split(np.array(points, float), min(POINTS, len(points)))]


def _apart(looks: list[dict[str, Any]]) -> bool:
    """Return whether other text has fallen behind text of the training kind since the first look."""
    ratios = [[look[name][0] for name in ("other", "kind")] for look in looks[:1] + looks[-1:]]
    if len(looks) < 2 or not all(ratio and math.isfinite(ratio) for pair in ratios for ratio in pair):
        return False
    (other_before, kind_before), (other, kind) = ratios
    return other / kind > APART * other_before / kind_before


class Courses:
    """The courses of runs, read again only where their files have changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[list[float], dict[str, Any]]] = {}

    def of(self, run: Run) -> dict[str, Any]:
        """Return the course of a run."""
        seen = [path.stat().st_mtime if path.exists() else 0.0 for path in (run.folder / "run.json", run.folder / "metrics.jsonl")]
        known = self._known.get(run.folder)
        if known is None or known[0] != seen:
            known = self._known[run.folder] = (seen, course(run))
        return known[1]
