"""Find every plan that LaCo can reach, with its cost: the T maps of all C, I and rules, best first.

Each setting's map proceeds down from T = 1 step by step, and each new plan is measured immediately on the texts of quick costs. The next
setting is the one whose last plan was closest to the best of its depth; an untried setting counts as its rule's typical plan. A cancelled
sweep has therefore found the useful plans, and a rule that ruins the model waits until the others are done. All settings share one cache of
similarities; plans of the same blocks are measured once.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from engine.jobs import Job, Progress, retold, within
from engine.judge.cost import Cost, cost_of, cost_to_json
from engine.judge.evaluation import Judge
from engine.judge.similarity import SimilarityMeter
from engine.messages import Message
from engine.methods.depth.laco import LacoSettings
from engine.plans.files import plan_to_json
from engine.plans.rules import RULES
from engine.search.frontier import require_t_min, step_below
from engine.search.settings import SweepSettings
from engine.types import Block, Plan

WIDTHS = (4, 3, 5, 2, 6, 7, 8)  # C, starting at the paper's value
INTERVALS = (2, 1, 3, 4)  # I


@dataclass(frozen=True, slots=True)
class SweepEntry:
    """A plan from the setting (rule, C, I, T), and its cost; `settings` counts the combinations of rule, C and I that give it."""

    rule: str
    C: int
    I: int
    T: float
    plan: Plan
    cost: Cost
    settings: int


class _Map:
    """One setting's T map, as far as it is known."""

    def __init__(self, settings: LacoSettings) -> None:
        self.settings, self.upper = settings, math.inf
        self.plans: list[tuple[Block, ...]] = []


class Sweep:
    """One sweep over all rules, C and I. `found` contains the plans so far; `entries` is the current result."""

    def __init__(
        self,
        meter: SimilarityMeter,
        judge: Judge,
        settings: LacoSettings | None = None,
        seconds: float | None = None,
        t_min: float = 0.5,
        report: Callable[[SweepEntry], object] = lambda entry: None,
    ) -> None:
        """L, H and the similarity are those of `settings`; `tell` is called with every plan as soon as its cost is known.

        Raises:
            SettingsError: the time or t_min is invalid, or see `LacoSettings.checked`.
        """
        SweepSettings(seconds).checked()
        require_t_min(t_min)
        depth = meter.model.spec.depth
        base = replace(settings or LacoSettings(), T=1.0)
        rules = sorted(RULES, key=lambda rule: rule == "paper")  # last, because it changes the scale that the model was trained at
        chosen = ((c, i, rule) for c, i, rule in itertools.product(WIDTHS, INTERVALS, rules) if c <= depth)
        self.meter, self.judge, self.t_min = meter, judge, t_min
        self.seconds = math.inf if seconds is None else seconds
        self.found: dict[tuple[Block, ...], SweepEntry] = {}
        self._maps = [_Map(replace(base, C=c, I=i, rule=rule).checked(depth)) for c, i, rule in chosen]
        self._best: dict[int, float] = {}  # the logarithm of the least ratio at each depth
        self._tell = report

    @property
    def entries(self) -> tuple[SweepEntry, ...]:
        """The plans found so far, from the most layers to the fewest, the cheapest first within a depth."""
        return tuple(sorted(self.found.values(), key=lambda entry: (-entry.plan.depth, _log_ratio(entry))))

    def run(self) -> Job[tuple[SweepEntry, ...]]:
        """Sweep until every map has reached t_min or the time is up, and return `entries`."""
        began, share = time.monotonic(), 0.0
        self.meter.keep_trails()

        def relabelled(step: Progress) -> Progress:
            nonlocal share
            share = min(max(share, self._mapped, (time.monotonic() - began) / self.seconds), 1.0)
            return replace(step, fraction=share)

        yield from within(retold(self._run(), relabelled), self.seconds)
        return self.entries

    @property
    def _mapped(self) -> float:
        """The completed share of all maps, each over [t_min, 1]."""
        return fmean((1.0 - min(one.upper, 1.0)) / max(1.0 - self.t_min, 1e-9) for one in self._maps)

    def _run(self) -> Job[None]:
        waiting = list(self._maps)
        while waiting:
            usual = {rule: self._usual(rule) for rule in RULES}
            chosen = min(waiting, key=lambda one: self._regret(one.plans[-1]) if one.plans else usual[one.settings.rule])
            now = chosen.settings
            yield from self._advance(
                chosen,
                Progress(
                    Message("Sweep: {count} plans; now rule {rule}, C {c}, I {i}", count=len(self.found), rule=now.rule, c=now.C, i=now.I)
                ),
            )
            if chosen.upper <= self.t_min:
                waiting.remove(chosen)

    def _advance(self, one: _Map, relabelled: Progress) -> Job[None]:
        """Take a map's next step."""
        yield relabelled  # even if everything is cached
        step = yield from retold(step_below(self.meter, one.settings, one.upper, self.t_min), lambda _: relabelled)
        yield from retold(self._take(one, step.proposal.plan, step.t_from), lambda _: relabelled)
        one.upper = step.t_from

    def _take(self, one: _Map, plan: Plan, threshold: float) -> Job[None]:
        """Measure a plan that a map has reached, or count one more setting for a known plan."""
        known = self.found.get(plan.blocks)
        if known is None:
            cost = cost_of((yield from self.judge.judge(plan)))
            entry = SweepEntry(one.settings.rule, one.settings.C, one.settings.I, threshold, plan, cost, 1)
            self.found[plan.blocks] = entry
            self._best[plan.depth] = min(self._best.get(plan.depth, math.inf), _log_ratio(entry))
            self._tell(entry)
        elif plan.blocks not in one.plans:
            self.found[plan.blocks] = replace(known, settings=known.settings + 1)
        one.plans.append(plan.blocks)

    def _regret(self, blocks: tuple[Block, ...]) -> float:
        """Return how much more a plan costs than the best of its depth, as a logarithm of ratios."""
        cost = _log_ratio(self.found[blocks])
        return math.inf if math.isinf(cost) else cost - self._best[len(blocks)]

    def _usual(self, rule: str) -> float:
        """Return the median regret of a rule's plans; 0 if it was not tried."""
        regrets = [
            self._regret(blocks)
            for blocks, entry in self.found.items()
            if entry.rule == rule and entry.plan.depth < entry.plan.source_depth
        ]
        return median(regrets) if regrets else 0.0


def _log_ratio(entry: SweepEntry) -> float:
    ratio = entry.cost.ratio
    return math.log(ratio) if math.isfinite(ratio) and ratio > 0 else math.inf


def sweep_to_json(entries: Sequence[SweepEntry]) -> dict[str, Any]:
    """Return a sweep's plans in their order, each with a setting that gives it; each is a plan file too."""
    return {"plans": [_entry_to_json(entry) for entry in entries]}


def _entry_to_json(entry: SweepEntry) -> dict[str, Any]:
    setting = {"rule": entry.rule, "C": entry.C, "I": entry.I, "T": entry.T}
    return {**setting, "depth": entry.plan.depth, "cost": cost_to_json(entry.cost), "plan": plan_to_json(entry.plan)}
