"""Opening models: which one is open, which is on its way, and what belongs to it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from engine.errors import LayerscopeError
from engine.jobs import Job
from engine.judge.similarity import SimilarityMeter, blocks_key
from engine.methods.laco import LacoSettings
from engine.models.sources import parse_source
from engine.models.texts import bundled
from engine.types import Model, ModelSource, ModelSpec, Plan, TextSet
from ui.page import charts
from ui.page.allowed_paths import AllowedPaths
from ui.page.bench.jobs import Runner, Task
from ui.page.bench.shared import shared_meter, shared_model
from ui.page.bench.view_updates import ViewUpdates
from ui.text.commands import facts_of

# The components whose data is of the open model and its texts.
CHARTS = ("similarity", "norms", "weights", "landscape", "fold", "importance", "widths", "widthcosts", "masks")


@dataclass(frozen=True, slots=True)
class Coming:
    """What is being opened; nothing of it is in use until the model is there. `spans` None: no link came with it."""

    source: ModelSource
    texts: TextSet
    settings: LacoSettings
    spans: list[list[int]] | None


class Opening:
    """The open model of one tab of the browser, and its jobs.

    Everything a tab shows belongs to one opening, whose number is `opened`. Between asking for another model and having it
    nothing else is taken on; what the page sends with another number is dropped (`ui.page.handlers`). Whoever builds on
    this says what to do with a model that was opened (`take`), with the same words said again (`again`), and what was asked
    for and will not come (`forget`).
    """

    def __init__(self) -> None:
        self.page = ViewUpdates()
        self.reach = AllowedPaths()
        self.runner = Runner(self._dropped)
        self.lock = self.runner.lock
        self.opened = 0
        self.notice, self.notice_of = "", ""  # what a person is told that is no mistake of theirs, and the name of the plan it is about
        self.model: Model | None = None
        self.meter: SimilarityMeter | None = None
        self.texts: TextSet = bundled("english")
        self.opening: tuple[str, str, str, str] | None = None  # what is open or being opened: model, dtype, texts, device
        self.coming: Coming | None = None
        self._on_opened: list[Callable[[], None]] = []

    def take(self, coming: Coming, same: bool) -> None:
        """A model has been opened; `same` where it was open before, on other texts perhaps."""
        raise NotImplementedError

    def again(self, settings: LacoSettings, spans: list[list[int]] | None) -> None:
        """What is open was asked for again."""
        raise NotImplementedError

    def forget(self) -> None:
        """What was asked for and is not there will not come."""
        raise NotImplementedError

    def when_opened(self, tell: Callable[[], None]) -> None:
        """Call this whenever a model has been opened."""
        self._on_opened.append(tell)

    def open(
        self,
        where: str,
        dtype: str,
        texts: TextSet,
        settings: LacoSettings,
        spans: list[list[int]] | None = None,
        device: str = "cpu",
    ) -> None:
        """Open a model on some texts and work out what the page shows first; if it is open already, ask for the map alone.

        What was being opened is given up: the last one asked for wins. `spans` are those of a link's hand-made plan.
        """
        wanted = (where, dtype, texts.fingerprint, device)
        if wanted == self.opening and self.coming is None:
            self.again(settings, spans)
            return
        self.reach.require(where.strip())
        source = parse_source(where, dtype, device)
        coming = Coming(source, texts, settings, spans)
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
                if self.coming is not None and self.coming.source == source:  # and it was not given up meanwhile
                    self.page.put("spec", "value", charts.spec_card(spec, source))

        self.runner.submit(Task("open", lambda: shared_model(source, looked_at), self._opened, quick=True), urgent=True)

    def _opened(self, model: Model) -> None:
        coming = self.coming
        assert coming is not None, "nothing is opened that nobody waits for"
        meter, same = shared_meter(model, coming.texts), self.model is model
        self.model, self.meter, self.texts, self.coming = model, meter, coming.texts, None
        self.opened += 1
        self.page.put("spec", "value", self._card(model))
        if not same:
            for component in CHARTS:
                self.page.put(component, "data", "")
        if model.spec.notes:
            self.notify(reduce(lambda told, note: f"{told}; and {note}", model.spec.notes))
        self.take(coming, same)
        for tell in self._on_opened:
            tell()

    def notify(self, words: str, plan: Plan | None = None) -> None:
        """Tell a person something of the open model, or of a plan: that stands there while the plan is shown."""
        self.notice, self.notice_of = words, blocks_key(plan.blocks) if plan else ""

    def cancel(self) -> None:
        """Stop whatever runs or waits. What was asked for and is not there is forgotten, so that it can be asked again."""
        self.runner.cancel()
        self._dropped()

    def _dropped(self) -> None:
        self.opening = None
        if self.coming is not None:  # what is shown is still of the model that was open before
            self.coming = None
            self.opened += 1  # what the page asked for meanwhile was not heard; so it asks again
            model = self.model
            self.page.put("spec", "value", self._card(model) if model else "{}")
            for component in CHARTS if model else ():
                self.page.put(component, "stale", "no")
        self.forget()

    def _card(self, model: Model) -> str:
        return charts.spec_card(model.spec, model.source, model.fingerprint, facts_of(model.source, self.texts))

    @property
    def ready(self) -> bool:
        """True where a model is open and no other one is on its way."""
        return self.meter is not None and self.coming is None

    def open_meter(self) -> SimilarityMeter:
        """Return the meter of the open model.

        Raises:
            LayerscopeError: there is none yet, or another model is on its way.
        """
        if self.meter is None:
            raise LayerscopeError("no model is open yet")
        if self.coming is not None:
            raise LayerscopeError("another model is being opened; wait for it, or cancel")
        return self.meter

    def submit(self, kind: str, make: Callable[[], Job[Any]], done: Callable[[Any], None], urgent: bool = False, **how: bool) -> None:
        """Queue a job; see `ui.page.bench.jobs.Task` for how."""
        self.runner.submit(Task(kind, make, done, **how), urgent)

    def show(self, component: str, data: str) -> None:
        """Give a chart its data; with that it is up to date."""
        self.page.put(component, "data", data)
        self.page.put(component, "stale", "no")
