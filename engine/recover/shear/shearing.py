"""Learn which parts of a model to remove while its weights are trained (see engine/methods/learned/sheared.py): a run of steps in its own
folder, resumable at any step, that ends with a plan.

Three groups are trained on the same schedule: the projections' weights, the masks, and, by gradient ascent, the multipliers. The held-out
loss of each domain determines how much of it is read next (see engine/corpus/domains.py). In the last steps the masks are exactly those of
the plan and only weights are trained, so that the result is what was trained last.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import LayerscopeError, SettingsError, TrainingError
from engine.jobs import Job, answer_request, scaled
from engine.methods.learned.masks import Masks
from engine.methods.learned.target import kinds_between, wanted_shape
from engine.models.loading import open_model
from engine.models.shapes import shape_of
from engine.plans.bundle import write_bundle
from engine.plans.files import plan_to_json, signed
from engine.plans.rules import untouched
from engine.recover.distill.distillation import terms_of
from engine.recover.run.records import ShearingRecord
from engine.recover.run.run_process import apart
from engine.recover.run.runs import Run
from engine.recover.run.settings import ShearSettings
from engine.recover.run.start import make_folder, require_texts
from engine.recover.shear.loop import open_shearing
from engine.training.checkpoints import checkpoints
from engine.types import Model, Plan


def begin_shearing(model: Model, target: Mapping[str, int], texts: Sequence[str], settings: ShearSettings, folder: Path) -> Run:
    """Write a run's folder; an existing run of the same shearing is continued.

    Raises:
        TrainingError: the folder contains another shearing, or cannot be created.
        TextError: a text is missing.
        SettingsError, PlanError: the settings or the target are invalid.
    """
    wanted_shape(model.config, target)
    if terms_of(settings.checked().loss).states:
        raise SettingsError(
            "'{loss}' compares hidden states, which is impossible while masks change them; choose ce, kl or a sum of the two",
            loss=settings.loss,
        )
    require_texts(texts)
    asked = ShearingRecord(model.fingerprint, dict(target), tuple(texts), settings, model.spec.name, model.source, model.spec.depth)
    run = Run(folder)
    if not (folder / "run.json").exists():
        make_folder(folder)
        run.keep(asked)
    with run.held():
        there = run.about
        if not isinstance(there, ShearingRecord) or there.asks() != asked.asks():
            if checkpoints(run.steps):
                raise TrainingError(
                    "{folder} contains a shearing run with other settings; name another file, or delete the folder", folder=folder
                )
            run.keep(asked)
    return run


def shear(model: Model, run: Run) -> Job[Plan | None]:
    """Continue a shearing to its end or to a pause; return the plan, or None for a pause. If the target is the whole model, nothing is
    trained.

    Raises:
        LayerscopeError: the text or the machine is unsuitable; the error is stored in the folder too.
    """
    kinds = kinds_between(shape_of(model.config), wanted_shape(model.config, run.shearing.target))
    if not kinds:
        return untouched(model.spec.depth)
    with run.held():
        run.begin()
        try:
            shearing = yield from scaled(open_shearing(model, run, Masks(kinds, run.shearing.settings.seed)), 0.0, 0.1)
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
        yield from apart(run, "engine.recover.shear.shearing")
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
    if model.fingerprint != run.shearing.shear:
        raise TrainingError(
            "the source of {folder} has changed since the run started; restore the source, or start another run", folder=run.folder
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


if __name__ == "__main__":
    answer_request(answer)
