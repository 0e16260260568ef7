"""Opening models: the open model, the one being opened, and the data that belongs to them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from engine.errors import LayerscopeError
from engine.jobs import Job
from engine.judge.similarity import SimilarityMeter, blocks_key
from engine.messages import Message
from engine.methods.depth.laco import LacoSettings
from engine.models.sources import parse_source
from engine.models.texts import bundled
from engine.types import Model, ModelSource, ModelSpec, Plan, TextSet
from ui.page import charts
from ui.page.allowed_paths import AllowedPaths
from ui.page.bench.jobs import Runner, Task
from ui.page.bench.shared import shared_meter, shared_model
from ui.page.bench.view_updates import ViewUpdates
from ui.text.commands import facts_of

# Components that show the open model and its texts.
CHARTS = ("similarity", "norms", "weights", "landscape", "fold", "importance", "widths", "widthcosts", "masks")


@dataclass(frozen=True, slots=True)
class PendingModel:
    """The model being opened. The page keeps the previous model until this one is open. `spans` is None if no link gave any."""

    source: ModelSource
    texts: TextSet
    settings: LacoSettings
    spans: list[list[int]] | None


class Opening:
    """The open model of one browser tab, and its jobs.

    Everything a tab shows belongs to one opening, numbered by `opened`. While a model is being opened, no other request is accepted, and
    page requests with another number are dropped (`ui.page.handlers.responses`). Subclasses handle an opened model (`take`), a repeated
    request for the open model (`again`), and cancelled requests (`forget`).
    """

    def __init__(self) -> None:
        self.page = ViewUpdates()
        self.reach = AllowedPaths()
        self.runner = Runner(self._dropped)
        self.lock = self.runner.lock
        self.opened = 0
        self.notice, self.notice_of = "", ""  # a message that is not an error, and the name of the plan it concerns
        self.model: Model | None = None
        self.meter: SimilarityMeter | None = None
        self.texts: TextSet = bundled("english")
        self.opening: tuple[str, str, str, str] | None = None  # the open model, or the one being opened: model, dtype, texts, device
        self.coming: PendingModel | None = None
        self._on_opened: list[Callable[[], None]] = []

    def take(self, coming: PendingModel, same: bool) -> None:
        """Handle an opened model; `same` if it was open before, perhaps on other texts."""
        raise NotImplementedError

    def again(self, settings: LacoSettings, spans: list[list[int]] | None) -> None:
        """Handle a repeated request for the open model."""
        raise NotImplementedError

    def forget(self) -> None:
        """Forget requests whose results will not come."""
        raise NotImplementedError

    def when_opened(self, report: Callable[[], None]) -> None:
        """Register a callback that runs after a model was opened."""
        self._on_opened.append(report)

    def open(
        self,
        where: str,
        dtype: str,
        texts: TextSet,
        settings: LacoSettings,
        spans: list[list[int]] | None = None,
        device: str = "cpu",
    ) -> None:
        """Open a model on some texts and compute what the page shows first. If it is already open, request the T map only.

        The last request wins: a model still being opened is cancelled. `spans` are the folds of a link's hand-made plan.

        Raises:
            LayerscopeError: the model's path is outside the allowed folders, or is no model source.
        """
        wanted = (where, dtype, texts.fingerprint, device)
        if wanted == self.opening and self.coming is None:
            self.again(settings, spans)
            return
        self.reach.require(where.strip())
        source = parse_source(where, dtype, device)
        coming = PendingModel(source, texts, settings, spans)
        if wanted == self.opening:
            self.coming = coming
            return
        self.cancel()
        self.opening, self.coming = wanted, coming
        self.notify("")
        for component in CHARTS:
            self.page.put(component, "stale", "yes")

        def looked_at(spec: ModelSpec) -> None:
            with self.lock:
                if self.coming is not None and self.coming.source == source:  # and was not cancelled meanwhile
                    self.page.put("spec", "value", charts.spec_card(spec, source))

        self.runner.submit(Task("open", lambda: shared_model(source, looked_at), self._opened, quick=True), urgent=True)

    def _opened(self, model: Model) -> None:
        coming = self.coming
        assert coming is not None, "a model was opened that no request waits for"
        meter, same = shared_meter(model, coming.texts), self.model is model
        self.model, self.meter, self.texts, self.coming = model, meter, coming.texts, None
        self.opened += 1
        self.page.put("spec", "value", self._card(model))
        if not same:
            for component in CHARTS:
                self.page.put(component, "data", "")
        if model.spec.notes:
            self.notify(reduce(lambda notes, note: Message("{notes}; and {note}", notes=notes, note=note), model.spec.notes))
        self.take(coming, same)
        for report in self._on_opened:
            report()

    def notify(self, words: str, plan: Plan | None = None) -> None:
        """Show a message about the open model, or about a plan while that plan is shown."""
        self.notice, self.notice_of = words, blocks_key(plan.blocks) if plan else ""

    def cancel(self) -> None:
        """Stop the running task and the queue. Requests without a result are forgotten, so that they can be repeated."""
        self.runner.cancel()
        self._dropped()

    def _dropped(self) -> None:
        self.opening = None
        if self.coming is not None:  # the page still shows the previous model
            self.coming = None
            self.opened += 1  # requests were refused while it was being opened; a new number makes the page repeat them
            model = self.model
            self.page.put("spec", "value", self._card(model) if model else "{}")
            for component in CHARTS if model else ():
                self.page.put(component, "stale", "no")
        self.forget()

    def _card(self, model: Model) -> str:
        return charts.spec_card(model.spec, model.source, model.fingerprint, facts_of(model.source, self.texts))

    @property
    def ready(self) -> bool:
        """Whether a model is open and no other is being opened."""
        return self.meter is not None and self.coming is None

    def open_meter(self) -> SimilarityMeter:
        """Return the meter of the open model.

        Raises:
            LayerscopeError: no model is open yet, or another one is being opened.
        """
        if self.meter is None:
            raise LayerscopeError("no model is open yet")
        if self.coming is not None:
            raise LayerscopeError("another model is being opened; wait for it, or cancel")
        return self.meter

    def submit(self, kind: str, make: Callable[[], Job[Any]], done: Callable[[Any], None], urgent: bool = False, **how: bool) -> None:
        """Queue a job; `how` are further fields of `ui.page.bench.jobs.Task`."""
        self.runner.submit(Task(kind, make, done, **how), urgent)

    def show(self, component: str, data: str) -> None:
        """Set a chart's data and mark it as up to date."""
        self.page.put(component, "data", data)
        self.page.put(component, "stale", "no")
