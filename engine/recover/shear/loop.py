"""The steps of a shearing: masks, weights and multipliers are trained together; the mix of domains follows their held-out losses."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from engine.cache import cache_folder
from engine.corpus.building import corpus
from engine.corpus.domains import RowReader, mixture
from engine.corpus.settings import WritingSettings
from engine.jobs import Job, Progress, scaled
from engine.messages import Message
from engine.methods.learned.masks import Masks
from engine.methods.learned.sheared import Masked
from engine.plans.rules import untouched
from engine.recover.distill.distillation import DistillationLoss, LiveTeacher, terms_of
from engine.recover.distill.heldout import domain_costs, held_of_domains
from engine.recover.distill.student import student_of
from engine.recover.run.learning import SAVE
from engine.recover.run.runs import Run
from engine.recover.run.settings import ShearSettings
from engine.recover.shear.domain_weighting import HELD, DomainWeighting, known_references
from engine.training.checkpoints import latest, save_checkpoint
from engine.training.loop import ExtraParameters, Learner
from engine.training.precision import quickest
from engine.training.recipe import Recipe
from engine.types import Model, Plan

WARMUP = FLOOR = 0.1  # of the published runs


def open_shearing(model: Model, run: Run, masks: Masks) -> Job["Shearing"]:
    """Open a shearing's inputs and make the initial measurements."""
    record = run.shearing
    settings, device = record.settings, model.source.device
    own = WritingSettings(settings.own, settings.seed)
    rows = yield from scaled(corpus(model, record.text, settings.length, cache_folder() / "corpus", own=own), 0.0, 0.5)
    masked = Masked(student_of(model, untouched(model.spec.depth)), masks.to(device)).train()
    for parameter in masked.projections().values():
        parameter.requires_grad_(True)
    held = held_of_domains(rows, HELD)
    if record.references is None:
        known = known_references(settings.references or {}, rows.domains)
        run.note(references=(yield from scaled(domain_costs(model.network, held, "", device), 0.5, 0.9)) | known)
    terms, recipe = terms_of(settings.loss), recipe_of(settings)
    teaching = DistillationLoss(
        masked,
        LiveTeacher(model.network, "") if terms.teacher else None,
        terms,
        untouched(model.spec.depth),
        model.spec.hidden_size,
        recipe.tokens,
    )
    weighing = DomainWeighting(run, RowReader(rows, recipe.seed, mixture(rows)), held, settings.update, settings.every)
    shearing = Shearing(model, run, settings, masked, teaching, weighing, recipe)
    if record.autocast is None:
        yield Progress(Message("Measuring a step"), 0.9)
        run.note(autocast=quickest(shearing.forth_and_back, device)[0])
    teaching.autocast = run.shearing.autocast or ""
    return shearing


def recipe_of(settings: ShearSettings) -> Recipe:
    """Return the recipe of a shearing with these settings."""
    rows, length, accumulate = settings.rows, settings.length, settings.accumulate
    steps = max(1, round(settings.tokens / (rows * length * accumulate)))
    return Recipe(steps, settings.rate, rows, length, accumulate, seed=settings.seed, warmup=WARMUP, floor=FLOOR)


@dataclass(eq=False)
class Shearing:
    """A shearing in progress."""

    model: Model
    run: Run
    settings: ShearSettings
    masked: Masked
    teaching: DistillationLoss
    weighing: DomainWeighting
    recipe: Recipe

    def __post_init__(self) -> None:
        masks, pull = self.masked.masks, self.settings.pull
        extra = [
            ExtraParameters({f"mask.{name}": one for name, one in masks.a.items()}, pull),
            ExtraParameters({f"multipliers.{name}": one for name, one in masks.multipliers.items()}, pull, upwards=True),
        ]
        self.learner = Learner(self.masked.projections(), self.recipe, extra=extra)

    def learn(self) -> Job[Plan | None]:
        """Take the remaining steps; see `shear`."""
        self._go_on()
        saved, steps = time.monotonic(), self.recipe.steps
        while self.learner.step < steps:
            if (pausing := self.run.pausing()) or time.monotonic() - saved > SAVE:
                self._save()
                saved = time.monotonic()
            if pausing:
                return None
            self._settle()
            if self.weighing.due(self.learner.step):  # after the checkpoint, so that a resumed run repeats it
                yield from self.weighing.weigh(*self._now())
            yield from self._step()
        self._save()
        self._settle()
        yield from self.weighing.look(*self._now())
        return self.masked.plan(self.model.network.dtype, self._told())

    def forth_and_back(self, autocast: str) -> None:
        """Run a pass that changes nothing."""
        self.teaching.autocast = autocast
        self._losses()[0]().backward()

    def _settle(self) -> None:
        """Make the masks exact in the last steps and afterwards."""
        steps = self.recipe.steps
        self.masked.settled = self.learner.step >= steps - round(self.settings.settle * steps)

    def _step(self) -> Job[None]:
        """Take a step and record it."""
        began, step, masks = time.perf_counter(), self.learner.step, self.masked.masks
        way, pulled = min(1.0, step / max(1.0, self.settings.ramp * self.recipe.steps)), list[float]()

        def pull() -> torch.Tensor:
            loss = masks.lagrangian(way)
            pulled.append(loss.item())
            return loss

        learned = self.learner.learn([*self._losses(), *([] if self.masked.settled else [pull])])
        step = self.learner.step
        facts = {"text": learned.loss - sum(pulled), "seconds": time.perf_counter() - began, "masks": masks.summary(way)}
        self.run.log_line({"step": step, "tokens": step * self.recipe.tokens, **asdict(learned), **facts})
        yield Progress(Message("Shearing: step {step} of {steps}", step=step, steps=self.recipe.steps), step / self.recipe.steps)

    def _losses(self) -> list[Callable[[], torch.Tensor]]:
        """Return the losses of the next step's passes."""
        recipe, device, losses = self.recipe, self.model.source.device, list[Callable[[], torch.Tensor]]()
        for part in range(recipe.accumulate):
            batch = self.weighing.reader.batch(self.learner.step * recipe.accumulate + part, recipe.rows)
            losses.append(partial(self.teaching, batch.ids.to(device), batch.positions.to(device), batch.numbers))
        return losses

    def _now(self) -> tuple[Masked, int, str, str]:
        """Return the arguments for measuring the domains."""
        return self.masked, self.learner.step, self.teaching.autocast, self.model.source.device

    def _save(self) -> None:
        save_checkpoint(self.run.steps, self.learner.step, {**self.learner.state(), **self.weighing.reader.state()})

    def _go_on(self) -> None:
        """Resume from the last checkpoint, if there is one."""
        step, state = latest(self.run.steps) or (0, {})
        if step:
            self.learner.restore(step, state)
        self.weighing.reader.restore(state)
        self.run.truncate_metrics(step)

    def _told(self) -> dict[str, Any]:
        record = self.run.shearing
        read = {"texts": ", ".join(record.text), "tokens": self.recipe.steps * self.recipe.tokens}
        return {**record.target, "loss": record.settings.loss, "seed": record.settings.seed, **read}
