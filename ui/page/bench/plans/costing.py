"""Quick costs of plans: the cost that Fold shows next to similarity, for every step of the T map and every other plan shown."""

import json
from dataclasses import asdict
from typing import Any

from engine.cache import plain
from engine.errors import PlanError
from engine.jobs import Job, as_part, drain
from engine.judge.cost import LEVELS, Cost, cost_of, costs, place_of
from engine.judge.evaluation import Judge
from engine.judge.similarity import blocks_key
from engine.messages import Message
from engine.search.frontier import outwards, step_at
from engine.types import Plan
from ui.page.bench.shared import shared_judge
from ui.page.bench.workbench import Workbench


class Costing:
    """The costs of one workbench's plans on the practice texts, keyed by the names of their blocks.

    Requested plans are measured first. The other plans of the map follow in the background, nearest to T first.
    """

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._costs: dict[str, Cost] = {}
        self._asked: list[Plan] = []
        self._judge: Judge | None = None
        bench.when_opened(self._opened)
        bench.when_mapped(self._mapped)
        bench.when_shown(self.ask)

    def stand(self, choice: str, threshold: float) -> None:
        """Handle a page that rests on a plan without a known cost: measure it first. Does nothing where the background job already runs."""
        self.bench.look(threshold)
        try:
            plan, _ = self.bench.chosen(choice, threshold)
        except PlanError:  # no plan yet; `_mapped` requests the cost when the map is ready
            return
        if blocks_key(plan.blocks) in self._costs:
            self._tell()
        elif choice != "map" or self.bench.preview is not None:
            self.ask(plan)
        elif (self.bench.runner.state() or ("",))[0] != "costs":
            self._fill(first=plan)

    def ask(self, *plans: Plan) -> None:
        """Measure these plans before all others."""
        self._asked = [*plans, *(plan for plan in self._asked if plan not in plans)]
        self.bench.submit("cost", self._answering, lambda _: None, urgent=True, yielding=True, quick=True)

    def of(self, plan: Plan) -> Cost | None:
        """Return a plan's cost, or None if unknown."""
        return self._costs.get(blocks_key(plan.blocks))

    def learn(self, plan: Plan, cost: Cost) -> None:
        """Store a cost that another task measured with the same judge."""
        self._costs[blocks_key(plan.blocks)] = cost

    def measured(self, plans: list[Plan]) -> Job[None]:
        """Measure these plans as a part of another task."""
        yield from costs(self.judge(), plans, self.learn)
        self._tell()

    def _opened(self) -> None:
        self._judge, self._costs, self._asked = None, {}, []
        self._tell()
        if shown := [plan for plan in (self.bench.hand, self.bench.file, self.bench.found) if plan is not None]:
            self.ask(*shown)  # the practice texts may have changed, so the costs are measured again

    def _mapped(self) -> None:
        assert self.bench.map is not None
        self._fill(first=step_at(self.bench.map, self.bench.T).proposal.plan)

    def _fill(self, first: Plan) -> None:
        self.ask(first)
        self.bench.submit("costs", self._filling, lambda _: None, yielding=True)

    def _answering(self) -> Job[None]:
        self._recall()
        while self._asked:
            plan = self._asked[0]
            yield from self._measure(plan)
            self._asked = [other for other in self._asked if other is not plan]  # `ask` may have added plans meanwhile

    def _filling(self) -> Job[None]:
        """Measure the unknown step nearest to T until all are known. The order follows T."""
        self._recall()
        while (plan := self._nearest()) is not None:
            plans = {blocks_key(step.proposal.plan.blocks) for step in self.bench.map.steps} if self.bench.map else set()
            done, total = len(plans & set(self._costs)), len(plans)
            yield from as_part(
                self._measure(plan),
                Message("Plan {number} of {count} ({depth} layers)", number=done + 1, count=total, depth=plan.depth),
                done,
                total,
            )

    def _nearest(self) -> Plan | None:
        if self.bench.map is None:
            return None
        steps = self.bench.map.steps
        order = outwards(steps, steps.index(step_at(self.bench.map, self.bench.T)))
        return next((plan for plan in order if self.of(plan) is None), None)

    def _recall(self) -> None:
        """Send the cached costs of the map and of the requested plans to the page."""
        steps = self.bench.map.steps if self.bench.map else ()
        plans = [*self._asked, *(step.proposal.plan for step in steps)]
        known = [plan for plan in plans if self.of(plan) is None and self.judge().known(plan)]
        if known:
            self._costs |= {blocks_key(plan.blocks): cost_of(drain(self.judge().judge(plan))) for plan in known}
            self._tell()

    def _measure(self, plan: Plan) -> Job[None]:
        if self.of(plan) is None:
            self._costs[blocks_key(plan.blocks)] = cost_of((yield from self.judge().judge(plan)))
        self._tell()

    def of_one(self, plan: Plan) -> Job[Cost]:
        """Return a plan's cost as a part of another task, without storing it for the page."""
        return cost_of((yield from self.judge().judge(plan)))

    def judge(self) -> Judge:
        """Return the judge of quick costs on the open model."""
        if self._judge is None:
            self._judge = shared_judge(self.bench.open_meter().model, self.bench.texts.name)
        return self._judge

    def _tell(self) -> None:
        of = {name: told_of(cost) for name, cost in self._costs.items()}
        known: dict[str, Any] = {"of": of, "limits": [limit for limit, *_ in LEVELS[:-1]]}
        if self._judge is not None:
            known |= {"tokens": self._judge.protocol.tokens, "texts": self._judge.protocol.texts}
        self.bench.page.put("costs", "value", json.dumps(plain(known)))


def told_of(cost: Cost) -> dict[str, Any]:
    """Return a cost for the page: its figures, and its level's place in LEVELS."""
    return {**asdict(cost), "level": place_of(cost.ratio)}
