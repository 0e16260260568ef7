"""What all workbenches share: the open models, and names for what a person chose."""

import ctypes
import gc
import re
import threading
import time
from collections.abc import Callable, Container
from contextlib import suppress
from typing import TypeVar
from weakref import WeakValueDictionary

from engine.jobs import Job, Progress
from engine.judge.cost import cost_judge
from engine.judge.evaluation import Judge
from engine.judge.similarity import SimilarityMeter, blocks_key
from engine.models.library import remember
from engine.models.loading import open_model
from engine.models.texts import BUNDLED, bundled, calibration_of
from engine.types import Model, ModelSource, ModelSpec, Plan, TextSet

K = TypeVar("K")
V = TypeVar("V")
_models: dict[ModelSource, Model] = {}  # one copy for all sessions; the last two stay open while somebody is there
_opening: set[ModelSource] = set()
_meters: WeakValueDictionary[tuple[int, TextSet], SimilarityMeter] = WeakValueDictionary()
_judges: WeakValueDictionary[tuple[int, str], Judge] = WeakValueDictionary()
_models_lock = threading.Lock()
_LOOK = 0.2  # seconds between two looks at a model that another session is opening


def shared_model(source: ModelSource, check: Callable[[ModelSpec], object]) -> Job[Model]:
    """Open a model, or return the one that another session has open already or is opening; `check` sees its spec first."""
    while True:
        with _models_lock:
            known, elsewhere = _models.get(source), source in _opening
            if known is None and not elsewhere:
                _opening.add(source)
                break
        if known is not None:
            remember(source, known.spec.name, known.spec.model_type)
            return known
        yield Progress("Another tab is opening this model")
        time.sleep(_LOOK)
    try:
        known = yield from open_model(source, check)
        with _models_lock:
            _models[source] = known
            for old in list(_models)[:-2]:
                del _models[old]
        return known
    finally:
        with _models_lock:
            _opening.discard(source)


def shared_meter(model: Model, texts: TextSet) -> SimilarityMeter:
    """Return the meter of an open model on some texts: one for all sessions, so that what one of them measures is there for the others."""
    return _shared(_meters, model, texts, SimilarityMeter)


def shared_judge(model: Model, calibration: str) -> Judge:
    """Return the judge of quick costs on an open model: one for all sessions, as with `shared_meter`."""
    return _shared(_judges, model, calibration, cost_judge)


def _shared(known: WeakValueDictionary[tuple[int, K], V], model: Model, what: K, make: Callable[[Model, K], V]) -> V:
    """Return what is made of a model and something else, as long as somebody has it; that keeps the model, too, and so its id."""
    with _models_lock:
        found = known.get((id(model), what))
        if found is None:
            found = known[id(model), what] = make(model, what)
        return found


def release(in_use: Container[Model]) -> None:
    """Let all models go but those that somebody has open, and give their memory back to the system."""
    with _models_lock:
        for source in [source for source, model in _models.items() if model not in in_use]:
            del _models[source]
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone keeps what is freed
        ctypes.CDLL(None).malloc_trim(0)


def texts_of(choice: str, own: str, purpose: str = "calibration") -> TextSet:
    """Return the texts of a choice: those bundled in a language for a purpose, or the lines a person wrote."""
    return bundled(choice, purpose) if choice in BUNDLED else calibration_of(tuple(own.splitlines()), "own texts")


def stem_of(model: Model) -> str:
    """Return a model's name as a folder's name can begin."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model.spec.name.split("/")[-1]).strip("-.") or "model"


def suggested_name(model: Model, plan: Plan) -> str:
    """Return a folder name for an export: the model, the plan's depth, and the first letters of its own name."""
    return f"{stem_of(model)}-{plan.depth}-layers-{blocks_key(plan.blocks)[:6]}"
