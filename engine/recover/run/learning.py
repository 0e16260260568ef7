"""The steps of a run: measuring a step's time, taking the steps, evaluating held-out text, saving checkpoints."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial

import torch

from engine.jobs import Job, Progress, retold
from engine.messages import Message
from engine.models.devices import peak_bytes
from engine.recover.distill.distillation import DistillationLoss
from engine.recover.distill.heldout import HeldOut, gaps
from engine.recover.distill.samples import spoken
from engine.recover.distill.student import zeros_of
from engine.recover.run.training_context import TrainingContext
from engine.training.checkpoints import about, latest, save_checkpoint, write_tensors
from engine.training.loop import Learner
from engine.training.parallel import agreed, first, whole
from engine.training.precision import quickest
from engine.training.recipe import Recipe

LOOKS = 20  # most evaluations during a run, in addition to the first and the last
LOOKING = 0.2  # most time for all evaluations, as a share of training time
_PASSES = 4  # cost of a trained token relative to an evaluated one: forward, backward (two), and the source's
LOOK_TOKENS = 2000  # of each of the two texts
SAVE = 120.0  # seconds between two checkpoints


def settled(school: TrainingContext) -> Job[Recipe]:
    """Return a run's recipe: as stored in run.json, or else chosen and measured now, and stored.

    The faster of two number formats is chosen. Then a few steps at learning rate 0 measure time and memory, which gives the number of steps
    in a budget of minutes.
    """
    run, record = school.run, school.run.record
    if record.recipe is not None:
        return record.recipe
    yield Progress(Message("Measuring a step"), 0.1)
    asked = record.asked
    teaching = school.teaching(asked)
    (loss,) = list(school.losses(teaching, replace(asked, accumulate=1), 0))

    def forth_and_back(autocast: str) -> None:
        teaching.autocast = autocast
        loss().backward()

    recipe = replace(asked, autocast=agreed(quickest(forth_and_back, school.device)[0]))
    teaching, learner, took = school.teaching(recipe), Learner(school.parameters, replace(recipe, rate=0.0)), []
    for step in range(3):
        began = time.perf_counter()
        learner.learn(school.losses(teaching, recipe, step))
        took.append(time.perf_counter() - began)
        yield Progress(Message("Measuring a step"), 0.1)
    seconds, budget = statistics.median(took), record.budget
    steps = budget["tokens"] / recipe.tokens if "tokens" in budget else budget["minutes"] * 60 / seconds
    recipe = replace(recipe, steps=max(1, round(steps * (1 - record.correct_teacher))))
    run.note(recipe=recipe, seconds_a_step=seconds, memory=peak_bytes(school.device))
    return agreed(recipe)


def learn(school: TrainingContext, recipe: Recipe) -> Job[str]:
    """Take the remaining steps; return "paused", or "learned" at the end of the budget, at the requested ratio, or when finishing is
    requested."""
    run, teaching = school.run, school.teaching(recipe)
    learner = Learner(_with_chart(school.parameters, teaching), recipe, zeros_of(school.student, school.plan, school.parameters))

    def state() -> dict[str, torch.Tensor]:
        return {**learner.state(), **school.reader.state()}

    step, there = latest(run.steps, state) or (0, {})
    if step:
        learner.restore(step, there)
    school.reader.restore(there)
    run.truncate_metrics(step)
    looker = Looker(school, recipe, learner)
    saved = time.monotonic()
    while True:
        done, last = learner.step / recipe.steps, learner.step == recipe.steps or agreed(run.finishing())
        if learner.step % looker.every == 0 or last:
            reached = yield from retold(looker.look(), partial(_at, done))
            if reached or last:
                save_checkpoint(run.steps, learner.step, state())
                return "learned"
        pausing, due = agreed((run.pausing(), time.monotonic() - saved > SAVE))
        if pausing or due:
            save_checkpoint(run.steps, learner.step, state())
            saved = time.monotonic()
        if pausing:
            return "paused"
        if school.weighing and school.weighing.due(learner.step):  # after the checkpoint, so that a resumed run repeats it
            yield from retold(
                school.weighing.weigh(school.student, learner.step, recipe.autocast, school.device, school.within), partial(_at, done)
            )
        began = time.perf_counter()
        learned = learner.learn(school.losses(teaching, recipe, learner.step))
        seconds, aside = time.perf_counter() - began, school.missing(recipe, learner.step - 1)
        run.log_line({"step": learner.step, "tokens": learner.step * recipe.tokens, **asdict(learned), "seconds": seconds, **aside})
        yield Progress(Message("Training: step {step} of {steps}", step=learner.step, steps=recipe.steps), learner.step / recipe.steps)


def _at(done: float, step: Progress) -> Progress:
    return Progress(step.label, done)


def _with_chart(parameters: Mapping[str, torch.nn.Parameter], teaching: DistillationLoss) -> dict[str, torch.nn.Parameter]:
    return {**parameters, **({} if teaching.chart is None else {"chart": teaching.chart})}


def looks(held: Mapping[str, HeldOut]) -> dict[str, HeldOut]:
    """Return the beginnings of the held-out texts, used for evaluations during a run."""
    return {name: texts.first(LOOK_TOKENS) for name, texts in held.items()}


class Looker:
    """Evaluates held-out text in a run's own number format, and saves the trained weights whenever the held-out loss of the training kind
    is lowest: there the result is never worse than the start."""

    def __init__(self, school: TrainingContext, recipe: Recipe, learner: Learner) -> None:
        self._school, self._recipe, self._learner = school, recipe, learner
        self._held, self._source = looks(school.held), school.run.record.quick_scores or {}
        cost = sum(pack.ids.numel() for texts in self._held.values() for pack in texts.packs) / (_PASSES * recipe.tokens)  # in steps
        self.every = max(1, recipe.steps // LOOKS, min(recipe.steps, round(cost / LOOKING)))

    def look(self) -> Job[bool]:
        """Measure both gaps and generate a sample; return whether the requested ratio is reached, or the ratio rises in a run that ends
        then."""
        run, school, autocast = self._school.run, self._school, self._recipe.autocast
        began = time.perf_counter()
        found = yield from gaps(school.student, self._held, self._source, autocast, school.device, school.within)
        record, before = run.record, [line["kind"]["ratio"] for line in run.lines() if "kind" in line]
        facts = {**{name: asdict(one) for name, one in found.items()}, "spoken": spoken(school)}
        run.log_line({"step": self._learner.step, **facts, "seconds": time.perf_counter() - began})
        ratio, until = found["kind"].ratio, record.until
        if agreed(ratio < self._best()):
            weights = {name: whole(tensor) for name, tensor in self._learner.weights().items()}
            if first():
                write_tensors(run.best, weights, {"step": str(self._learner.step), "ratio": repr(ratio)})
        rises = bool(record.rising and before and ratio > before[-1])
        return agreed(rises or (until is not None and ratio <= until))

    def _best(self) -> float:
        run = self._school.run
        return float(about(run.best)["ratio"]) if run.best.exists() else float("inf")
