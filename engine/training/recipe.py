"""The recipe of a run: everything that determines its numbers, and nothing else. The learning rate is a pure function of the step."""

import math
from dataclasses import dataclass

WARMUP, FLOOR = 0.05, 0.05  # shares of the steps and of the rate: LLM-Streamline warms up over 1 to 3 %, Minitron decays to a tenth


@dataclass(frozen=True, slots=True)
class Recipe:
    """The recipe of a run. A step trains on `rows` x `accumulate` rows of `length` tokens."""

    steps: int
    rate: float  # the highest learning rate
    rows: int = 2
    length: int = 256
    accumulate: int = 1  # passes whose gradients are summed before a step
    clip: float = 1.0  # the largest gradient norm
    decay: float = 0.0  # AdamW's weight decay
    seed: int = 0  # of the texts' order and of dropout
    recompute: bool = False  # whether activations are recomputed in the backward pass
    autocast: str = ""  # number format of passes; empty for the weights' own dtype
    warmup: float = WARMUP
    floor: float = FLOOR

    @property
    def tokens(self) -> int:
        """Tokens that a step trains on."""
        return self.rows * self.accumulate * self.length


def course_at(recipe: Recipe, step: int) -> float:
    """Return a step's share of the highest learning rate, counted from 0: a linear rise over `warmup`, then half a cosine down to `floor`
    (both a twentieth by default)."""
    rise = max(1, round(recipe.warmup * recipe.steps))
    if step < rise:
        return (step + 1) / rise
    gone = (step - rise) / max(1, recipe.steps - rise)
    return recipe.floor + (1 - recipe.floor) * 0.5 * (1 + math.cos(math.pi * gone))


def rate_at(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    return recipe.rate * course_at(recipe, step)
