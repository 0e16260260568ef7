"""How long scores, widths and masks take at the pace of the model's own last passes: in passes over the source, as counted on the demo.

What does not grow with the text (sorting scores, factorising Grams) is counted in, as it is at a few thousand tokens.
"""

from collections.abc import Mapping
from typing import Any

from engine.methods.masks import MASKS
from engine.methods.scores import AXES, SCORES
from engine.passes.forward import work_of_pass
from engine.types import Model

_WIDTH = {"gram": 0.5, "gradients": 3.3}  # passes that what a score needs adds to the one that sums up
_SCORED = {"sums": 1.5, "gram": 2.8, "full": 4.3, "local": 1.2}  # of the scores of weights, for each of their needs
_DIRECTIONS = 1.2
REFIT = 8.0  # passes that solving a plan's layers again takes
_PRUNED = {"sums": 3.0, "gram": 3.7, "full": 4.3, "local": 1.5}  # of masks


def scoring_seconds(model: Model, axis: str, score: str, tokens: int) -> float:
    """Return how long a score of an axis takes on so many tokens; NaN for a model that has not run yet."""
    if axis in AXES:
        return _seconds(model, 1.2 + _added(SCORES[score].settings, _WIDTH), tokens)
    return _seconds(model, _added(MASKS[score].settings, _SCORED), tokens)


def directions_seconds(model: Model, tokens: int) -> float:
    """Return how long what the stream's directions hold takes on so many tokens (see slicegpt.py); NaN likewise."""
    return _seconds(model, _DIRECTIONS, tokens)


def trimming_seconds(model: Model, score: str, beside: str, tokens: int) -> float:
    """Return how long trimming by a score takes on so many tokens, with what is done `beside` it (see widths.py); NaN likewise."""
    more = {"refit": REFIT, "bias": 1.2}.get(beside, 0.0)
    return _seconds(model, 1.2 + _added(SCORES[score].settings, _WIDTH) + more, tokens)


def pruning_seconds(model: Model, method: str, tokens: int) -> float:
    """Return how long masks by a method take on so many tokens; NaN for a model that has not run yet."""
    return _seconds(model, _added(MASKS[method].settings, _PRUNED), tokens)


def _added(settings: Any, passes: Mapping[str, float]) -> float:
    return sum(passes[need] for need in settings.needs)


def _seconds(model: Model, passes: float, tokens: int) -> float:
    return model.pace * passes * work_of_pass(model, tokens)
