"""How a run learns: what decides its numbers, and nothing else. The learning rate is a pure function of the step."""

import math
from dataclasses import dataclass, field

from engine.settings import control

WARMUP, FLOOR = 0.05, 0.05  # shares of the steps and of the rate : LLM-Streamline warms up over 1 to 3 %, Minitron comes down to a tenth


@dataclass(frozen=True, slots=True)
class Recipe:
    """Of a run. A step learns from `rows` x `accumulate` rows of `length` tokens."""

    steps: int = field(metadata=control("how many steps", 1))
    rate: float = field(metadata=control("the highest learning rate", 0.0))
    rows: int = field(default=2, metadata=control("rows of text in a pass", 1))
    length: int = field(default=256, metadata=control("tokens in a row", 2))
    accumulate: int = field(default=1, metadata=control("passes whose gradients are added up before a step", 1))
    clip: float = field(default=1.0, metadata=control("the longest gradient", 0.0))
    decay: float = field(default=0.0, metadata=control("weight decay of AdamW", 0.0))
    seed: int = field(default=0, metadata=control("of the texts' order and of dropout", 0))
    recompute: bool = field(default=False, metadata=control("work activations out again on the way back, which takes less memory"))
    autocast: str = field(default="", metadata=control("the number format of passes; empty for the weights' own"))
    warmup: float = field(default=WARMUP, metadata=control("the share of the steps over which the rate rises", 0.0, 1.0))
    floor: float = field(default=FLOOR, metadata=control("the share of the highest rate that is left in the end", 0.0, 1.0))

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
