"""The T map: every plan that Algorithm 1 can reach when only T changes, exactly.

Similarities do not depend on T, so a run at T makes the same decisions at every T' from its largest rejected similarity up to its smallest
accepted one. A run just below the largest rejected similarity gives the next plan. Nothing is sampled and no plan is missed; with the
meter's cache, each further run costs only new plans. Steps are found from T = 1 downwards, so a cancelled map contains its upper part,
exactly.
"""

import math
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Mapped
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import SettingsError
from engine.jobs import Job, Progress, T, retold
from engine.judge.cost import Cost, cost_to_json
from engine.judge.similarity import SimilarityMeter
from engine.messages import Message
from engine.methods.depth.laco import LacoSettings, Proposal, propose
from engine.plans.files import plan_to_json
from engine.search.runtime_estimate import MapEffort
from engine.types import Block, Plan


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the T map: every T in [t_from, t_to) gives this proposal; the first step also includes T = 1."""

    t_from: float
    t_to: float
    proposal: Proposal

    def holds(self, threshold: float) -> bool:
        """Return whether this T gives this proposal."""
        return self.t_from <= threshold < self.t_to or threshold == self.t_to == 1.0


@dataclass(frozen=True, slots=True)
class Frontier:
    """Every plan that Algorithm 1 can reach over T in [t_min, 1], highest T first; of a cancelled map, the steps found so far.

    `complete` is whether the steps reach t_min; otherwise they reach the last one's `t_from`.
    """

    t_min: float
    steps: tuple[Step, ...]

    @property
    def complete(self) -> bool:
        """Whether no step is missing."""
        return bool(self.steps) and self.steps[-1].t_from <= self.t_min


class Mapping:
    """One T map over [t_min, 1] for fixed C, I, L, H, rule and similarity. `found` contains the steps found so far."""

    def __init__(
        self, meter: SimilarityMeter, settings: LacoSettings, t_min: float = 0.5, report: Callable[[Step], object] = lambda step: None
    ) -> None:
        """The settings' own T is ignored; `tell` is called with every step as soon as it is found, the highest T first.

        Raises:
            SettingsError: t_min is not a number in [-1, 1], or see `LacoSettings.checked`.
        """
        require_t_min(t_min)
        self.settings = replace(settings, T=1.0).checked(meter.model.spec.depth)
        self._meter, self._tell = meter, report
        self._effort, self._estimated = MapEffort(meter, self.settings, t_min), False
        self.found = Frontier(t_min, ())

    def run(self) -> Job[Frontier]:
        """Find the missing steps and return the whole map."""
        self._meter.keep_trails()
        while not self.found.complete:
            yield from self._advance()
        return self.found

    def estimated(self, job: Job[T]) -> Job[T]:
        """Run a job that measures candidates of this map; once, before the first of them, yield the estimate for the whole map."""
        with closing(job):
            while True:
                try:
                    step = next(job)
                except StopIteration as end:
                    return end.value
                if not self._estimated:
                    yield Progress(Message("Running the texts through the model"))
                    self._estimated = True
                    yield self._effort.estimate()
                yield step

    def _advance(self) -> Job[None]:
        """Find the next step."""
        steps, t_min = self.found.steps, self.found.t_min
        upper = steps[-1].t_from if steps else math.inf
        below = retold(step_below(self._meter, self.settings, upper, t_min), lambda _: self._effort.measuring(upper))
        step = yield from self.estimated(below)
        self._effort.passed(sum(not trial.accepted and trial.similarity > t_min for trial in step.proposal.trials), step.t_from)
        self.found = Frontier(t_min, (*steps, step))
        self._tell(step)


def frontier(meter: SimilarityMeter, settings: LacoSettings, t_min: float = 0.5) -> Job[Frontier]:
    """Return the whole T map: see `Mapping`."""
    return Mapping(meter, settings, t_min).run()


def step_below(meter: SimilarityMeter, settings: LacoSettings, upper: float, t_min: float) -> Job[Step]:
    """Return the step of a T map whose interval ends at `upper`, or the first step if that is infinite.

    The last step begins at t_min.
    """
    threshold, upper = min(max(math.nextafter(upper, -math.inf), t_min), 1.0), min(upper, 1.0)
    proposal = yield from propose(meter, replace(settings, T=threshold))
    rejected = [t.similarity for t in proposal.trials if not t.accepted and not math.isnan(t.similarity)]
    lower = max(*rejected, t_min) if rejected else t_min
    return Step(lower, upper, _at(proposal, lower))


def step_around(meter: SimilarityMeter, settings: LacoSettings, t_min: float = 0.5) -> Job[Step]:
    """Return the step of the T map that contains the settings' own T: one run of Algorithm 1, as exact as every step.

    Raises:
        SettingsError: see `frontier`.
    """
    require_t_min(t_min)
    meter.keep_trails()  # the whole map is likely to follow
    proposal = yield from propose(meter, settings)
    rejected = [t.similarity for t in proposal.trials if not t.accepted and not math.isnan(t.similarity)]
    accepted = [t.similarity for t in proposal.trials if t.accepted]
    lowest = max([t_min, *rejected])
    return Step(lowest, min([1.0, *accepted]), _at(proposal, lowest))


def require_t_min(t_min: float) -> None:
    """Raise SettingsError unless t_min is a number in [-1, 1]."""
    if not -1.0 <= t_min <= 1.0:
        raise SettingsError("t_min is {t_min}; it must be a number between -1 and 1", t_min=t_min)


def _at(proposal: Proposal, threshold: float) -> Proposal:
    """Return a proposal whose recorded T is the lower end of its interval, which reproduces it."""
    named = tuple((key, threshold if key == "T" else value) for key, value in proposal.plan.settings)
    return replace(proposal, plan=replace(proposal.plan, settings=named))


def step_at(frontier: Frontier, threshold: float) -> Step:
    """Return the step that contains T; a T below the map gives its last step."""
    return next((step for step in frontier.steps if threshold >= step.t_from), frontier.steps[-1])


def outwards(steps: Sequence[Step], shown: int) -> tuple[Plan, ...]:
    """Return the plans of a T map in the order in which their costs are measured: that of the step `shown`, then its neighbours from near
    to far, the lower T before the higher; plans of the same blocks once."""
    order = sorted(range(len(steps)), key=lambda place: (abs(place - shown), place < shown))
    plans: dict[tuple[Block, ...], Plan] = {}
    for place in order:
        plan = steps[place].proposal.plan
        plans.setdefault(plan.blocks, plan)
    return tuple(plans.values())


def step_to_json(step: Step, costs: Mapped[tuple[Block, ...], Cost] | None = None) -> dict[str, Any]:
    """Return one step of a T map, with its cost where costs were measured; it is a plan file too."""
    plan = step.proposal.plan
    cost = {} if costs is None else {"cost": cost_to_json(costs.get(plan.blocks))}
    return {"t_from": step.t_from, "t_to": step.t_to, "depth": plan.depth, **cost, "plan": plan_to_json(plan)}


def frontier_to_json(frontier: Frontier, costs: Mapped[tuple[Block, ...], Cost] | None = None) -> dict[str, Any]:
    """Return a T map: the settings all its steps share, the steps from the highest T down, and whether those come down to t_min."""
    shared = {key: value for key, value in frontier.steps[0].proposal.plan.settings if key != "T"}
    steps = [step_to_json(step, costs) for step in frontier.steps]
    return {"settings": {**shared, "t_min": frontier.t_min}, "complete": frontier.complete, "steps": steps}
