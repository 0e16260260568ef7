"""How a run learns: what decides its numbers, and nothing else. The learning rate is a pure function of the step."""

import math
from dataclasses import dataclass

WARMUP, FLOOR = 0.05, 0.05  # shares of the steps and of the rate: LLM-Streamline warms up over 1 to 3 %, Minitron comes down to a tenth


@dataclass(frozen=True, slots=True)
class Recipe:
    """Of a run. A step learns from `rows` x `accumulate` rows of `length` tokens."""

    steps: int
    rate: float  # the highest
    rows: int = 2
    length: int = 256
    accumulate: int = 1  # passes whose gradients are added up before a step
    clip: float = 1.0  # the longest gradient
    decay: float = 0.0  # AdamW's
    seed: int = 0  # of the texts' order and of dropout
    recompute: bool = False  # whether activations are worked out again on the way back
    autocast: str = ""  # the number format of passes; empty for the weights' own
    warmup: float = WARMUP
    floor: float = FLOOR

    @property
    def tokens(self) -> int:
        """Tokens that a step learns from."""
        return self.rows * self.accumulate * self.length


def course_at(recipe: Recipe, step: int) -> float:
    """Return what share of the highest learning rate a step has, counted from 0: a linear rise over `warmup`, then half a cosine
    down to `floor`; unless the recipe says other, a twentieth each."""
    rise = max(1, round(recipe.warmup * recipe.steps))
    if step < rise:
        return (step + 1) / rise
    gone = (step - rise) / max(1, recipe.steps - rise)
    return recipe.floor + (1 - recipe.floor) * 0.5 * (1 + math.cos(math.pi * gone))


def rate_at(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    return recipe.rate * course_at(recipe, step)
