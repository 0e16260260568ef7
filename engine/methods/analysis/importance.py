"""The importance of units: the scores of one axis of a plan, layer by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.errors import SettingsError
from engine.jobs import Job
from engine.methods.masks.pruning import MASKS, weight_scores
from engine.methods.width.scores import AXES, SCORES, require_score, scores, scores_for
from engine.models.texts import Pack, tokens_in
from engine.types import Model, Plan

DEFAULTS = {"heads": "weighted", "neurons": "weighted", "channels": "weighted", "weights": "wanda"}


@dataclass(frozen=True, slots=True)
class Importance:
    """The scores of an axis, one row per layer; for weights, the mean of each of `projections`. `tokens` is the text read."""

    layers: tuple[tuple[float, ...], ...]
    tokens: int
    projections: tuple[str, ...] = ()


def scores_of(axis: str) -> tuple[str, ...]:
    """Return the names of an axis's scores."""
    return tuple(MASKS) if axis == "weights" else scores_for(axis)


def needs_gradients(axis: str, score: str) -> bool:
    """Return whether a score needs backward passes, which are slow."""
    needs = (MASKS if axis == "weights" else SCORES)[score].settings.needs  # type: ignore[attr-defined]
    return bool(needs & {"gradients", "full", "local"})


def require_importance(axis: str, score: str | None) -> str:
    """Return the score, or the axis's default score for None.

    Raises:
        SettingsError: there is no such axis, or it has no such score.
    """
    if axis not in DEFAULTS:
        raise SettingsError("unknown axis '{axis}'; choose one of {choices}", axis=axis, choices=", ".join(DEFAULTS))
    score = score or DEFAULTS[axis]
    if axis in AXES:
        require_score(score, axis)
    elif score not in MASKS:
        raise SettingsError(
            "the score {score} does not apply to {axis}; choose one of {choices}", score=score, axis=axis, choices=", ".join(MASKS)
        )
    return score


def importance(
    model: Model, plan: Plan, packs: Sequence[Pack], axis: str, score: str, settings: Mapping[str, Any] | None = None
) -> Job[Importance]:
    """Return the score of each unit of an axis in a plan without its masks (see engine/methods/width/scores.py and masks.py)."""
    tokens = tokens_in(packs)
    if axis != "weights":
        found = yield from scores(model, plan.dense, packs, (axis,), score, settings)
        return Importance(tuple(tuple(one.tolist()) for one in found[axis]), tokens)
    means: dict[tuple[int, str], float] = {}

    def take(place: int, name: str, scored: torch.Tensor) -> None:
        means[place, name] = float(scored.mean())

    yield from weight_scores(model, plan, packs, score, take, settings)
    names = tuple(dict.fromkeys(name for _, name in means))
    layers = tuple(tuple(means[place, name] for name in names) for place in range(plan.depth))
    return Importance(layers, tokens if MASKS[score].settings.needs else 0, names)  # type: ignore[attr-defined]
