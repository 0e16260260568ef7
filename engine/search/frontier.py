"""The T map: every plan that Algorithm 1 can reach when only T moves, exactly.

Similarities do not depend on T, so a run at T decides the same at every T' from its largest rejected similarity up to
its smallest accepted one. Running again just below the largest rejected similarity gives the next plan. Nothing is
sampled, nothing is missed; the meter's memory makes each further run cost only the plans it has not seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.errors import SettingsError
from engine.jobs import Job, Progress, retold
from engine.judge.similarity import SimilarityMeter
from engine.methods.laco import LacoSettings, Proposal, propose
from engine.types import Block, Plan


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the T map: every T in [t_from, t_to) gives this proposal; the first step also holds T = 1."""

    t_from: float
    t_to: float
    proposal: Proposal

    def holds(self, threshold: float) -> bool:
        """True where this T gives this proposal."""
        return self.t_from <= threshold < self.t_to or threshold == self.t_to == 1.0


@dataclass(frozen=True, slots=True)
class Frontier:
    """Every plan that Algorithm 1 can reach over T in [t_min, 1], highest T first."""

    t_min: float
    steps: tuple[Step, ...]


def frontier(meter: SimilarityMeter, settings: LacoSettings, t_min: float = 0.5) -> Job[Frontier]:
    """Return the whole T map over [t_min, 1] for fixed C, I, L, H, rule and similarity; the settings' own T is ignored.

    Raises:
        SettingsError: t_min is no number in [-1, 1], or see `LacoSettings.checked`.
    """
    require_t_min(t_min)
    settings = replace(settings, T=1.0).checked(meter.model.spec.depth)
    meter.share_trails()
    steps: list[Step] = []
    while not steps or steps[-1].t_from > t_min:
        steps.append((yield from step_below(meter, settings, steps[-1].t_from if steps else math.inf, t_min)))
    return Frontier(t_min, tuple(steps))


def step_below(meter: SimilarityMeter, settings: LacoSettings, upper: float, t_min: float) -> Job[Step]:
    """Return the step of a T map whose interval ends at `upper`, or the first one where that is infinite.

    The last step is the one that begins at t_min.
    """
    threshold, upper = min(max(math.nextafter(upper, -math.inf), t_min), 1.0), min(upper, 1.0)
    proposal = yield from _share(propose(meter, replace(settings, T=threshold)), upper, t_min)
    rejected = [t.similarity for t in proposal.trials if not t.accepted and not math.isnan(t.similarity)]
    lower = max(*rejected, t_min) if rejected else t_min
    return Step(lower, upper, _at(proposal, lower))


def step_around(meter: SimilarityMeter, settings: LacoSettings, t_min: float = 0.5) -> Job[Step]:
    """Return the step of the T map that holds the settings' own T: one run of Algorithm 1, and exact as every step is.

    Raises:
        SettingsError: see `frontier`.
    """
    require_t_min(t_min)
    meter.share_trails()  # the whole map is likely to be asked for next
    proposal = yield from propose(meter, settings)
    rejected = [t.similarity for t in proposal.trials if not t.accepted and not math.isnan(t.similarity)]
    accepted = [t.similarity for t in proposal.trials if t.accepted]
    lowest = max([t_min, *rejected])
    return Step(lowest, min([1.0, *accepted]), _at(proposal, lowest))


def require_t_min(t_min: float) -> None:
    """Raise SettingsError unless t_min is a number in [-1, 1]."""
    if not -1.0 <= t_min <= 1.0:
        raise SettingsError(f"t_min is {t_min}; it must be a number between -1 and 1")


def _at(proposal: Proposal, threshold: float) -> Proposal:
    """The same proposal, naming the lower end of its interval as its T: a setting that gives it again."""
    named = tuple((key, threshold if key == "T" else value) for key, value in proposal.plan.settings)
    return replace(proposal, plan=replace(proposal.plan, settings=named))


def _share(job: Job[Proposal], upper: float, t_min: float) -> Job[Proposal]:
    """Run one proposal, its progress told as the share of [t_min, 1] that is mapped."""
    mapped = Progress(f"Mapping T: {upper:.3f} and above is done", (1.0 - upper) / max(1.0 - t_min, 1e-9))
    return retold(job, lambda _: mapped)


def step_at(frontier: Frontier, threshold: float) -> Step:
    """Return the step that holds T; a T below the map gives its last step."""
    return next((step for step in frontier.steps if threshold >= step.t_from), frontier.steps[-1])


def outwards(steps: Sequence[Step], shown: int) -> tuple[Plan, ...]:
    """Return the plans of a T map in the order in which a person at the step `shown` wants their costs: that one's first, then
    its neighbours', from near to far, the lower T before the higher; plans of the same blocks once."""
    order = sorted(range(len(steps)), key=lambda place: (abs(place - shown), place < shown))
    plans: dict[tuple[Block, ...], Plan] = {}
    for place in order:
        plan = steps[place].proposal.plan
        plans.setdefault(plan.blocks, plan)
    return tuple(plans.values())
