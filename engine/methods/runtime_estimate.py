"""Estimate the seconds of scores, widths and masks from the pace of the model's latest passes, in passes over the source as counted on the
demo.

Work that does not grow with the text (sorting scores, factorising Gram matrices) is included as measured at a few thousand tokens.
"""

from collections.abc import Mapping
from typing import Any

from engine.methods.masks.pruning import MASKS
from engine.methods.width.scores import AXES, SCORES
from engine.passes.forward import work_of_pass
from engine.types import Model

_WIDTH = {"gram": 0.5, "gradients": 3.3}  # passes that a score's needs add to the summing pass
_SCORED = {"sums": 1.5, "gram": 2.8, "full": 4.3, "local": 1.2}  # passes of weight scores, for each of their needs
_DIRECTIONS = 1.2
REFIT = 8.0  # passes of a refit of a plan's layers
_PRUNED = {"sums": 3.0, "gram": 3.7, "full": 4.3, "local": 1.5}  # passes of masks, for each of their needs


def scoring_seconds(model: Model, axis: str, score: str, tokens: int) -> float:
    """Return the estimated seconds of a score of an axis on `tokens` tokens; NaN for a model that has not run yet."""
    if axis in AXES:
        return _seconds(model, 1.2 + _added(SCORES[score].settings, _WIDTH), tokens)
    return _seconds(model, _added(MASKS[score].settings, _SCORED), tokens)


def directions_seconds(model: Model, tokens: int) -> float:
    """Return the seconds of the residual stream's directions on `tokens` tokens (see slicegpt.py); NaN for a model not run yet."""
    return _seconds(model, _DIRECTIONS, tokens)


def trimming_seconds(model: Model, score: str, compensation: str, tokens: int) -> float:
    """Return the seconds of trimming by a score on `tokens` tokens, with a `compensation` (see widths.py); NaN as above."""
    more = {"refit": REFIT, "bias": 1.2}.get(compensation, 0.0)
    return _seconds(model, 1.2 + _added(SCORES[score].settings, _WIDTH) + more, tokens)


def pruning_seconds(model: Model, method: str, tokens: int) -> float:
    """Return the estimated seconds of masks by a method on `tokens` tokens; NaN for a model that has not run yet."""
    return _seconds(model, _added(MASKS[method].settings, _PRUNED), tokens)


def _added(settings: Any, passes: Mapping[str, float]) -> float:
    return sum(passes[need] for need in settings.needs)


def _seconds(model: Model, passes: float, tokens: int) -> float:
    return model.pace * passes * work_of_pass(model, tokens)
