"""The workbench: the mutable state of one session, with the open model, its texts, its plans, and the updates for the page."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from engine.errors import PlanError, SettingsError
from engine.export.provenance import Calibration, Provenance
from engine.jobs import Job, Progress, retold
from engine.messages import Message
from engine.methods.depth.laco import LacoSettings, Landscape, landscape
from engine.model_lock import check_cancelled
from engine.passes.profiling import Profile
from engine.plans.description import require_depth
from engine.search.frontier import Frontier, Mapping, Step, step_around, step_at
from engine.types import Plan
from ui.page import charts
from ui.page.bench.opening import PendingModel
from ui.page.bench.shown import Shown

T_MIN = 0.5
SHARE = 0.8  # Search's default target as a share of a newly opened model's layers and parameters


class Workbench(Shown):
    """The open model's T map and plans of one browser tab. Handlers call its methods; results go to its `page`."""

    def __init__(self, export_folder: Path) -> None:
        super().__init__()
        self.export_folder = export_folder
        self.asked: LacoSettings | None = None  # the settings whose map is shown or being computed
        self.given_up: LacoSettings | None = None  # the settings whose map was cancelled last
        self.map: Frontier | None = None
        self.map_of: LacoSettings | None = None
        self.T = 1.0  # the T slider's value
        self.preview: Step | None = None  # the shown step of a map that is still being computed
        self._mapping: Mapping | None = None  # the map that is being computed
        self.profile: Profile | None = None
        self._survey_asked: tuple[str, str] | None = None  # rule and similarity definition of the requested landscape
        self._survey_of: tuple[str, str] | None = None
        self._on_mapped: list[Callable[[], None]] = []

    def when_mapped(self, report: Callable[[], None]) -> None:
        """Register a callback that runs when a T map is ready."""
        self._on_mapped.append(report)

    # --- opening ---

    def take(self, coming: PendingModel, same: bool) -> None:
        """Handle an opened model: drop the state of the previous one and set the controls to the new ranges."""
        self.map = self.map_of = self.asked = self.preview = self.profile = self._survey_asked = self._survey_of = None
        if not same:
            self.hand = self.file = self.found = None
            for prop in ("hand", "file", "found"):
                self.page.put("fold", prop, "")
            if self.opened > 1 and coming.spans is None:  # the controls belong to the previous model
                self.page.move("spans", "[]")
                self.page.move("plan", "map")
        if coming.spans is not None or not same:
            self.spans = coming.spans or []
        depth = self.open_meter().model.spec.depth
        for control, least, most in (("highest", 1, depth), ("lowest", 0, depth - 1), ("width", 2, min(8, depth)), ("target", 1, depth)):
            self.page.put(control, "maximum", max(most, least + 1))  # Gradio rejects a slider of one value
        from_gguf = coming.source.kind in ("demo", "gguf")
        self.page.put("format", "visible", from_gguf)
        if not from_gguf:
            self.page.put("format", "value", "safetensors")
        self.page.put("target", "minimum", 1)  # until the map is ready; the previous model's minimum may lie above the new maximum
        if not same:
            self.page.move("target", depth)  # until the map gives the depth at T
            self._aim()
        self.settings = coming.settings
        try:
            self.ask(self._fitting(coming.settings, moving=True))
        except (SettingsError, PlanError) as error:  # the model can be shown without a map
            self.runner.set_problem(error.message, "map")
            self.set_spans([])

    def _aim(self) -> None:
        """Set the targets on Search for a newly opened model. They are moved once, so that the user's values stay."""
        spec = self.open_meter().model.spec
        self.page.move("search_kind", "layers")
        self.page.move("search_amount", max(1, round(SHARE * spec.depth)))
        self.page.move("shapes_budget", float(f"{SHARE * spec.parameters / 1e6:.3g}"))

    def again(self, settings: LacoSettings, spans: list[list[int]] | None) -> None:
        """Handle a repeated request for the open model: use these settings, and these hand-made spans."""
        self.ask(self._fitting(settings))
        if spans is not None and spans != self.spans:
            self.set_spans(spans)

    def forget(self) -> None:
        """Forget a map that will not come, so that it can be requested again."""
        if self.asked is not None and (self.asked != self.map_of or (self.map and not self.map.complete)):
            self._stop_short(self.asked)
            self.asked, self.given_up = None, self.asked
        self._survey_asked = self._survey_of

    def _fitting(self, settings: LacoSettings, moving: bool = False) -> LacoSettings:
        """Limit C, L and H to the open model, and report what was limited. `moving` sets all three sliders, even if nothing was limited."""
        depth = self.open_meter().model.spec.depth
        wanted = {"C": settings.C, "L": settings.lowest, "H": depth if settings.highest is None else settings.highest}
        fits = {"C": min(wanted["C"], depth), "L": min(wanted["L"], depth - 1), "H": min(wanted["H"], depth)}
        for control, name in (("width", "C"), ("lowest", "L"), ("highest", "H")):
            if moving or fits[name] != wanted[name]:
                self.page.move(control, fits[name])
        if cut := ", ".join(f"{name} {wanted[name]} → {fits[name]}" for name in fits if fits[name] != wanted[name]):
            self.notify(Message("this model has {depth} layers; these settings were reduced to fit: {cut}", depth=depth, cut=cut))
        return replace(settings, C=fits["C"], lowest=fits["L"], highest=fits["H"])

    # --- fold ---

    def ask(self, settings: LacoSettings, by_itself: bool = False) -> None:
        """Request the T map (and the landscape) of these settings, unless it is already requested.

        `by_itself` skips a map that was cancelled: a loading page sends its controls' values as if the user had changed them.

        Raises:
            SettingsError: the settings do not fit the model.
        """
        if self.model is None or not self.ready:
            return
        settings = replace(settings, T=1.0).checked(self.model.spec.depth)  # T is the map's axis, not a setting of the map
        self.settings = settings
        if settings == self.asked or (by_itself and settings == self.given_up):
            return
        self.asked, self.given_up, self.preview = settings, None, None
        self.page.put("fold", "stale", "yes")
        self._map(settings)
        survey = (settings.rule, settings.similarity)
        if survey != self._survey_asked:
            self._survey_asked = survey
            self.page.put("landscape", "stale", "no" if survey == self._survey_of else "yes")
            self.set_spans(self.spans)
            for prop, plan in (("file", self.file), ("found", self.found)):
                if plan is not None:
                    self._measure(prop, plan)

    def look(self, threshold: float) -> None:
        """Set T. While its map is incomplete, the step that holds T is computed first."""
        moved, self.T = threshold != self.T, threshold
        wanted = self.asked or (self.settings if self.preview or self.map_of == self.settings else None)
        if moved and wanted is not None and not self._holds(wanted, threshold):
            self.asked = wanted
            self._map(wanted)

    def _holds(self, settings: LacoSettings, threshold: float) -> bool:
        """True where the plan at this T is known."""
        return (self.preview is not None and self.preview.holds(threshold)) or (
            settings == self.map_of and self._step(threshold) is not None
        )

    def _step(self, threshold: float) -> Step | None:
        """Return the step of the map that holds T; None where the map was stopped before reaching it."""
        if self.map is None:
            return None
        step = step_at(self.map, threshold)
        return step if self.map.complete or step.holds(threshold) else None

    def _map(self, settings: LacoSettings) -> None:
        meter = self.open_meter()

        def job() -> Job[Frontier]:
            self._mapping = mapping = Mapping(meter, settings, T_MIN)
            if not (self.preview and self.preview.holds(self.T)):
                around = step_around(meter, replace(settings, T=self.T), T_MIN)
                around = retold(around, lambda facts: Progress(facts.label))  # without its fraction, which is not the map's progress
                self._glimpsed(settings, (yield from mapping.estimated(around)))
            return (yield from mapping.run())

        self.submit("map", job, lambda found: self._mapped(settings, found), urgent=True, yielding=True, quick=True)

    def _glimpsed(self, settings: LacoSettings, step: Step) -> None:
        with self.lock:  # this is the job's thread: another model may have been asked for
            check_cancelled()  # what is queued for the old model now would run first, and its failure would drop the new one
            self.preview = step
            self.show("fold", charts.map_data(self.open_meter().model, self.texts, settings, Frontier(T_MIN, (step,)), filling=True))
            for report in self._on_shown:
                report(step.proposal.plan)

    def _stop_short(self, settings: LacoSettings) -> None:
        """Show the steps of a stopped map: those from T = 1 down, and the one that holds T."""
        found = self._mapping.found if self._mapping is not None and self._mapping.settings == settings else None
        self._mapping = None
        if found is None or not found.steps or found.complete:
            return
        self.map, self.map_of = found, settings
        reached = found.steps[-1].t_from
        extra = (self.preview,) if self.preview is not None and self.preview.t_from < reached else ()
        shown = Frontier(reached, (*found.steps, *extra))
        self.show("fold", charts.map_data(self.open_meter().model, self.texts, settings, shown, stopped=True))

    def _mapped(self, settings: LacoSettings, found: Frontier) -> None:
        model = self.open_meter().model
        self.map, self.map_of, self.preview, self._mapping = found, settings, None, None
        self.show("fold", charts.map_data(model, self.texts, settings, found))
        depths = [step.proposal.plan.depth for step in found.steps]
        self.page.put("target", "minimum", max(1, min(*depths, model.spec.depth - 1)))  # below the maximum, even if nothing folds
        for report in self._on_mapped:
            report()
        survey, meter = (settings.rule, settings.similarity), self.open_meter()
        if survey != self._survey_of:  # last: the costs of the map's plans are needed first
            self.submit("landscape", lambda: landscape(meter, *survey), lambda found: self._surveyed(survey, found), yielding=True)

    def _surveyed(self, survey: tuple[str, str], found: Landscape) -> None:
        self._survey_of = survey
        self.show("landscape", charts.encode(asdict(found)))

    # --- export ---

    def chosen(self, choice: str, threshold: float) -> tuple[Plan, Provenance]:
        """Return the plan shown on the page, and its provenance.

        Raises:
            PlanError: the map for these settings is not ready, or there is no such plan.
        """
        model = self.open_meter().model
        known = Provenance(calibration=Calibration(len(self.texts.texts), self.texts.fingerprint, self.texts.name))
        if choice in ("hand-made", "file", "found"):
            plan = {"hand-made": self.hand, "file": self.file, "found": self.found}[choice]
            if plan is None:
                raise PlanError("there is no such plan yet; add folds on Explore, load a file, or search")
            return plan, known
        step = self.preview
        if step is None or not step.holds(threshold):
            step = self._step(threshold) if self.map_of == (self.asked or self.settings) else None
        if step is None:
            raise PlanError("the T map for these settings is not ready yet; wait for it, or cancel and choose others")
        proposal = step.proposal
        require_depth(proposal.plan, model.spec.depth)
        return proposal.plan, replace(known, trials=proposal.trials)
