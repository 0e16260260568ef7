"""A model learns which parts to leave out while its weights learn what is left (see engine/methods/sheared.py): a run of steps in a folder
of its own, resumable at any of them, that ends with a plan.

Three groups learn along one course: the weights of the projections, the masks, and, upwards, the multipliers. What the text of each domain
has cost so far says how much of it is read next (see engine/corpus/domains.py). In the last steps the masks are the exact ones that the
plan will have, and only weights learn: so what was trained last is what comes out.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.cache import cache_folder
from engine.corpus.building import corpus
from engine.corpus.domains import Mixture, mixed_batch, mixture, reweighted
from engine.corpus.rows import Rows
from engine.corpus.settings import WritingSettings
from engine.errors import LayerscopeError, SettingsError, TrainingError
from engine.jobs import Job, Progress, scaled
from engine.methods.hard_concrete import Masks
from engine.methods.sheared import Masked, kinds_between, wanted_shape
from engine.models.shapes import shape_of
from engine.plans.rules import untouched
from engine.recover.beginning import make_folder, require_texts
from engine.recover.gauge import Held, held_packs, likelihoods
from engine.recover.learning import SAVE
from engine.recover.runs import Run
from engine.recover.settings import ShearSettings
from engine.recover.students import student_of
from engine.recover.teaching import Present, Teaching, terms_of
from engine.training.checkpoints import checkpoints, latest, save_checkpoint
from engine.training.loop import Beside, Learner
from engine.training.precision import quickest
from engine.training.recipe import Recipe
from engine.types import Model, Plan

WARMUP = FLOOR = 0.1  # of the published runs
HELD = 2000  # tokens that are held out of each domain


def begin_shearing(model: Model, target: Mapping[str, int], texts: Sequence[str], settings: ShearSettings, folder: Path) -> Run:
    """Write a run's folder; one in which the same has learned already is gone on with.

    Raises:
        TrainingError: another shearing has learned in it, or it cannot be made. TextError: a text is missing.
        SettingsError, PlanError: what is asked for makes no sense.
    """
    wanted_shape(model.config, target)
    if terms_of(settings.checked().loss).states:
        raise SettingsError(f"'{settings.loss}' compares states, which masks change; choose ce, kl or a sum of them")
    require_texts(texts)
    asked = {"shear": model.fingerprint, "target": dict(target), "text": list(texts), "settings": asdict(settings)}
    run = Run(folder)
    if not (folder / "run.json").exists():
        make_folder(folder)
        run.note(**asked)
    with run.held():
        if json.loads(json.dumps(asked)) != {key: run.record.get(key) for key in asked}:
            if checkpoints(run.steps):
                raise TrainingError(f"{folder} is the run of another shearing; name another file, or remove the folder")
            (folder / "run.json").unlink()
            run.note(**asked)
    return run


def shear(model: Model, run: Run) -> Job[Plan | None]:
    """Go on with a shearing to its end or to a pause; return the plan, None for a pause. A target that is the whole model is met already.

    Raises:
        LayerscopeError: what is wrong with the text or the machine; it is kept in the folder too.
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
            run.failed(str(error))
            raise


def _opened(model: Model, run: Run, masks: Masks) -> Job["Shearing"]:
    """Open all that a shearing works with, and measure what only the beginning can."""
    record = run.record
    settings, device = ShearSettings(**record["settings"]), model.source.device
    own = WritingSettings(settings.own, settings.seed)
    rows = yield from scaled(corpus(model, record["text"], settings.length, cache_folder() / "corpus", own=own), 0.0, 0.5)
    masked = Masked(student_of(model, untouched(model.spec.depth)), masks.to(device)).train()
    for parameter in masked.projections().values():
        parameter.requires_grad_(True)
    held = {name: held_packs(rows.of(name).held_out(HELD)) for name in rows.domains}
    if "references" not in record:
        known = _known(settings.references or {}, held)
        run.note(references=(yield from scaled(_costs(model.network, held, "", device), 0.5, 0.9)) | known)
    terms, recipe = terms_of(settings.loss), _recipe(settings)
    teaching = Teaching(
        masked,
        Present(model.network, "") if terms.teacher else None,
        terms,
        untouched(model.spec.depth),
        model.spec.hidden_size,
        recipe.tokens,
    )
    shearing = Shearing(model, run, settings, rows, masked, teaching, held, recipe)
    if "autocast" not in record:
        yield Progress("Measuring a step", 0.9)
        run.note(autocast=quickest(shearing.forth_and_back, device)[0])
    teaching.autocast = run.record["autocast"]
    return shearing


def _recipe(settings: ShearSettings) -> Recipe:
    rows, length, accumulate = settings.rows, settings.length, settings.accumulate
    steps = max(1, round(settings.tokens / (rows * length * accumulate)))
    return Recipe(steps, settings.rate, rows, length, accumulate, seed=settings.seed, warmup=WARMUP, floor=FLOOR)


def _costs(network: Any, held: Mapping[str, Held], autocast: str, device: str) -> Job[dict[str, float]]:
    """Return the mean loss, in nats a token, on the text that is held out of each domain."""
    found = {}
    for name, texts in held.items():
        sums = yield from likelihoods(network, texts, autocast, device)
        found[name] = sum(loss for _, _, loss in sums) / sum(tokens for _, tokens, _ in sums)
    return found


