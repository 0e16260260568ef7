"""The one mutable object of a session: the open model, its texts, its plans, and what the page has yet to be told."""

import json
import math
import re
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine.cache import content_key
from engine.calibration import BUNDLED, bundled, calibration_of
from engine.errors import ExportError, LayerscopeError, PlanError
from engine.export import export, parse_size
from engine.frontier import frontier, step_at
from engine.jobs import Job, Progress
from engine.loading import open_model
from engine.methods.laco import landscape, mean_and_spread
from engine.methods.minitron import removal_perplexity
from engine.plans import fold_spans, plan_from_json, require_depth
from engine.profiling import profile, weight_distance
from engine.settings import LacoSettings
from engine.similarity import SimilarityMeter
from engine.sources import parse_source
from engine.types import Calibration, DepthPlan, ExportReport, Frontier, Model, ModelSource, ModelSpec, Similarity
from ui import charts
from ui.jobs import Runner, Task
from ui.wire import trial_to_json

T_MIN = 0.5
_models: dict[ModelSource, Model] = {}  # shared by all sessions; the last two stay open
_models_lock = threading.Lock()


def shared_model(source: ModelSource, check: Callable[[ModelSpec], object]) -> Job[Model]:
    """Open a model, or return the one that another session has open already; `check` sees its spec first."""
    with _models_lock:
        known = _models.get(source)
    if known is None:
        known = yield from open_model(source, check)
        with _models_lock:
            _models[source] = known
            for old in list(_models)[:-2]:
                del _models[old]
    return known


