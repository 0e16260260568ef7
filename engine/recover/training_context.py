"""All that a run works with: the source that teaches, the student, the text, and what is held out of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from engine.corpus.domains import Reader
from engine.corpus.rows import Rows
from engine.models.families import blocks_of
from engine.recover.distillation import Present, Teacher, Teaching, terms_of
from engine.recover.domain_weighting import Weighing
from engine.recover.heldout import Held, Within, plainly
from engine.recover.runs import Run
from engine.recover.stored_teacher import Stored
from engine.recover.student import Trained
from engine.training.parallel import own, sharded, size
from engine.training.recipe import Recipe
from engine.types import Model, Plan


@dataclass(eq=False, slots=True)
class TrainingContext:
    """All that a run works with; `held` are the texts that only judge. Where the source does not fit beside the student its network is
    gone, and `stored` is what it said."""

    run: Run
    model: Model
    plan: Plan
    reader: Reader
    student: Any
    parameters: Trained
    held: Mapping[str, Held]
    stored: Stored | None = None
    within: Within = plainly
    weighing: Weighing | None = None  # of domains by cost

    @property
    def rows(self) -> Rows:
        """The text."""
        return self.reader.rows

    @property
    def device(self) -> str:
        """Where it all lies."""
        return self.model.source.device

    @property
    def present(self) -> bool:
        """True where the source is beside the student."""
        return self.model.network is not None

    def share(self) -> None:
        """Shard the student, and the source where it is beside it, over the processes that learn together."""
        networks = [self.student, *([self.model.network] if self.present else [])]
        self.within = sharded({network: blocks_of(network) for network in networks}, self.device)
        self.parameters = {name: self.student.get_parameter(name) for name in self.parameters}

    def teaching(self, recipe: Recipe) -> Teaching:
        """Return the student and its teacher in a recipe's number format. Where the source is gone and has said nothing yet, the text
        stands in for it, by which a step takes as long."""
        if recipe.recompute:
            self.student.activation_checkpointing_enable()
        terms = terms_of(self.run.record["loss"])
        teacher = self._teacher(recipe.autocast) if terms.teacher else None
        if terms.teacher and teacher is None:
            terms = terms_of("ce")
        tokens = recipe.tokens // size()  # each process learns from a part of them, and gradients are the mean of all
        return Teaching(self.student, teacher, terms, self.plan, self.model.spec.hidden_size, tokens, recipe.autocast)

    def _teacher(self, autocast: str) -> Teacher | None:
        if self.present:
            cast(self.model.network, autocast)
            return Present(self.model.network, autocast)
        return self.stored

    def losses(self, teaching: Teaching, recipe: Recipe, step: int) -> Iterator[Callable[[], torch.Tensor]]:
        """Yield the losses whose sum a step follows: of each of its passes."""
        for part in range(recipe.accumulate):
            batch = self.reader.batch(step * recipe.accumulate + part, recipe.rows)
            rows = [own(part).to(self.device) for part in (batch.ids, batch.positions, batch.numbers) if part is not None]
            yield partial(self.within, partial(teaching, *rows))

    def missing(self, recipe: Recipe, step: int) -> dict[str, float]:
        """Return how much chance lies on no token that was stored of the rows of a step, for its line; nothing where all is heard."""
        if self.stored is None:
            return {}
        size = recipe.rows * recipe.accumulate
        numbers = [self.rows.number(k, recipe.seed) for k in range(step * size, (step + 1) * size)]
        return {"missing": self.stored.missing(numbers)}


def cast(network: Any, autocast: str) -> None:
    """Give a source that only teaches the number format that passes run in, for good: nothing else of this process needs it. Buffers
    stay as they are, since rotary tables want float32, and so do what learns and what is sharded."""
    if autocast and size() == 1:
        for parameter in network.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(getattr(torch, autocast))
