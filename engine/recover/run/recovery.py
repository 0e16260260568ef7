"""Recover a pruned model by training: a run from opening the model to its best weights, resumable at any step.

Run as `python -m engine.recover.run.recovery`: its memory is freed when the process exits, and a crash can be reported and resumed.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from engine.cache import cache_folder, plain
from engine.corpus.building import corpus
from engine.corpus.domains import RowReader, mixture
from engine.corpus.rows import Rows
from engine.errors import LayerscopeError, TrainingError
from engine.jobs import Job, Progress, answer_request, retold, scaled
from engine.messages import Message
from engine.models.devices import free_bytes
from engine.models.inspection import read_config
from engine.models.loading import open_model, resolve
from engine.passes.probe import logits_on, probing, write_probe
from engine.plans.live import live_network
from engine.recover.distill.distillation import require_shareable, terms_of
from engine.recover.distill.heldout import Gap, HeldOut, gaps, held_of_domains, held_texts, likelihoods
from engine.recover.distill.preparation import prepared
from engine.recover.distill.student import merged, student_of, trained
from engine.recover.run.learning import learn, settled
from engine.recover.run.memory_estimate import room, way_to_teach
from engine.recover.run.runs import Run
from engine.recover.run.tracking import tracked
from engine.recover.run.training_context import TrainingContext
from engine.recover.shear.domain_weighting import HELD, DomainWeighting
from engine.training import parallel
from engine.training.checkpoints import about, read_tensors
from engine.types import Model, Plan

JUDGE_TOKENS = 6000  # of each held-out text, before and after


def recover(request: dict[str, Any]) -> Job[dict[str, Any]]:
    """Continue the run in a folder to its end or to a pause. Return its state and, at the end, the gaps before and after; the weights are
    in the folder `weights`.

    Raises:
        LayerscopeError: the request, the text or the machine is unsuitable; the error is stored in the folder too.
    """
    run = Run(Path(request["folder"]))
    with run.held():
        run.begin()
        try:
            with tracked(run):
                state = yield from scaled(_learned(run), 0.0, 0.95)
            finishes = state == "learned" and parallel.first()
            return {"state": state, **((yield from scaled(_finished(run), 0.95, 1.0)) if finishes else {})}
        except LayerscopeError as error:
            run.failed(error.message)
            raise


@dataclass(frozen=True, eq=False, slots=True)
class _Opened:
    """A run's inputs: the source, the plan, the text, and the held-out texts."""

    model: Model
    plan: Plan
    rows: Rows
    held: Mapping[str, HeldOut]


def _opened(run: Run) -> Job[_Opened]:
    """Open a run's inputs.

    Raises:
        TrainingError: the source or the text has changed since the run began.
        TextError: the text is shorter than a batch, or all of it is held out.
    """
    record = run.record
    model = yield from scaled(open_model(run.source), 0.0, 0.5)
    plan = run.plan()
    asked = record.asked
    rows = yield from scaled(corpus(model, record.text, asked.length, cache_folder() / "corpus", own=record.own), 0.5, 1.0)
    rows.batch(0, asked.rows, asked.seed)
    if record.fingerprint not in (None, model.fingerprint):
        raise TrainingError(
            "the source of {folder} has changed since the run started; restore the source, or start another run", folder=run.folder
        )
    if record.corpus not in (None, rows.fingerprint):
        raise TrainingError(
            "the text of {folder} has changed since the run started; restore the text, or start another run", folder=run.folder
        )
    run.note(fingerprint=model.fingerprint, corpus=rows.fingerprint)
    return _Opened(model, plan, rows, held_texts(model, rows.held_out(JUDGE_TOKENS), record.language, JUDGE_TOKENS))


