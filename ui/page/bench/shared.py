"""What all workbenches share: the open models, and names for what a person chose."""

import re
import threading
from collections.abc import Callable

from engine.jobs import Job
from engine.judge.similarity import blocks_key
from engine.models.library import remember
from engine.models.loading import open_model
from engine.models.texts import BUNDLED, bundled, calibration_of
from engine.types import Calibration, Model, ModelSource, ModelSpec, Plan

_models: dict[ModelSource, Model] = {}  # shared by all sessions; the last two stay open
_models_lock = threading.Lock()


def shared_model(source: ModelSource, check: Callable[[ModelSpec], object]) -> Job[Model]:
    """Open a model, or return the one that another session has open already; `check` sees its spec first."""
    with _models_lock:
        known = _models.get(source)
    if known is not None:
        remember(source, known.spec.name, known.spec.model_type)
    else:
        known = yield from open_model(source, check)
        with _models_lock:
            _models[source] = known
            for old in list(_models)[:-2]:
                del _models[old]
    return known


def texts_of(choice: str, own: str, purpose: str = "calibration") -> Calibration:
    """Return the texts of a choice: those bundled in a language for a purpose, or the lines a person wrote."""
    return bundled(choice, purpose) if choice in BUNDLED else calibration_of(tuple(own.splitlines()), "own texts")


def stem_of(model: Model) -> str:
    """Return a model's name as a folder's name can begin."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model.spec.name.split("/")[-1]).strip("-.") or "model"


def suggested_name(model: Model, plan: Plan) -> str:
    """Return a folder name for an export: the model, the plan's depth, and the first letters of its own name."""
    return f"{stem_of(model)}-{plan.depth}-layers-{blocks_key(plan.blocks)[:6]}"
