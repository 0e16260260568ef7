"""State that all workbenches share: the open models, their meters and judges."""

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
from engine.messages import Message
from engine.models.library import remember
from engine.models.loading import open_model
from engine.models.texts import BUNDLED, bundled, calibration_of
from engine.types import Model, ModelSource, ModelSpec, Plan, TextSet

K = TypeVar("K")
V = TypeVar("V")
_models: dict[ModelSource, Model] = {}  # one copy for all sessions; at most the last two opened, until `release`
_opening: set[ModelSource] = set()
_meters: WeakValueDictionary[tuple[int, TextSet], SimilarityMeter] = WeakValueDictionary()
_judges: WeakValueDictionary[tuple[int, str], Judge] = WeakValueDictionary()
_models_lock = threading.Lock()
_LOOK = 0.2  # seconds between two checks of a model that another session is opening


def shared_model(source: ModelSource, check: Callable[[ModelSpec], object]) -> Job[Model]:
    """Open a model. If another session has it open or is opening it, return that one. `check` gets a new model's spec before its weights
    are read."""
    while True:
        with _models_lock:
            known, elsewhere = _models.get(source), source in _opening
            if known is None and not elsewhere:
                _opening.add(source)
                break
        if known is not None:
            remember(source, known.spec.name, known.spec.model_type)
            return known
        yield Progress(Message("Another tab is opening this model"))
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
    """Return the meter of an open model on some texts. All sessions share it, and so its measurements."""
    return _shared(_meters, model, texts, SimilarityMeter)


def shared_judge(model: Model, calibration: str) -> Judge:
    """Return the judge of quick costs on an open model. All sessions share it."""
    return _shared(_judges, model, calibration, cost_judge)


def _shared(known: WeakValueDictionary[tuple[int, K], V], model: Model, what: K, make: Callable[[Model, K], V]) -> V:
    """Return the object made of a model and a second key, cached while something refers to it. The object keeps its model alive, so the
    model's id stays valid."""
    with _models_lock:
        found = known.get((id(model), what))
        if found is None:
            found = known[id(model), what] = make(model, what)
        return found


def release(in_use: Container[Model]) -> None:
    """Release all models that no session has open, and return their memory to the system."""
    with _models_lock:
        for source in [source for source, model in _models.items() if model not in in_use]:
            del _models[source]
    gc.collect()
    with suppress(OSError, AttributeError):  # only glibc keeps freed memory
        ctypes.CDLL(None).malloc_trim(0)


def texts_of(choice: str, own: str, purpose: str = "calibration") -> TextSet:
    """Return the texts of a choice: bundled texts of a language for a purpose, or the user's own lines."""
    return bundled(choice, purpose) if choice in BUNDLED else calibration_of(tuple(own.splitlines()), "own texts")


def stem_of(model: Model) -> str:
    """Return a model's name as the start of a folder name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model.spec.name.split("/")[-1]).strip("-.") or "model"


def suggested_name(model: Model, plan: Plan) -> str:
    """Return a folder name for an export: the model, the plan's depth, and the first six letters of the plan's name."""
    return f"{stem_of(model)}-{plan.depth}-layers-{blocks_key(plan.blocks)[:6]}"
