"""All that a run works with: the source that teaches, the student, the text, and what is held out of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from engine.corpus.rows import Rows
from engine.recover.gauge import Held
from engine.recover.runs import Run
from engine.recover.stored import Stored
from engine.recover.students import Trained
from engine.recover.teaching import Present, Teacher, Teaching, terms_of
from engine.training.recipe import Recipe
from engine.types import Model, Plan


@dataclass(eq=False, slots=True)
class School:
    """All that a run works with; `held` are the texts that only judge. Where the source does not fit beside the student its network is
    gone, and `stored` is what it said."""

    run: Run
    model: Model
    plan: Plan
    rows: Rows
    student: Any
    parameters: Trained
    held: Mapping[str, Held]
    stored: Stored | None = None

    @property
    def device(self) -> str:
        """Where it all lies."""
        return self.model.source.device

    @property
    def present(self) -> bool:
        """True where the source is beside the student."""
        return self.model.network is not None

    def teaching(self, recipe: Recipe) -> Teaching:
        """Return the student and its teacher in a recipe's number format. Where the source is gone and has said nothing yet, the text
        stands in for it, by which a step takes as long."""
        if recipe.recompute:
            self.student.activation_checkpointing_enable()
        terms = terms_of(self.run.record["loss"])
        teacher = self._teacher(recipe.autocast) if terms.teacher else None
        if terms.teacher and teacher is None:
            terms = terms_of("ce")
        return Teaching(self.student, teacher, terms, self.plan, self.model.spec.hidden_size, recipe.tokens, recipe.autocast)

    def _teacher(self, autocast: str) -> Teacher | None:
        if self.present:
            cast(self.model.network, autocast)
            return Present(self.model.network, autocast)
        return self.stored

    def losses(self, teaching: Teaching, recipe: Recipe, step: int) -> Iterator[Callable[[], torch.Tensor]]:
        """Yield the losses whose sum a step follows: of each of its passes."""
        for part in range(recipe.accumulate):
            batch = self.rows.batch(step * recipe.accumulate + part, recipe.rows, recipe.seed)
            yield partial(teaching, batch.ids.to(self.device), batch.positions.to(self.device), batch.numbers)

    def missing(self, recipe: Recipe, step: int) -> dict[str, float]:
        """Return how much chance lies on no token that was stored of the rows of a step, for its line; nothing where all is heard."""
        if self.stored is None:
            return {}
        size = recipe.rows * recipe.accumulate
        numbers = [self.rows.number(k, recipe.seed) for k in range(step * size, (step + 1) * size)]
        return {"missing": self.stored.missing(numbers)}


def cast(network: Any, autocast: str) -> None:
    """Give a source that only teaches the number format that passes run in, for good: nothing else of this process needs it. Buffers
    stay as they are, since rotary tables want float32, and so does what learns."""
    if autocast:
        for parameter in network.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(getattr(torch, autocast))
