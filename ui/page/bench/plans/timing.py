"""Speed and memory of plans with masks against their source. They are measured because ordinary kernels gain little from zeros."""

import json
from typing import Any

from engine.cache import plain
from engine.jobs import Job
from engine.judge.similarity import blocks_key
from engine.models.devices import free_bytes
from engine.types import Model, Plan
from ui.page.bench.board import Board
from ui.page.bench.plans.measuring import measurement
from ui.page.bench.workbench import Workbench


class Timing:
    """The speed and memory of one workbench's plans with masks.

    A shown plan is timed after more urgent jobs, if memory has room for a second copy of the weights. Otherwise the user starts it.
    """

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._known: dict[str, dict[str, Any]] = {}
        self._model: Model | None = None
        bench.when_opened(self._opened)
        bench.when_shown(self._shown)

    def of(self, plan: Plan) -> dict[str, Any]:
        """Return the fields "speed" and "memory" of a plan, measured here or on the board; empty where neither has them."""
        name = blocks_key(plan.blocks)
        pinned = Board(self.bench.open_meter().model.fingerprint).entries().get(name, {})
        known = self._known.get(name) or pinned
        return {field: known[field] for field in ("speed", "memory") if known.get(field)}

    def measure(self, plan: Plan) -> None:
        """Time a plan against its source."""
        wanted = measurement("speed", self.bench.open_meter().model, plan, {})

        def job() -> Job[None]:
            self._known[blocks_key(plan.blocks)] = plain((yield from wanted()))

        self.bench.submit("zeros", job, lambda _: self._tell(), yielding=True)

    def _opened(self) -> None:
        model = self.bench.open_meter().model
        if model is not self._model:
            self._model, self._known = model, {}
            self._tell()

    def _shown(self, plan: Plan, *_parts: Plan) -> None:
        if plan.masks is None:
            return
        if known := self.of(plan):
            self._known[blocks_key(plan.blocks)] = known
            self._tell()
        elif free_bytes(self.bench.open_meter().model.source.device) > self.bench.open_meter().model.spec.bytes:
            self.measure(plan)

    def _tell(self) -> None:
        self.bench.page.put("zeros", "value", json.dumps(plain({"of": self._known})))
