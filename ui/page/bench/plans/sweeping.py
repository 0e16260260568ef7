"""The sweep on Search: every plan that Layer Collapse can reach, with its cost, and plans of other methods for comparison."""

import json
import threading
from typing import Any

from engine.cache import plain
from engine.jobs import Job
from engine.judge.similarity import blocks_key
from engine.messages import decode_message
from engine.plans.files import plan_from_json
from engine.search.settings import SweepSettings
from engine.search.sweep import Sweep, SweepEntry
from engine.types import Plan
from ui.page.bench.plans.comparison import Comparison
from ui.page.bench.plans.costing import Costing, told_of
from ui.page.bench.workbench import T_MIN, Workbench
from ui.text.messages import method_title


class Sweeping:
    """The sweep of one workbench. Its plans are shown as they come, and stay after a cancel."""

    def __init__(self, bench: Workbench, comparison: Comparison, costing: Costing) -> None:
        self.bench, self.comparison, self.costing = bench, comparison, costing
        self._lock = threading.Lock()
        self._entries: list[dict[str, Any]] = []
        self._others: list[dict[str, Any]] = []
        self._model: Any = None
        bench.when_opened(self._opened)

    def _opened(self) -> None:
        model = self.bench.open_meter().model
        if model is not self._model:
            self._model, self._entries, self._others = model, [], []
            self._tell()

    def start(self, asked: SweepSettings) -> None:
        """Sweep around the L, H and similarity on Fold. The board's plans are measured on the same texts first.

        Raises:
            SettingsError: the time is invalid.
        """
        asked.checked()
        meter, settings = self.bench.open_meter(), self.bench.settings
        others = self._found_by_others()

        def job() -> Job[tuple[SweepEntry, ...]]:
            yield from self.costing.measured([plan for _, plan, _ in others])
            with self._lock:
                self._entries = []
                self._others = [
                    {"label": label, "depth": plan.depth, "name": blocks_key(plan.blocks), **judged, **self._cost(plan)}
                    for label, plan, judged in others
                ]
            return (yield from Sweep(meter, self.costing.judge(), settings, asked.seconds, T_MIN, self._found).run())

        self.bench.submit("sweep", job, lambda _: self._tell(), urgent=True, yielding=True)

    def _found_by_others(self) -> list[tuple[str, Plan, dict[str, Any]]]:
        """Return the board's plans and the last found plan, without those of Algorithm 1: label, plan, and the judged ratio with its
        texts."""
        found = []
        for entry in self.comparison.board.entries().values():
            plan, judged = plan_from_json(entry["plan"]), entry.get("evaluation")
            facts = {"judged": judged["perplexity"]["ratio"], "texts": judged["protocol"]["texts"]} if judged else {}
            found.append((str(decode_message(entry["label"] or method_title(plan.method))), plan, facts))
        known = {plan.blocks for _, plan, _ in found}
        if self.bench.found is not None and self.bench.found.blocks not in known:
            found.append((self.bench.found.method, self.bench.found, {}))
        return [one for one in found if one[1].method != "laco"]

    def _cost(self, plan: Plan) -> dict[str, Any]:
        cost = self.costing.of(plan)
        return told_of(cost) if cost is not None else {}

    def _found(self, entry: SweepEntry) -> None:
        self.costing.learn(entry.plan, entry.cost)
        facts = {"rule": entry.rule, "C": entry.C, "I": entry.I, "T": entry.T, "depth": entry.plan.depth}
        with self._lock:
            self._entries.append(facts | told_of(entry.cost))
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            depth = self.bench.open_meter().model.spec.depth
            data = {"depth": depth, "entries": self._entries, "others": self._others}
            self.bench.page.put("sweep", "data", json.dumps(plain(data)))
