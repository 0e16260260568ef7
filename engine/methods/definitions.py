"""The formula versions behind trimmed and pruned plans; cached measurements of such plans depend on them."""

from engine.cache import Definition
from engine.methods.masks.pruning import MASKS
from engine.methods.width.compensation import BIAS
from engine.methods.width.refit import REFIT
from engine.methods.width.scores import SCORES

_COMPENSATIONS = {"refit": (REFIT,), "bias": (BIAS,), "nothing": ()}


def trim_by(score: str, compensation: str) -> Definition:
    """Return the definition of a trim by a score with its compensation (see widths.py)."""
    return Definition("trim", 1, (Definition(f"score {score}", _version(SCORES[score].settings)), *_COMPENSATIONS[compensation]))


def pruning_by(method: str) -> Definition:
    """Return the definition of a pruning by a method (see masks.py)."""
    return Definition("pruning", 1, (Definition(f"mask {method}", _version(MASKS[method].settings)),))


def _version(settings: type) -> int:
    return settings.version  # type: ignore[attr-defined]