def _known(references: Mapping[str, float], held: Mapping[str, Held]) -> dict[str, float]:
    if unknown := sorted(set(references) - set(held)):
        raise SettingsError(f"there is no domain '{unknown[0]}' in the text; its domains are {', '.join(held)}")
    return dict(references)


@dataclass(eq=False)
class Shearing:
    """A shearing under way."""

    model: Model
    run: Run
    settings: ShearSettings
    rows: Rows
    masked: Masked
    teaching: Teaching
    held: Mapping[str, Held]
    recipe: Recipe

    def __post_init__(self) -> None:
        masks, pull = self.masked.masks, self.settings.pull
        beside = [
            Beside({f"mask.{name}": one for name, one in masks.a.items()}, pull),
            Beside({f"multipliers.{name}": one for name, one in masks.multipliers.items()}, pull, upwards=True),
        ]
        self.learner = Learner(self.masked.projections(), self.recipe, beside=beside)
        self.mix = mixture(self.rows)

    def learn(self) -> Job[Plan | None]:
        """Take the steps that are left; see `shear`."""
        self._go_on()
        saved, steps = time.monotonic(), self.recipe.steps
        while self.learner.step < steps:
            if (pausing := self.run.pausing()) or time.monotonic() - saved > SAVE:
                self._save()
                saved = time.monotonic()
            if pausing:
                return None
            self._settle()
            if self.learner.step and self.learner.step % self.settings.every == 0:  # after the checkpoint: who goes on looks again
                costs, references = (yield from self._look()), self.run.record["references"]
                self.mix = reweighted(self.mix, [*costs.values()], [references[name] for name in costs], self.settings.update)
            yield from self._step()
        self._save()
        self._settle()
        yield from self._look()
        return self.masked.plan(self.model.network.dtype, self._told())

    def forth_and_back(self, autocast: str) -> None:
        """Run a pass that changes nothing."""
        self.teaching.autocast = autocast
        self._read()[0][0]().backward()

    def _settle(self) -> None:
        """Make the masks exact in the last steps, and after them."""
        steps = self.recipe.steps
        self.masked.settled = self.learner.step >= steps - round(self.settings.settle * steps)

    def _step(self) -> Job[None]:
        """Take a step, and tell of it."""
        began, step, masks = time.perf_counter(), self.learner.step, self.masked.masks
        way, pulled = min(1.0, step / max(1.0, self.settings.ramp * self.recipe.steps)), list[float]()

        def pull() -> torch.Tensor:
            loss = masks.lagrangian(way)
            pulled.append(loss.item())
            return loss

        losses, mix = self._read()
        learned = self.learner.learn([*losses, *([] if self.masked.settled else [pull])])
        self.mix, step = mix, self.learner.step
        told = {"text": learned.loss - sum(pulled), "seconds": time.perf_counter() - began, "masks": masks.told(way)}
        self.run.tell({"step": step, "tokens": step * self.recipe.tokens, **asdict(learned), **told})
        yield Progress(f"Shearing: step {step} of {self.recipe.steps}", step / self.recipe.steps)

    def _read(self) -> tuple[list[Callable[[], torch.Tensor]], Mixture]:
        """Return the losses of the next step's passes, and the mixture after them."""
        recipe, device, mix, losses = self.recipe, self.model.source.device, self.mix, list[Callable[[], torch.Tensor]]()
        for part in range(recipe.accumulate):
            batch, mix = mixed_batch(self.rows, mix, self.learner.step * recipe.accumulate + part, recipe.rows, recipe.seed)
            losses.append(partial(self.teaching, batch.ids.to(device), batch.positions.to(device), batch.numbers))
        return losses, mix

    def _look(self) -> Job[dict[str, float]]:
        """Return what the text that is held out of each domain costs, and tell of it."""
        found = yield from _costs(self.masked, self.held, self.teaching.autocast, self.model.source.device)
        references, shares = self.run.record["references"], dict(zip(self.mix.domains, self.mix.proportions, strict=True))
        told = {name: {"cost": found[name], "reference": references[name], "proportion": shares[name]} for name in found}
        self.run.tell({"step": self.learner.step, "domains": told})
        return found

    def _save(self) -> None:
        mix = {"proportions": torch.tensor(self.mix.proportions, dtype=torch.float64), "read": torch.tensor(self.mix.read)}
        save_checkpoint(
            self.run.steps, self.learner.step, {**self.learner.state(), **{f"mixture.{name}": one for name, one in mix.items()}}
        )

    def _go_on(self) -> None:
        """Go on from the last checkpoint, where there is one."""
        if (there := latest(self.run.steps)) is not None:
            self.learner.restore(*there)
            shares, read = (tuple(there[1][f"mixture.{name}"].tolist()) for name in ("proportions", "read"))
            self.mix = replace(self.mix, proportions=shares, read=read)
        self.run.back_to(self.learner.step)

    def _told(self) -> dict[str, Any]:
        record = self.run.record
        read = {"texts": ", ".join(record["text"]), "tokens": self.recipe.steps * self.recipe.tokens}
        return {**record["target"], "loss": record["settings"]["loss"], "seed": record["settings"]["seed"], **read}
