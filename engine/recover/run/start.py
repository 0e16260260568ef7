"""Start a run: check its settings and write its folder before anything slow begins."""

import os
from collections.abc import Sequence
from pathlib import Path

from engine.corpus.building import SELF
from engine.corpus.reading import content_of
from engine.corpus.settings import WritingSettings
from engine.errors import SettingsError, TrainingError
from engine.plans.bundle import write_bundle
from engine.plans.description import require_depth, weigh
from engine.plans.files import plan_to_json
from engine.plans.rules import untouched
from engine.recover.distill.distillation import Terms, default_terms, require_teachable, terms_of
from engine.recover.distill.student import require_trainable
from engine.recover.run.records import LearningRecord, Trained
from engine.recover.run.runs import Run
from engine.recover.run.settings import RecoverySettings
from engine.recover.run.tracking import require_tracker
from engine.training.recipe import Recipe
from engine.types import ModelSource, ModelSpec, Plan


def begin(source: ModelSource, spec: ModelSpec, plan: Plan, texts: Sequence[str], settings: RecoverySettings, folder: Path) -> Run:
    """Write the folder of a run that trains a plan of the source on some texts (see engine/corpus/building.py); training does not start
    yet.

    Raises:
        TrainingError: the folder exists and is not empty, or cannot be created.
        PlanError: the plan is for another depth.
        SettingsError, TextError: the settings are invalid or do not fit the plan, or a text is missing.
    """
    require_depth(plan, spec.depth)
    settings = settings.checked()
    require_trainable(plan, settings.train)
    if settings.track != "none":
        require_tracker(settings.track)
    terms = default_terms(plan) if settings.loss is None else terms_of(settings.loss)
    require_teachable(terms, plan, settings.recompute, settings.teacher == "stored")
    if settings.correct_teacher:
        _require_correctable(spec, terms, texts)
    require_texts(texts)
    parameters = weigh(spec, plan)[0]
    asked = Recipe(
        steps=1,
        rate=settings.rate_for(parameters),
        rows=settings.rows,
        length=settings.length,
        accumulate=settings.accumulate,
        seed=settings.seed,
        recompute=settings.recompute,
    )
    make_folder(folder)
    run = Run(folder)
    write_bundle(plan_to_json(plan), plan.tensors, run.plan_file)
    run.keep(
        LearningRecord(
            layerscope=1,
            source=source,
            name=spec.name,
            plan=Trained(plan.method, plan.depth, plan.source_depth, parameters),
            text=tuple(texts),
            own=WritingSettings(settings.own, settings.seed),
            train=settings.train,
            loss=str(terms),
            teacher=settings.teacher,
            correct_teacher=settings.correct_teacher,
            top=settings.top,
            budget={"minutes": settings.minutes} if settings.minutes is not None else {"tokens": settings.tokens or 0},
            until=settings.until,
            language=settings.language,
            measure=settings.measure,
            track=settings.track,
            update=settings.update,
            every=settings.every,
            known_references=settings.references or {},
            asked=asked,
        )
    )
    return run


def _require_correctable(spec: ModelSpec, terms: Terms, texts: Sequence[str]) -> None:
    """Raise SettingsError if the only text is the source's own, or if no loss uses a teacher."""
    require_trainable(untouched(spec.depth), "lora")
    if set(texts) == {SELF}:
        raise SettingsError(
            "teacher correction has no effect on text that the source wrote itself; provide other text, or omit --correct-teacher"
        )
    if not terms.teacher:
        raise SettingsError("the loss '{terms}' uses no teacher, so there is none to correct; omit --correct-teacher", terms=terms)


def require_texts(texts: Sequence[str]) -> None:
    """Raise TextError if one of the texts is missing."""
    for text in texts:
        if text != SELF:
            content_of(text)


def make_folder(folder: Path) -> None:
    """Create a folder for a run.

    Raises:
        TrainingError: the folder exists and is not empty, or cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise TrainingError("{folder} is not empty; name another folder, or resume the run in it", folder=folder)
        if not os.access(folder, os.W_OK):
            raise TrainingError("{folder} is not writable", folder=folder)
    except (OSError, ValueError) as error:
        raise TrainingError(
            "{parent} cannot be created: {reason}", parent=str(folder)[:200], reason=getattr(error, "strerror", None) or error
        ) from error