def _learned(run: Run) -> Job[str]:
    """Train until the budget is spent or a pause is requested; return "learned" or "paused"."""
    yield from _fits(run)
    with parallel.turn():
        opened = yield from scaled(_opened(run), 0.0, 0.05)
        if parallel.first() and run.record.before is None:
            yield from scaled(_judged(run, opened), 0.05, 0.1)
    record, student = run.record, student_of(opened.model, opened.plan)
    if record.teacher == "stored":
        opened.model.network = None
    parameters = trained(student, opened.plan, record.train, record.asked.seed)
    weighing = _weighing(run, opened.rows)
    reader = weighing.reader if weighing else RowReader(opened.rows, record.asked.seed)
    school = TrainingContext(run, opened.model, opened.plan, reader, student, parameters, opened.held, weighing=weighing)
    if parallel.size() > 1:
        school.share()
    waits = record.measure and record.recipe is None
    recipe = yield from settled(school)
    if waits or not (yield from retold(prepared(school, recipe), lambda step: Progress(step.label, 0.1))):
        return "paused"
    parallel.wait()
    return (yield from scaled(learn(school, recipe), 0.1, 1.0))


def _weighing(run: Run, rows: Rows) -> DomainWeighting | None:
    """Return the reweighting of domains by cost, starting from equal shares; None if domains alternate."""
    record, parts = run.record, len(rows.domains)
    if record.update == "none" or parts == 1:
        return None
    reader = RowReader(rows, record.asked.seed, mixture(rows, (1.0,) * parts))
    return DomainWeighting(run, reader, held_of_domains(rows, HELD), record.update, record.every)


def _fits(run: Run) -> Job[None]:
    """Check that training fits in memory before anything is loaded, and record whether the source can stay."""
    record = run.record
    source, plan = run.source, run.plan()
    require_shareable(parallel.size(), record.asked.rows, terms_of(record.loss), plan, record.correct_teacher)
    folder, spec = yield from resolve(source)
    needed = room(read_config(folder, source.trust_remote_code), spec, plan, record.train, source.trust_remote_code)
    storable = not terms_of(record.loss).states and record.update == "none"
    if source.device.startswith("cuda"):
        needed = needed.shared(parallel.size())
    run.note(teacher=way_to_teach(needed, free_bytes(source.device), record.teacher, storable))
    parallel.wait()


def _judged(run: Run, opened: _Opened) -> Job[None]:
    """Record the scores of source and plan on the held-out texts before training, in the source's number format."""
    scores, device = {}, opened.model.source.device
    for name, texts in opened.held.items():
        scores[name] = yield from likelihoods(opened.model.network, texts, device=device)
    before = yield from gaps(live_network(opened.model, opened.plan), opened.held, scores, device=device)
    run.note(source_scores=scores, before=before)


def _finished(run: Run) -> Job[dict[str, Any]]:
    """Write a run's best weights as stock weights and evaluate them as written. The plan's own weights are written if those are better, in
    the source's number format and on more text than during the run."""
    opened = yield from scaled(_opened(run), 0.0, 0.3)
    model, scores, before = opened.model, run.record.source_scores, run.record.before
    assert scores is not None
    assert before is not None
    network, best = _stock(opened, run, read_tensors(run.best)), int(about(run.best)["step"])
    after = yield from gaps(network, opened.held, scores, device=model.source.device)
    if not after["kind"].ratio <= before["kind"].ratio:
        network, best = _stock(opened, run, {}), 0
        after = yield from gaps(network, opened.held, scores, device=model.source.device)
    yield Progress(Message("Writing the weights"), 0.9)
    network.save_pretrained(run.weights)
    run.note(best=best, after=after)
    aside = run.probe.with_name(".probe")
    write_probe(logits_on(network.to("cpu"), probing(model.tokenizer, network.config)), aside)
    os.replace(aside, run.probe)  # the probe marks everything else as complete
    return {"best": best, "before": _told(before), "after": _told(after)}


@torch.no_grad()
def _stock(opened: _Opened, run: Run, learned: Mapping[str, torch.Tensor]) -> Any:
    """Return a plan's network with the trained weights, as stock weights in the source's number format, in evaluation mode."""
    record, model = run.record, opened.model
    network = student_of(model, opened.plan)
    for name, parameter in trained(network, opened.plan, record.train, record.asked.seed).items():
        if name in learned:
            parameter.copy_(learned[name])
    network = merged(network).eval()
    for parameter in network.parameters():
        parameter.data = parameter.data.to(getattr(torch, model.spec.dtype))
    return network


def _told(found: Mapping[str, Gap]) -> dict[str, dict[str, Any]]:
    return {name: plain(asdict(one)) for name, one in found.items()}


if __name__ == "__main__":
    answer_request(recover)
