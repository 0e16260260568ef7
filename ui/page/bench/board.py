"""The board: pinned plans of one model, with all their measurements. Kept on disk across restarts."""

import json
import string
import threading
from collections.abc import Mapping
from typing import Any

from engine.cache import content_key, load_result, plain, save_result
from engine.errors import PlanError
from engine.judge.similarity import blocks_key
from engine.messages import encode_message
from engine.plans.files import plan_from_json, plan_to_json
from engine.types import Plan

_lock = threading.Lock()  # two tabs may use the same model's board


class Board:
    """The pinned plans of one model, keyed by the names of their blocks, in the order of pinning. Every change is written to disk at
    once."""

    def __init__(self, fingerprint: str) -> None:
        self._key = content_key(fingerprint)

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return all entries by name: label, plan as JSON, and measurements (evaluation, samples, speed, memory)."""
        known = load_result("boards", self._key)
        return known if isinstance(known, dict) else {}

    def pin(self, plan: Plan, label: str, **measured: Any) -> str:
        """Add a plan, or new measurements of a pinned plan; return its name."""
        name = blocks_key(plan.blocks)
        with _lock:
            entries = self.entries()
            entry = entries.setdefault(name, {"label": encode_message(label), "plan": plan_to_json(plan)})
            entry.update(plain(measured))
            save_result("boards", self._key, plain(entries))
        return name

    def remove(self, name: str) -> None:
        """Remove a plan from the board."""
        with _lock:
            entries = self.entries()
            entries.pop(name, None)
            save_result("boards", self._key, entries)

    def plan(self, name: str) -> Plan:
        """Return a pinned plan.

        Raises:
            PlanError: the plan is no longer on the board.
        """
        entry = self.entries().get(name)
        if entry is None:
            raise PlanError("this plan is no longer on the board")
        return plan_from_json(entry["plan"])


def by_protocol(entries: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Group judged plans by protocol (texts, tokens, windows). Figures of different protocols cannot be ranked.

    Returns the mark of each judged entry and the protocols with their marks. The protocol with the most entries (the newest if tied) has
    the mark "" and comes first.
    """
    judged = {name: entry["evaluation"]["protocol"] for name, entry in entries.items() if entry.get("evaluation")}
    kinds: dict[str, list[str]] = {}
    for name, protocol in judged.items():
        kinds.setdefault(json.dumps(protocol, sort_keys=True), []).append(name)
    order = sorted(kinds, key=lambda kind: (len(kinds[kind]), kinds[kind][-1] == next(reversed(judged))), reverse=True)
    marks = {name: string.ascii_lowercase[place - 1] if place else "" for place, kind in enumerate(order) for name in kinds[kind]}
    return marks, [{**json.loads(kind), "mark": marks[kinds[kind][0]]} for kind in order]