class Workbench:
    """What one tab of the browser works on. Handlers call its methods; jobs report back through `put`."""

    def __init__(self, export_folder: Path) -> None:
        self.export_folder = export_folder
        self.runner = Runner()
        self.model: Model | None = None
        self.meter: SimilarityMeter | None = None
        self.texts: Calibration = bundled("english")
        self.asked: LacoSettings | None = None
        self.map: Frontier | None = None
        self.map_of: LacoSettings | None = None
        self.hand: DepthPlan | None = None
        self.file: DepthPlan | None = None
        self.highest: int | None = None
        self.opening: tuple[str, str, str] | None = None
        self._news: dict[tuple[str, str], tuple[int, Any]] = {}
        self._serial = 0
        self._lock = threading.RLock()

    # --- what the page is told ---

    def put(self, component: str, prop: str, value: Any) -> None:
        """Set a property of a component on every page that shows this workbench."""
        with self._lock:
            self._serial += 1
            self._news[component, prop] = (self._serial, value)

    def news(self, seen: int) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the newest serial number, and every property of the components of which one was put since `seen`.

        All properties, since a component that is not on the screen yet takes an update's as the whole.
        """
        with self._lock:
            fresh = {component for (component, _), (serial, _) in self._news.items() if serial > seen}
            found: dict[str, dict[str, Any]] = {component: {} for component in fresh}
            for (component, prop), (_, value) in self._news.items():
                if component in fresh:
                    found[component][prop] = value
            return self._serial, found

    # --- opening ---

    def open(self, where: str, dtype: str, texts: Calibration, settings: LacoSettings) -> None:
        """Open a model on some texts and work out what the page shows first; if it is open already, ask for the map alone."""
        wanted = (where, dtype, texts.fingerprint)
        if wanted == self.opening:
            self.ask(settings)
            return
        source = parse_source(where, dtype)
        self.cancel()
        self.opening, self.texts, self.asked = wanted, texts, settings
        for component in ("similarity", "norms", "weights", "landscape", "fold"):
            self.put(component, "stale", "yes")
        self.runner.submit(
            Task(
                "open", lambda: shared_model(source, lambda spec: self.put("spec", "value", charts.spec_card(spec, source))), self._opened
            ),
            urgent=True,
        )

    def _opened(self, model: Model) -> None:
        same = self.model is model
        self.model, self.meter = model, SimilarityMeter(model, self.texts)
        self.map = self.map_of = None
        if not same:
            self.hand = self.file = None
            self.put("fold", "hand", "")
            self.put("fold", "file", "")
        depth = model.spec.depth
        highest = min(self.highest or depth, depth)
        self.put("spec", "value", charts.spec_card(model.spec, model.source, model.fingerprint))
        self.put("highest", "maximum", depth)
        self.put("highest", "value", highest)
        self.put("lowest", "maximum", depth - 1)
        self.put("width", "maximum", min(8, depth))
        self.put("target", "maximum", depth)
        asked = self.asked or LacoSettings()
        self.asked = None
        self.ask(replace(asked, highest=highest if asked.highest is None else min(asked.highest, depth)))
        self._submit("profile", self._profile, self._profiled, urgent=True)  # the first thing to see goes first
        self._submit("weights", self._weights, lambda v: self._show("weights", charts.encode(asdict(v))), yielding=True)

    def cancel(self) -> None:
        """Stop whatever runs or waits. What was asked for is forgotten, so that asking again starts it again."""
        self.runner.cancel()
        self.asked = self.opening = None

    def _submit(
        self, kind: str, make: Callable[[], Job[Any]], done: Callable[[Any], None], urgent: bool = False, yielding: bool = False
    ) -> None:
        self.runner.submit(Task(kind, make, done, yielding), urgent)

    def _show(self, component: str, data: str) -> None:
        self.put(component, "data", data)
        self.put(component, "stale", "no")

    def _open_meter(self) -> SimilarityMeter:
        if self.meter is None:
            raise LayerscopeError("no model is open yet")
        return self.meter

    # --- explore ---

    def _profile(self) -> Job[Any]:
        yield Progress("Running the texts through the model")
        return (yield from profile(self._open_meter().captures))

    def _profiled(self, found: Any) -> None:
        self.profile = found
        self._show("similarity", charts.similarity_data(found, None))
        self._show("norms", charts.encode({"norms": asdict(found.norms)}))

    def _weights(self) -> Job[Any]:
        return weight_distance(self._open_meter().model)

    def measure_removal(self) -> None:
        """Start measuring perplexity with each layer alone removed."""
        self._submit(
            "removal",
            lambda: removal_perplexity(self._open_meter()),
            lambda found: self._show("similarity", charts.similarity_data(self.profile, found)),
            urgent=True,
            yielding=True,
        )

    # --- fold ---

    def ask(self, settings: LacoSettings) -> None:
        """Ask for the T map (and the landscape) of these settings; a question that is already asked is not asked again.

        Raises:
            SettingsError: the settings do not fit the model.
        """
        if self.model is None:
            self.asked = settings
            return
        settings = replace(settings, T=1.0).checked(self.model.spec.depth)  # T is the map's axis, not part of the question
        self.highest = settings.highest
        if settings == self.asked:
            return
        before, self.asked = self.asked, settings
        self.put("fold", "stale", "yes")
        meter = self._open_meter()
        self._submit(
            "map", lambda: frontier(meter, settings, T_MIN), lambda found: self._mapped(settings, found), urgent=True, yielding=True
        )
        if before is None or (before.rule, before.similarity) != (settings.rule, settings.similarity):
            self.put("landscape", "stale", "yes")
            self._submit("landscape", lambda: landscape(meter, settings.rule, settings.similarity), self._surveyed, yielding=True)
            if self.hand is not None:
                self.set_spans([list(span) for span in dict(self.hand.settings)["spans"]])

    def _mapped(self, settings: LacoSettings, found: Frontier) -> None:
        model = self._open_meter().model
        self.map, self.map_of = found, settings
        self._show("fold", charts.map_data(model, self.texts, settings, found))
        self.put("target", "minimum", min(step.proposal.plan.depth for step in found.steps))

    def _surveyed(self, found: Any) -> None:
        self._show("landscape", charts.encode(asdict(found)))

    def set_spans(self, spans: list[list[int]]) -> None:
        """Make the hand-made plan of these spans of source layers, and measure it.

        Raises:
            PlanError: a span lies outside the model.
        """
        if self.model is None or self.asked is None:
            return
        model = self.model
        self.put("landscape", "marks", json.dumps(spans))
        if not spans:
            self.hand = None
            self.put("fold", "hand", "")
            return
        self.hand = fold_spans(model.spec.depth, [(first, last) for first, last in spans], self.asked.rule)
        self._measure("hand", self.hand)

    def load_plan(self, value: Any) -> DepthPlan:
        """Take a plan from a file, and measure it.

        Raises:
            PlanError: it is no plan, or one for another depth.
        """
        plan = plan_from_json(value)
        meter = self._open_meter()
        require_depth(plan, meter.model.spec.depth)
        self.file = plan
        self._measure("file", plan)
        return plan

    def _measure(self, prop: str, plan: DepthPlan) -> None:
        meter, definition = self._open_meter(), (self.asked or LacoSettings()).similarity

        def job() -> Job[Similarity]:
            yield Progress(f"Measuring a plan of {plan.depth} layers")
            return meter.measure(plan.blocks, plan.prefix)

        def done(found: Similarity) -> None:
            self.put("fold", prop, charts.plan_data(meter.model, plan, mean_and_spread(found, definition)[0]))

        self.put("fold", prop, charts.plan_data(meter.model, plan, math.nan))
        self._submit(f"measure-{prop}", job, done, urgent=True)

    # --- export ---

    def chosen(self, choice: str, threshold: float) -> tuple[DepthPlan, dict[str, Any]]:
        """Return the plan that the page shows, and what is known of how it came about.

        Raises:
            PlanError: the map for the present settings is not ready, or there is no such plan.
        """
        model = self._open_meter().model
        known: dict[str, Any] = {
            "calibration": {"texts": len(self.texts.texts), "fingerprint": self.texts.fingerprint, "name": self.texts.name}
        }
        if choice in ("hand-made", "file"):
            plan = self.hand if choice == "hand-made" else self.file
            if plan is None:
                raise PlanError("there is no such plan yet: add folds on Explore, or load a file")
            return plan, known
        if self.map is None or self.map_of != self.asked:
            raise PlanError("the T map for these settings is not ready yet; wait for it, or cancel and choose others")
        proposal = step_at(self.map, threshold).proposal
        require_depth(proposal.plan, model.spec.depth)
        return proposal.plan, {**known, "trials": [trial_to_json(trial) for trial in proposal.trials]}

    def start_export(self, choice: str, threshold: float, dtype: str, shard: str, name: str) -> None:
        """Export the chosen plan into a new folder of the export directory.

        Raises:
            ExportError, PlanError: the name or the plan cannot be used.
        """
        meter = self._open_meter()
        plan, known = self.chosen(choice, threshold)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ExportError(f"'{name}' cannot be a folder's name here; use letters, digits, dots and dashes")
        target, size = self.export_folder / name, parse_size(shard)
        if target.exists():
            raise ExportError(f"{target} exists already; choose another name, nothing is ever overwritten")
        model = meter.model
        self.put("report", "value", "")

        def done(report: ExportReport) -> None:
            self.put("report", "value", charts.report_data(report))

        self._submit("export", lambda: export(model.source, model.folder, plan, target, dtype, size, known), done, urgent=True)


def texts_of(choice: str, own: str) -> Calibration:
    """Return the calibration of a choice: a bundled language, or the lines a person wrote."""
    return bundled(choice) if choice in BUNDLED else calibration_of(tuple(own.splitlines()), "own texts")


def suggested_name(model: Model | None, plan_key: Any, depth: int) -> str:
    """Return a folder name for an export: the model, its depth, and a few letters of what was folded."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", model.spec.name.split("/")[-1]).strip("-.") if model else "model"
    return f"{stem}-{depth}-layers-{content_key(plan_key)[:6]}"
