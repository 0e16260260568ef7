"""Plans that the page shows besides those of the T map: made by hand, loaded from a file, or found by another part."""

import json
import math
from collections.abc import Callable
from typing import Any

from engine.jobs import Job, Progress
from engine.judge.similarity import Similarity, blocks_key
from engine.messages import Message
from engine.methods.depth.laco import LacoSettings, mean_and_spread
from engine.plans.description import require_depth
from engine.plans.files import of_another_model, plan_from_json
from engine.plans.rules import fold_spans
from engine.plans.tensor_store import require_tensors
from engine.types import Plan
from ui.page import charts
from ui.page.bench.opening import Opening
from ui.text.messages import method_title


class Shown(Opening):
    """The plans of one browser tab that do not come from the T map, each measured when it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = LacoSettings()  # the last requested settings
        self.spans: list[list[int]] = []  # of the hand-made plan
        self.hand: Plan | None = None
        self.file: Plan | None = None
        self.found: Plan | None = None  # from a search, a baseline, a repair or the board
        self._on_shown: list[Callable[..., None]] = []

    def when_shown(self, report: Callable[..., None]) -> None:
        """Register a callback for every plan shown on Fold that is not from the complete T map. A hand-made plan comes with the plans of
        its single folds."""
        self._on_shown.append(report)

    def set_spans(self, spans: list[list[int]]) -> None:
        """Make the hand-made plan of these spans of source layers, and measure it.

        Raises:
            PlanError: a span lies outside the model.
        """
        if self.model is None or not self.ready:
            return
        depth, rule = self.model.spec.depth, self.settings.rule
        hand = fold_spans(depth, [(first, last) for first, last in spans], rule) if spans else None
        alone = [fold_spans(depth, [(first, last)], rule) for first, last in spans]
        self.hand, self.spans = hand, spans
        self.page.put("landscape", "marks", json.dumps(spans))
        self.page.put("landscape", "alone", json.dumps([blocks_key(plan.blocks) for plan in alone]))
        if hand is None:
            self.page.put("fold", "hand", "")
            self.page.put("landscape", "hand", "")
        else:
            self._measure("hand", hand, *alone)

    def load_plan(self, value: Any) -> Plan:
        """Load a plan from its JSON, and measure it.

        Raises:
            PlanError: it is no plan, or has another depth, or one of its tensors is not on this machine.
        """
        plan = plan_from_json(value)
        meter = self.open_meter()
        require_depth(plan, meter.model.spec.depth)
        require_tensors(plan.tensors)
        self.notify(of_another_model(value, meter.model.fingerprint), plan)
        self.file = plan
        self.page.move("plan", "file")
        self._measure("file", plan)
        return plan

    def show_found(self, plan: Plan) -> None:
        """Show a plan that a search, a baseline or another part made, and measure its similarity."""
        self.take_found(plan)
        self._measure("found", plan)

    def take_found(self, plan: Plan) -> None:
        """Make this the plan shown on Fold, which all tabs work on."""
        self.found = plan
        self.page.put("fold", "found", charts.plan_data(self.open_meter().model, plan, math.nan))
        self.page.move("plan", "found")

    def _measure(self, prop: str, plan: Plan, *parts: Plan) -> None:
        meter, definition = self.open_meter(), self.settings.similarity

        def job() -> Job[Similarity]:
            yield Progress(Message("Measuring a plan of {depth} layers", depth=plan.depth))
            return meter.measure(plan.blocks, plan.prefix)

        def done(found: Similarity) -> None:
            show(mean_and_spread(found, definition)[0])

        def show(similarity: float) -> None:
            for component in ("fold", "landscape") if prop == "hand" else ("fold",):
                self.page.put(component, prop, charts.plan_data(meter.model, plan, similarity))

        show(math.nan)
        for report in self._on_shown:
            report(plan, *parts)
        self.submit(f"measure-{prop}", job, done, urgent=True, quick=True)

    def has(self, choice: str) -> bool:
        """True where there is a plan of this choice. Always true for "map", whose plan will come."""
        return {"hand-made": self.hand, "file": self.file, "found": self.found}.get(choice, self) is not None

    def label_of(self, choice: str, plan: Plan) -> str:
        """Return a plan's short name for tables."""
        known = dict(plan.settings)
        if choice == "map":
            return f"LaCo {known['rule']}, C {known['C']}, I {known['I']}, T {known['T']:.4f}"
        label = {"hand-made": Message("by hand"), "file": Message("file ({method})", method=plan.method)}.get(
            choice, method_title(plan.method)
        )
        label = Message("{label}, trimmed ({method})", label=label, method=plan.width.method) if plan.width else label
        return Message("{label}, pruned ({method})", label=label, method=plan.masks.method) if plan.masks else label
