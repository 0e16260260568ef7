"""The one mutable object of a session: the open model, its texts, its plans, and what the page has yet to be told."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine.errors import ExportError, LayerscopeError, PlanError, SettingsError
from engine.export.checkpoint import ExportReport, export, parse_size
from engine.export.gguf import export_gguf, require_copies
from engine.jobs import Job, Progress
from engine.judge.similarity import Similarity, SimilarityMeter
from engine.methods.laco import LacoSettings, Landscape, landscape, mean_and_spread
from engine.methods.minitron import RemovalPerplexity, removal_perplexity
from engine.models.sources import parse_source
from engine.models.texts import bundled
from engine.passes.profiling import Profile, profile, weight_distance
from engine.plans.files import plan_from_json
from engine.plans.rules import fold_spans
from engine.plans.words import require_depth
from engine.search.frontier import Frontier, frontier, step_at
from engine.types import Calibration, DepthPlan, Model, ModelSpec
from ui.page import charts
from ui.page.bench.jobs import Runner, Task
from ui.page.bench.news import News
from ui.page.bench.shared import shared_model
from ui.text.commands import facts_of
from ui.text.wire import trial_to_json

T_MIN = 0.5


class Workbench:
    """What one tab of the browser works on. Handlers call its methods; what they and their jobs find is put on its `page`."""

    def __init__(self, export_folder: Path) -> None:
        self.export_folder = export_folder
        self.page = News()
        self.runner = Runner(self._forget)
        self.model: Model | None = None
        self.meter: SimilarityMeter | None = None
        self.texts: Calibration = bundled("english")
        self.settings = LacoSettings()  # the last ones asked for; those of the next map while a model is being opened
        self.asked: LacoSettings | None = None  # the question whose map is shown or under way
        self.map: Frontier | None = None
        self.map_of: LacoSettings | None = None
        self.profile: Profile | None = None
        self.spans: list[list[int]] = []  # of the hand-made plan
        self.hand: DepthPlan | None = None
        self.file: DepthPlan | None = None
        self.found: DepthPlan | None = None  # from a search, a baseline, a repair or the board
        self.highest: int | None = None
        self.opening: tuple[str, str, str, str] | None = None  # what is open or being opened: model, dtype, texts, device
        self._busy_opening = False
        self._survey_asked: tuple[str, str] | None = None  # rule and definition of the landscape, as with the map
        self._survey_of: tuple[str, str] | None = None
        self._on_opened: list[Callable[[], None]] = []
        self._on_mapped: list[Callable[[], None]] = []

    # --- opening ---

    def when_opened(self, tell: Callable[[], None]) -> None:
        """Call this whenever a model has been opened."""
        self._on_opened.append(tell)

    def when_mapped(self, tell: Callable[[], None]) -> None:
        """Call this whenever a T map is ready."""
        self._on_mapped.append(tell)

    def open(self, where: str, dtype: str, texts: Calibration, settings: LacoSettings, device: str = "cpu") -> None:
        """Open a model on some texts and work out what the page shows first; if it is open already, ask for the map alone."""
        wanted = (where, dtype, texts.fingerprint, device)
        if wanted == self.opening:
            self.ask(settings)
            return
        source = parse_source(where, dtype, device)
        self.cancel()
        if self.model is not None and self.model.source != source:
            self.spans = []
        self.opening, self.texts, self.settings, self._busy_opening = wanted, texts, settings, True
        for component in ("similarity", "norms", "weights", "landscape", "fold"):
            self.page.put(component, "stale", "yes")

        def looked_at(spec: ModelSpec) -> None:
            self.page.put("spec", "value", charts.spec_card(spec, source))

        self.runner.submit(Task("open", lambda: shared_model(source, looked_at), self._opened), urgent=True)

    def _opened(self, model: Model) -> None:
        same = self.model is model
        self.model, self.meter, self._busy_opening = model, SimilarityMeter(model, self.texts), False
        self.map = self.map_of = self.asked = self.profile = self._survey_asked = self._survey_of = None
        if not same:
            self.file = self.found = None
            self.page.put("fold", "file", "")
            self.page.put("fold", "found", "")
        depth = model.spec.depth
        highest = min(self.highest or depth, depth)
        self.page.put("spec", "value", charts.spec_card(model.spec, model.source, model.fingerprint, facts_of(model.source, self.texts)))
        self.page.put("highest", "maximum", depth)
        self.page.put("highest", "value", highest)
        self.page.put("lowest", "maximum", depth - 1)
        self.page.put("width", "maximum", min(8, depth))
        self.page.put("target", "maximum", depth)
        from_gguf = model.source.kind in ("demo", "gguf")
        self.page.put("format", "visible", from_gguf)
        if not from_gguf:
            self.page.put("format", "value", "safetensors")
        wanted = self.settings
        try:
            self.ask(replace(wanted, highest=highest if wanted.highest is None else min(wanted.highest, depth)))
        except (SettingsError, PlanError) as error:  # the model itself can be shown all the same
            self.runner.complain(str(error), "map")
            self.set_spans([])
        for tell in self._on_opened:
            tell()
        self.submit("profile", self.profile_job, self._profiled, urgent=True)  # the first thing to see goes first
        self.submit("weights", self._weights, lambda v: self._show("weights", charts.encode(asdict(v))), yielding=True)

    def cancel(self) -> None:
        """Stop whatever runs or waits. What was asked for and is not there is forgotten, so that it can be asked again."""
        self.runner.cancel()
        self._forget()

    def _forget(self) -> None:
        self.opening = None
        if self._busy_opening:  # what is shown is still of the model that was open before
            self._busy_opening = False
            for component in ("similarity", "norms", "weights", "landscape", "fold") if self.model else ():
                self.page.put(component, "stale", "no")
        if self.asked != self.map_of:
            self.asked = None
        self._survey_asked = self._survey_of

    def submit(
        self, kind: str, make: Callable[[], Job[Any]], done: Callable[[Any], None], urgent: bool = False, yielding: bool = False
    ) -> None:
        """Queue a job; see `ui.page.bench.jobs.Task`."""
        self.runner.submit(Task(kind, make, done, yielding), urgent)

    def _show(self, component: str, data: str) -> None:
        self.page.put(component, "data", data)
        self.page.put(component, "stale", "no")

    def open_meter(self) -> SimilarityMeter:
        """Return the meter of the open model.

        Raises:
            LayerscopeError: there is none yet.
        """
        if self.meter is None:
            raise LayerscopeError("no model is open yet")
        return self.meter

    # --- explore ---

    def profile_job(self) -> Job[Profile]:
        """Profile the open model on its calibration texts."""
        yield Progress("Running the texts through the model")
        return (yield from profile(self.open_meter().captures))

    def _profiled(self, found: Profile) -> None:
        self.profile = found
        self._show("similarity", charts.similarity_data(found, None))
        self._show("norms", charts.encode({"norms": asdict(found.norms)}))

    def _weights(self) -> Job[Any]:
        return weight_distance(self.open_meter().model)

    def measure_removal(self) -> None:
        """Start measuring perplexity with each layer alone removed."""
        meter = self.open_meter()

        def job() -> Job[tuple[Profile, RemovalPerplexity]]:
            shown = self.profile or (yield from self.profile_job())
            return shown, (yield from removal_perplexity(meter))

        def done(found: tuple[Profile, RemovalPerplexity]) -> None:
            self.profile = found[0]
            self._show("similarity", charts.similarity_data(*found))

        self.submit("removal", job, done, urgent=True, yielding=True)

    # --- fold ---

    def ask(self, settings: LacoSettings) -> None:
        """Ask for the T map (and the landscape) of these settings; a question that is already asked is not asked again.

        Raises:
            SettingsError: the settings do not fit the model.
        """
        if self.model is None or self._busy_opening:
            self.settings = settings
            return
        settings = replace(settings, T=1.0).checked(self.model.spec.depth)  # T is the map's axis, not part of the question
        self.settings, self.highest = settings, settings.highest
        if settings == self.asked:
            return
        self.asked = settings
        self.page.put("fold", "stale", "yes")
        meter = self.open_meter()
        self.submit(
            "map", lambda: frontier(meter, settings, T_MIN), lambda found: self._mapped(settings, found), urgent=True, yielding=True
        )
        survey = (settings.rule, settings.similarity)
        if survey != self._survey_asked:
            self._survey_asked = survey
            self.page.put("landscape", "stale", "yes")
            self.submit(
                "landscape",
                lambda: landscape(meter, settings.rule, settings.similarity),
                lambda found: self._surveyed(survey, found),
                yielding=True,
            )
            self.set_spans(self.spans)
            for prop, plan in (("file", self.file), ("found", self.found)):
                if plan is not None:
                    self._measure(prop, plan)

    def _mapped(self, settings: LacoSettings, found: Frontier) -> None:
        model = self.open_meter().model
        self.map, self.map_of = found, settings
        self._show("fold", charts.map_data(model, self.texts, settings, found))
        self.page.put("target", "minimum", min(step.proposal.plan.depth for step in found.steps))
        for tell in self._on_mapped:
            tell()

    def _surveyed(self, survey: tuple[str, str], found: Landscape) -> None:
        self._survey_of = survey
        self._show("landscape", charts.encode(asdict(found)))

    def set_spans(self, spans: list[list[int]]) -> None:
        """Make the hand-made plan of these spans of source layers, and measure it.

        Raises:
            PlanError: a span lies outside the model.
        """
        if self.model is None or self._busy_opening:
            self.spans = spans
            return
        hand = fold_spans(self.model.spec.depth, [(first, last) for first, last in spans], self.settings.rule) if spans else None
        self.hand, self.spans = hand, spans
        self.page.put("landscape", "marks", json.dumps(spans))
        if hand is None:
            self.page.put("fold", "hand", "")
        else:
            self._measure("hand", hand)

    def load_plan(self, value: Any) -> DepthPlan:
        """Take a plan from a file, and measure it.

        Raises:
            PlanError: it is no plan, or one for another depth.
        """
        plan = plan_from_json(value)
        meter = self.open_meter()
        require_depth(plan, meter.model.spec.depth)
        self.file = plan
        self._measure("file", plan)
        return plan

    def show_found(self, plan: DepthPlan) -> None:
        """Show a plan that was worked out elsewhere on the page, and measure its similarity."""
        self.found = plan
        self._measure("found", plan)

    def _measure(self, prop: str, plan: DepthPlan) -> None:
        meter, definition = self.open_meter(), self.settings.similarity

        def job() -> Job[Similarity]:
            yield Progress(f"Measuring a plan of {plan.depth} layers")
            return meter.measure(plan.blocks, plan.prefix)

        def done(found: Similarity) -> None:
            self.page.put("fold", prop, charts.plan_data(meter.model, plan, mean_and_spread(found, definition)[0]))

        self.page.put("fold", prop, charts.plan_data(meter.model, plan, math.nan))
        self.submit(f"measure-{prop}", job, done, urgent=True)

    # --- export ---

    def chosen(self, choice: str, threshold: float) -> tuple[DepthPlan, dict[str, Any]]:
        """Return the plan that the page shows, and what is known of how it came about.

        Raises:
            PlanError: the map for the present settings is not ready, or there is no such plan.
        """
        model = self.open_meter().model
        known: dict[str, Any] = {
            "calibration": {"texts": len(self.texts.texts), "fingerprint": self.texts.fingerprint, "name": self.texts.name}
        }
        if choice in ("hand-made", "file", "found"):
            plan = {"hand-made": self.hand, "file": self.file, "found": self.found}[choice]
            if plan is None:
                raise PlanError("there is no such plan yet: add folds on Explore, load a file, or search")
            return plan, known
        if self.map is None or self.map_of != self.asked:
            raise PlanError("the T map for these settings is not ready yet; wait for it, or cancel and choose others")
        proposal = step_at(self.map, threshold).proposal
        require_depth(proposal.plan, model.spec.depth)
        return proposal.plan, {**known, "trials": [trial_to_json(trial) for trial in proposal.trials]}

    def label_of(self, choice: str, plan: DepthPlan) -> str:
        """Return a short name for a plan, for a table."""
        known = dict(plan.settings)
        if choice == "map":
            return f"LaCo {known['rule']}, C {known['C']}, I {known['I']}, T {known['T']:.4f}"
        return {"hand-made": "by hand", "file": f"file ({plan.method})"}.get(choice, plan.method)

    def start_export(self, choice: str, threshold: float, dtype: str, shard: str, name: str, **more: Any) -> None:
        """Export the chosen plan into a new folder of the export directory; `more` is kept with what is known of it.

        Raises:
            ExportError, PlanError: the name or the plan cannot be used.
        """
        model = self.open_meter().model
        plan, known = self.chosen(choice, threshold)
        target, size = self._free_target(name), parse_size(shard)
        self._submit_export(lambda: export(model.source, model.folder, plan, target, dtype, size, known | more))

    def start_gguf(self, choice: str, threshold: float, name: str) -> None:
        """Export the chosen plan as a GGUF file of the export directory, where the open model came from one.

        Raises:
            ExportError, PlanError: the name or the plan cannot be used.
        """
        model = self.open_meter().model
        plan, _ = self.chosen(choice, threshold)
        require_copies(plan)
        target = self._free_target(f"{name.removesuffix('.gguf')}.gguf")
        self._submit_export(lambda: export_gguf(model.source, plan, target))

    def _free_target(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ExportError(f"'{name}' cannot be a folder's name here; use letters, digits, dots and dashes")
        target = self.export_folder / name
        if target.exists():
            raise ExportError(f"{target} exists already; choose another name, nothing is ever overwritten")
        return target

    def _submit_export(self, make: Callable[[], Job[ExportReport]]) -> None:
        self.page.put("report", "value", "")
        self.submit("export", make, lambda report: self.page.put("report", "value", charts.report_data(report)), urgent=True)
