"""The objects of a run: the teaching source, the student, the text, and the held-out texts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from engine.corpus.domains import RowReader
from engine.corpus.rows import Rows
from engine.models.families import blocks_of
from engine.recover.distill.distillation import DistillationLoss, LiveTeacher, Teacher, terms_of
from engine.recover.distill.heldout import HeldOut, Within, plainly
from engine.recover.distill.stored_teacher import Stored
from engine.recover.distill.student import Trained
from engine.recover.run.runs import Run
from engine.recover.shear.domain_weighting import DomainWeighting
from engine.training.parallel import own, sharded, size
from engine.training.recipe import Recipe
from engine.types import Model, Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(eq=False, slots=True)
class TrainingContext:
    """The objects of a run; `held` are the held-out texts. If the source does not fit next to the student, its network is None and `stored`
    contains its outputs."""

    run: Run
    model: Model
    plan: Plan
    reader: RowReader
    student: Any
    parameters: Trained
    held: Mapping[str, HeldOut]
    stored: Stored | None = None
    within: Within = plainly
    weighing: DomainWeighting | None = None  # reweighting of domains by cost

    @property
    def rows(self) -> Rows:
        """The training text."""
        return self.reader.rows

    @property
    def device(self) -> str:
        """The device of all networks."""
        return self.model.source.device

    @property
    def present(self) -> bool:
        """Whether the source is in memory next to the student."""
        return self.model.network is not None

    def share(self) -> None:
        """Shard the student, and the source if in memory, over the processes that train together."""
        networks = [self.student, *([self.model.network] if self.present else [])]
        self.within = sharded({network: blocks_of(network) for network in networks}, self.device)
        self.parameters = {name: self.student.get_parameter(name) for name in self.parameters}

    def teaching(self, recipe: Recipe) -> DistillationLoss:
        """Return the student and its teacher in a recipe's number format. If the source is not in memory and nothing is stored yet, cross
        entropy is used instead, because a step then takes as long."""
        if recipe.recompute:
            self.student.activation_checkpointing_enable()
        terms = terms_of(self.run.record.loss)
        teacher = self._teacher(recipe.autocast) if terms.teacher else None
        if terms.teacher and teacher is None:
            terms = terms_of("ce")
        tokens = recipe.tokens // size()  # each process trains on a part, and gradients are averaged over all
        return DistillationLoss(self.student, teacher, terms, self.plan, self.model.spec.hidden_size, tokens, recipe.autocast)

    def _teacher(self, autocast: str) -> Teacher | None:
        if self.present:
            cast(self.model.network, autocast)
            return LiveTeacher(self.model.network, autocast)
        return self.stored

    def losses(self, teaching: DistillationLoss, recipe: Recipe, step: int) -> Iterator[Callable[[], torch.Tensor]]:
        """Yield the losses of a step's passes, whose sum it minimises."""
        for part in range(recipe.accumulate):
            batch = self.reader.batch(step * recipe.accumulate + part, recipe.rows)
            rows = [own(part).to(self.device) for part in (batch.ids, batch.positions, batch.numbers) if part is not None]
            yield partial(self.within, partial(teaching, *rows))

    def missing(self, recipe: Recipe, step: int) -> dict[str, float]:
        """Return the mean probability outside the stored tokens on the rows of a step, for its metrics; {} for a live teacher."""
        if self.stored is None:
            return {}
        size = recipe.rows * recipe.accumulate
        numbers = [self.rows.number(k, recipe.seed) for k in range(step * size, (step + 1) * size)]
        return {"missing": self.stored.missing(numbers)}


def cast(network: "PreTrainedModel", autocast: str) -> None:
    """Cast a source that only teaches to the number format of the passes, permanently: nothing else in this process needs it. Buffers are
    not cast, because rotary tables need float32; neither are trained and sharded parameters."""
    if autocast and size() == 1:
        for parameter in network.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(getattr(torch, autocast))
