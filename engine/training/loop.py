"""The training loop: each step is a pure function of the weights, their moments and the step's number.

Nothing else is carried from step to step. The order of texts and the rate follow from the step, as do all random numbers, which are
reseeded for each step. A killed run that is resumed from a checkpoint therefore ends with identical bits.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.errors import TrainingError
from engine.training.parallel import like, mean, rank, whole
from engine.training.recipe import Recipe, course_at

BETAS = (0.9, 0.95)  # as in LLM-Streamline, Minitron and Sheared LLaMA
_PARTS = ("weight", "first", "second")  # of a parameter in a checkpoint: its value and AdamW's two moments


@dataclass(frozen=True, slots=True)
class Learned:
    """The record of a step: its loss, the gradient's norm before clipping, and the learning rate."""

    loss: float
    gradient: float
    rate: float


@dataclass(frozen=True, eq=False, slots=True)
class ExtraParameters:
    """Parameters trained along with the weights on the same schedule, with a separate highest rate. Their gradients are not clipped, and
    they have no weight decay. With `upwards` they maximise the loss, as Lagrange multipliers do."""

    parameters: Mapping[str, torch.nn.Parameter]
    rate: float
    upwards: bool = False


class Learner:
    """Parameters trained by AdamW; `step` steps are done. `zeros` marks elements that stay zero (bool); the names in `extra` must be
    distinct from theirs."""

    def __init__(
        self,
        trained: Mapping[str, torch.nn.Parameter],
        recipe: Recipe,
        zeros: Mapping[str, torch.Tensor] | None = None,
        extra: Sequence[ExtraParameters] = (),
    ) -> None:
        self.trained, self.recipe, self.step = dict(trained), recipe, 0
        self._all = {**self.trained, **{name: parameter for each in extra for name, parameter in each.parameters.items()}}
        self._zeros, self._highest = dict(zeros or {}), (recipe.rate, *(each.rate for each in extra))
        own: list[dict[str, Any]] = [
            {"params": [*each.parameters.values()], "maximize": each.upwards, "weight_decay": 0.0} for each in extra
        ]
        self._optimizer = torch.optim.AdamW(
            [{"params": [*self.trained.values()]}, *own],
            lr=recipe.rate,
            betas=BETAS,
            weight_decay=recipe.decay,
            fused=all(one.device.type != "mps" for one in self.trained.values()),
        )

    def learn(self, losses: Iterable[Callable[[], torch.Tensor]]) -> Learned:
        """Take one step on the sum of some losses, each computed and differentiated separately.

        Raises:
            TrainingError: a loss or the gradient is not finite; nothing was changed.
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
            raise TrainingError(
                "step {step} has a loss of {total:g} and a gradient of {length:g}; lower the learning rate",
                step=self.step + 1,
                total=total,
                length=length,
            )
        for group, highest in zip(self._optimizer.param_groups, self._highest, strict=True):
            group["lr"] = highest * course
        self._optimizer.step()
        with torch.no_grad():
            for name, zero in self._zeros.items():
                self.trained[name].masked_fill_(zero, 0.0)
        self.step += 1
        return Learned(total, length, self.recipe.rate * course)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the trained parameters by name, with their current values."""
        return {name: parameter.detach() for name, parameter in self.trained.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """Return everything that a step passes to the next, by name."""
        found = {}
        for name, parameter in self._all.items():
            moments = self._optimizer.state.get(parameter) or {}
            there = [moments.get(key, torch.zeros_like(parameter)) for key in ("exp_avg", "exp_avg_sq")]
            found.update({f"{part}.{name}": tensor.detach() for part, tensor in zip(_PARTS, (parameter, *there), strict=True)})
        return found

    @torch.no_grad()
    def restore(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Resume after that many steps, with what `state` returned then."""
        for name, parameter in self._all.items():
            weight, first, second = (like(state[f"{part}.{name}"].to(parameter.device), parameter) for part in _PARTS)
            parameter.copy_(weight)
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                "exp_avg": torch.empty_like(parameter).copy_(first),
                "exp_avg_sq": torch.empty_like(parameter).copy_(second),
            }
        self.step = step
