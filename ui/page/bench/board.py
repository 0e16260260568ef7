"""The board: plans of one model that somebody pinned, with everything that was measured of them. Lasts across restarts."""

import threading
from typing import Any

from engine.cache import content_key, load_result, plain, save_result
from engine.errors import PlanError
from engine.judge.similarity import blocks_key
from engine.plans.files import plan_from_json, plan_to_json
from engine.types import DepthPlan

_lock = threading.Lock()  # two tabs may hold the same model's board


class Board:
    """The pinned plans of one model, by the names of their blocks, in the order of pinning. Every change is on disk at once."""

    def __init__(self, fingerprint: str) -> None:
        self._key = content_key(fingerprint)

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return all entries by name: label, plan as JSON, and what was measured (evaluation, samples, speed, memory)."""
        known = load_result("boards", self._key)
        return known if isinstance(known, dict) else {}

    def pin(self, plan: DepthPlan, label: str, **measured: Any) -> str:
        """Add a plan, or what was newly measured of one that is there; return its name."""
        name = blocks_key(plan.blocks)
        with _lock:
            entries = self.entries()
            entry = entries.setdefault(name, {"label": label, "plan": plan_to_json(plan)})
            entry.update(plain(measured))
            save_result("boards", self._key, plain(entries))
        return name

    def remove(self, name: str) -> None:
        """Take a plan off the board."""
        with _lock:
            entries = self.entries()
            entries.pop(name, None)
            save_result("boards", self._key, entries)

    def plan(self, name: str) -> DepthPlan:
        """Return a pinned plan.

        Raises:
            PlanError: it is no longer there.
        """
        entry = self.entries().get(name)
        if entry is None:
            raise PlanError("this plan is no longer on the board")
        return plan_from_json(entry["plan"])
