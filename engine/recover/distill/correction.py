"""Teacher correction (Minitron, 2408.11796, section 3.1): a source that was not trained on such text first adapts to it, and teaches
better.

Adapters on the source learn the text by cross entropy for a share of the run's steps, and stop when the held-out loss rises. The best of
them are kept if they gain enough. Evaluation uses the unchanged source.
"""

from dataclasses import replace

import torch

from engine.corpus.domains import RowReader
from engine.jobs import Job, Progress, retold
from engine.messages import Message
from engine.plans.rules import untouched
from engine.recover.distill.student import bare, trained
from engine.recover.run.learning import learn
from engine.recover.run.records import Correction
from engine.recover.run.runs import Run
from engine.recover.run.training_context import TrainingContext, cast
from engine.training.checkpoints import about, read_tensors
from engine.training.recipe import Recipe
from engine.types import Model

GAIN = 0.01  # of the perplexity on held-out text; a source that gains less was probably trained on such text
RATE = 3e-4  # learning rate of adapters trained by cross entropy, from torchtune's distillation recipe


def corrected(school: TrainingContext, model: Model, recipe: Recipe) -> Job[bool]:
    """Train adapters of the source on the run's text, and return True; False if a pause was requested."""
    run, plan, part = school.run, untouched(model.spec.depth), school.run.part("teacher")
    adapters = trained(model.network, plan, "lora", recipe.seed)
    cast(model.network, recipe.autocast)
    if run.record.correction is None:
        part.keep(replace(run.record, loss="ce", until=None, rising=True))
        own = replace(recipe, steps=share_of(recipe, run.record.correct_teacher), rate=RATE)
        reading = TrainingContext(part, model, plan, RowReader(school.rows, recipe.seed), model.network.train(), adapters, school.held)
        if (yield from retold(learn(reading, own), _told)) == "paused":
            return False
        run.note(correction=_gained(part))
    correction = run.record.correction
    if correction is not None and correction.used:
        best = read_tensors(part.best)
        with torch.no_grad():
            for name, parameter in adapters.items():
                parameter.copy_(best[name])
    else:
        bare(model.network)
    model.network.eval().requires_grad_(False)
    return True


def share_of(recipe: Recipe, share: float) -> int:
    """Return the source's steps, given the student's steps after this share of the budget was subtracted."""
    return max(1, round(recipe.steps * share / (1 - share)))


def _told(step: Progress) -> Progress:
    return Progress(Message("The source reads the text: {label}", label=step.label), 0.0)


def _gained(part: Run) -> Correction:
    """Return the result of the correction: perplexity on held-out text before and after, and the budget used."""
    lines, best = part.lines(), int(about(part.best)["step"])
    taken = [line for line in lines if "loss" in line]
    look = next(line for line in lines if "kind" in line and line["step"] == best)
    tokens, seconds = taken[-1]["tokens"], round(sum(line["seconds"] for line in taken), 1)
    before, after, ratio = (look["kind"][name] for name in ("source", "perplexity", "ratio"))
    return Correction(before, after, ratio, best, tokens, seconds, used=ratio < 1 - GAIN)
