"""Learn which parts of a model to remove while its weights are trained (see engine/methods/sheared.py): a run of steps in its own folder,
resumable at any step, that ends with a plan.

Three groups are trained on the same schedule: the projections' weights, the masks, and, by gradient ascent, the multipliers. The held-out
loss of each domain determines how much of it is read next (see engine/corpus/domains.py). In the last steps the masks are exactly those of
the plan and only weights are trained, so that the result is what was trained last.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.cache import cache_folder
from engine.corpus.building import corpus
from engine.corpus.domains import Reader, mixture
from engine.corpus.settings import WritingSettings
from engine.errors import LayerscopeError, SettingsError, TrainingError
from engine.jobs import Job, Progress, answer_request, scaled
from engine.messages import Message
from engine.methods.hard_concrete import Masks
from engine.methods.sheared import Masked, kinds_between, wanted_shape
from engine.models.loading import open_model
from engine.models.shapes import shape_of
from engine.plans.bundle import write_bundle
from engine.plans.files import plan_to_json, signed
from engine.plans.rules import untouched
from engine.recover.distillation import Present, Teaching, terms_of
from engine.recover.domain_weighting import HELD, Weighing, known_references
from engine.recover.heldout import domain_costs, held_of_domains
from engine.recover.learning import SAVE
from engine.recover.run_process import apart
from engine.recover.runs import Run
from engine.recover.settings import ShearSettings
from engine.recover.start import make_folder, require_texts
from engine.recover.student import student_of
from engine.training.checkpoints import checkpoints, latest, save_checkpoint
from engine.training.loop import Beside, Learner
from engine.training.precision import quickest
from engine.training.recipe import Recipe
from engine.types import Model, Plan

WARMUP = FLOOR = 0.1  # of the published runs


def begin_shearing(model: Model, target: Mapping[str, int], texts: Sequence[str], settings: ShearSettings, folder: Path) -> Run:
    """Write a run's folder; an existing run of the same shearing is continued.

    Raises:
        TrainingError: the folder contains another shearing, or cannot be created.
        TextError: a text is missing.
        SettingsError, PlanError: the settings or the target are invalid.
    """
    wanted_shape(model.config, target)
    if terms_of(settings.checked().loss).states:
        raise SettingsError("'{loss}' compares states, which masks change; choose ce, kl or a sum of them", loss=settings.loss)
    require_texts(texts)
    asked = {"shear": model.fingerprint, "target": dict(target), "text": list(texts), "settings": asdict(settings)}
    about = {"name": model.spec.name, "source": asdict(model.source), "depth": model.spec.depth}
    run = Run(folder)
    if not (folder / "run.json").exists():
        make_folder(folder)
        run.note(**asked, **about)
    with run.held():
        if json.loads(json.dumps(asked)) != {key: run.record.get(key) for key in asked}:
            if checkpoints(run.steps):
                raise TrainingError("{folder} is the run of another shearing; name another file, or remove the folder", folder=folder)
            (folder / "run.json").unlink()
            run.note(**asked, **about)
    return run


def shear(model: Model, run: Run) -> Job[Plan | None]:
    """Continue a shearing to its end or to a pause; return the plan, or None for a pause. If the target is the whole model, nothing is
    trained.

    Raises:
        LayerscopeError: the text or the machine is unsuitable; the error is stored in the folder too.
    """
    kinds = kinds_between(shape_of(model.config), wanted_shape(model.config, run.record["target"]))
    if not kinds:
        return untouched(model.spec.depth)
    with run.held():
        run.begin()
        try:
            shearing = yield from scaled(_opened(model, run, Masks(kinds, run.record["settings"]["seed"])), 0.0, 0.1)
            return (yield from scaled(shearing.learn(), 0.1, 1.0))
        except LayerscopeError as error:
            run.failed(error.message)
            raise


def sheared(run: Run) -> Job[None]:
    """Continue a shearing in a separate process to its end, when the plan is in the run's folder, or to a pause.

    Raises:
        LayerscopeError: the run failed; the error is stored in its folder, and it can be resumed.
    """
    try:
        yield from apart(run, "engine.recover.shearing")
    except LayerscopeError as error:
        if run.state != "running":
            run.failed(error.message)
        raise


def answer(request: dict[str, Any]) -> Job[dict[str, Any]]:
    """Open the source of the shearing in a folder and continue it; at the end the folder contains its plan, complete or not at all.

    Raises:
        LayerscopeError: as `shear`, or the source has changed since the run began.
    """
    run = Run(Path(request["folder"]))
    model = yield from scaled(open_model(run.source), 0.0, 0.05)
    if model.fingerprint != run.record["shear"]:
        raise TrainingError(
            "the source of {folder} has changed since it began; put back what was there, or begin another run", folder=run.folder
        )
    plan = yield from scaled(shear(model, run), 0.05, 1.0)
    if plan is not None:
        keep_plan(run, plan, model)
    return {"state": "paused" if plan is None else "done"}


def keep_plan(run: Run, plan: Plan, model: Model) -> None:
    """Write the plan of a finished shearing to its run's folder atomically, and remove the files that only an unfinished run needs."""
    aside = run.folder / "plan.part"
    write_bundle(signed(plan_to_json(plan), model), plan.tensors, aside)
    os.replace(aside, run.plan_file)
    run.tidy()


def _opened(model: Model, run: Run, masks: Masks) -> Job["Shearing"]:
    """Open a shearing's inputs and make the initial measurements."""
    record = run.record
    settings, device = ShearSettings(**record["settings"]), model.source.device
    own = WritingSettings(settings.own, settings.seed)
    rows = yield from scaled(corpus(model, record["text"], settings.length, cache_folder() / "corpus", own=own), 0.0, 0.5)
    masked = Masked(student_of(model, untouched(model.spec.depth)), masks.to(device)).train()
    for parameter in masked.projections().values():
        parameter.requires_grad_(True)
    held = held_of_domains(rows, HELD)
    if "references" not in record:
        known = known_references(settings.references or {}, rows.domains)
        run.note(references=(yield from scaled(domain_costs(model.network, held, "", device), 0.5, 0.9)) | known)
    terms, recipe = terms_of(settings.loss), recipe_of(settings)
    teaching = Teaching(
        masked,
        Present(model.network, "") if terms.teacher else None,
        terms,
        untouched(model.spec.depth),
        model.spec.hidden_size,
        recipe.tokens,
    )
    weighing = Weighing(run, Reader(rows, recipe.seed, mixture(rows)), held, settings.update, settings.every)
    shearing = Shearing(model, run, settings, masked, teaching, weighing, recipe)
    if "autocast" not in record:
        yield Progress(Message("Measuring a step"), 0.9)
        run.note(autocast=quickest(shearing.forth_and_back, device)[0])
    teaching.autocast = run.record["autocast"]
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
    teaching: Teaching
    weighing: Weighing
    recipe: Recipe

    def __post_init__(self) -> None:
        masks, pull = self.masked.masks, self.settings.pull
        extra = [
            Beside({f"mask.{name}": one for name, one in masks.a.items()}, pull),
            Beside({f"multipliers.{name}": one for name, one in masks.multipliers.items()}, pull, upwards=True),
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
        self.run.back_to(step)

    def _told(self) -> dict[str, Any]:
        record = self.run.record
        read = {"texts": ", ".join(record["text"]), "tokens": self.recipe.steps * self.recipe.tokens}
        return {**record["target"], "loss": record["settings"]["loss"], "seed": record["settings"]["seed"], **read}


if __name__ == "__main__":
    answer_request(answer)
