"""The loop: one step after another, each a pure function of the weights, their moments and the step's number.

Nothing else is carried from step to step. The order of texts and the rate follow from the step, and so do all random numbers,
which are seeded anew for each: so a run that was killed and goes on from a checkpoint ends with the bits it would have had.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.errors import TrainingError
from engine.training.parallel import like, mean, rank, whole
from engine.training.recipe import Recipe, course_at

BETAS = (0.9, 0.95)  # LLM-Streamline's, Minitron's and Sheared LLaMA's
_PARTS = ("weight", "first", "second")  # of a parameter in a checkpoint: itself and AdamW's two moments


@dataclass(frozen=True, slots=True)
class Learned:
    """What a step was: its loss, the length of its gradient before it was clipped, and its rate."""

    loss: float
    gradient: float
    rate: float


@dataclass(frozen=True, eq=False, slots=True)
class Beside:
    """Parameters that learn beside the weights and along the same course, at a highest rate of their own. Their gradients are not
    clipped, and no decay draws them to zero. Upwards, they make the loss larger, as Lagrange's multipliers do."""

    parameters: Mapping[str, torch.nn.Parameter]
    rate: float
    upwards: bool = False


class Learner:
    """Parameters that learn, by AdamW; `step` steps are done. `zeros` are where some of them stay zero (bool, True where); those
    `beside` them have names of their own."""

    def __init__(
        self,
        trained: Mapping[str, torch.nn.Parameter],
        recipe: Recipe,
        zeros: Mapping[str, torch.Tensor] | None = None,
        beside: Sequence[Beside] = (),
    ) -> None:
        self.trained, self.recipe, self.step = dict(trained), recipe, 0
        self._all = {**self.trained, **{name: parameter for each in beside for name, parameter in each.parameters.items()}}
        self._zeros, self._highest = dict(zeros or {}), (recipe.rate, *(each.rate for each in beside))
        own: list[dict[str, Any]] = [
            {"params": [*each.parameters.values()], "maximize": each.upwards, "weight_decay": 0.0} for each in beside
        ]
        self._optimizer = torch.optim.AdamW(
            [{"params": [*self.trained.values()]}, *own],
            lr=recipe.rate,
            betas=BETAS,
            weight_decay=recipe.decay,
            fused=all(one.device.type != "mps" for one in self.trained.values()),
        )

    def learn(self, losses: Iterable[Callable[[], torch.Tensor]]) -> Learned:
        """Take one step by the sum of some losses, each worked out and differentiated by itself.

        Raises:
            TrainingError: a loss or the gradient is no finite number; nothing was changed.
        """
        course, total = course_at(self.recipe, self.step), 0.0
        torch.manual_seed(((self.recipe.seed << 32) + self.step) ^ (rank() << 56))
        self._optimizer.zero_grad(set_to_none=True)
        for loss in losses:
            value = loss()
            total += value.item()
            value.backward()
        length = float(whole(torch.nn.utils.clip_grad_norm_(self.trained.values(), self.recipe.clip)))
        total = mean(total)
        if not math.isfinite(total + length):
            raise TrainingError(f"step {self.step + 1} has a loss of {total:g} and a gradient of {length:g}; lower the learning rate")
        for group, highest in zip(self._optimizer.param_groups, self._highest, strict=True):
            group["lr"] = highest * course
        self._optimizer.step()
        with torch.no_grad():
            for name, zero in self._zeros.items():
                self.trained[name].masked_fill_(zero, 0.0)
        self.step += 1
        return Learned(total, length, self.recipe.rate * course)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return what learns, by name, as it is now."""
        return {name: parameter.detach() for name, parameter in self.trained.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """Return all that a step hands to the next, by name."""
        found = {}
        for name, parameter in self._all.items():
            moments = self._optimizer.state.get(parameter) or {}
            there = [moments.get(key, torch.zeros_like(parameter)) for key in ("exp_avg", "exp_avg_sq")]
            found.update({f"{part}.{name}": tensor.detach() for part, tensor in zip(_PARTS, (parameter, *there), strict=True)})
        return found

    @torch.no_grad()
    def restore(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Go on as after that many steps, with what `state` returned then."""
        for name, parameter in self._all.items():
            weight, first, second = (like(state[f"{part}.{name}"].to(parameter.device), parameter) for part in _PARTS)
            parameter.copy_(weight)
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                "exp_avg": torch.empty_like(parameter).copy_(first),
                "exp_avg_sq": torch.empty_like(parameter).copy_(second),
            }
        self.step = step
