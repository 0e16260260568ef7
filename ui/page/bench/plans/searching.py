"""The Search tab: searches for better plans, and makes baselines."""

import json
import threading
from typing import Any

from engine.cache import plain
from engine.jobs import Job
from engine.judge.cost import practice_texts
from engine.judge.objectives import OBJECTIVES, PRACTICE_TOKENS, Found, Objective
from engine.methods.depth.baselines import BASELINES, baseline, require_target
from engine.recover.repair.seam_maps import objective_for_repair, repair_best, require_repair
from engine.search.search import Search, rivals
from engine.search.settings import SearchSettings, Target
from engine.search.targets import layers_for
from engine.types import Model, Plan
from ui.page import charts
from ui.page.bench.workbench import Workbench


class Searching:
    """The Search tab of one workbench. One search runs at a time and shows improvements as they come."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._lock = threading.Lock()
        self._shown: dict[str, Any] = {"history": [], "baselines": [], "others": None}
        self._objective: tuple[Any, Objective] | None = None
        self._model: Model | None = None
        bench.when_opened(self._opened)

    def _opened(self) -> None:
        model = self.bench.open_meter().model
        if model is not self._model:
            self._model, self._objective = model, None
            self._tell(history=[], baselines=[], others=None, plan=None, depth=model.spec.depth, keep=None)

    def start(self, target: Target, asked: SearchSettings) -> None:
        """Search for a target. The best plan so far is the plan "from search" at any time, also after a cancel."""
        objective, seconds = asked.objective, asked.seconds
        OBJECTIVES.require(objective)
        model = self.bench.open_meter().model
        keep = layers_for(model.spec, model.config, target)
        goal = self._goal(objective)
        wider = objective_for_repair(goal) if asked.repair else goal
        if asked.repair:
            require_repair(wider)
        run = Search(goal, keep, seconds, asked.survivors, report=self._found, guess=self._found)
        self._tell(history=[], plan=None, keep=keep, objective=objective, seconds=seconds, others=None)

        def job() -> Job[Found]:
            found = yield from (run.exhaust() if asked.exhaustive else run.run())
            if asked.exhaustive:
                others = yield from rivals(goal, keep, found[-1].score)
                self._tell(others={"optimum": found[-1].score, "times": {name: ratio for name, (_, ratio) in others.items()}})
            return (yield from repair_best(wider, run.best(3))) if asked.repair else found[-1]

        def done(found: Found) -> None:
            if asked.repair:
                self._found(found)
            self.bench.show_found(found.plan)

        self.bench.submit("search", job, done, urgent=True)

    def make_baseline(self, method: str, keep: int, objective: str, **settings: Any) -> None:
        """Make a baseline's plan, score it like the search's plans, and show it."""
        BASELINES.require(method)
        OBJECTIVES.require(objective)
        require_target(self.bench.open_meter().model.spec.depth, keep)
        goal = self._goal(objective)

        def job() -> Job[tuple[Plan, float]]:
            plan = yield from baseline(goal, method, keep, **settings)
            return plan, goal.score(plan)

        def done(result: tuple[Plan, float]) -> None:
            plan, score = result
            others = [
                entry
                for entry in self._shown["baselines"]
                if (entry["method"], entry["depth"], entry["objective"]) != (method, keep, objective)
            ]
            self._tell(baselines=[*others, {"method": method, "depth": keep, "objective": objective, "score": score}])
            self.bench.show_found(plan)

        self.bench.submit("baseline", job, done, urgent=True)

    def _goal(self, objective: str) -> Objective:
        texts = practice_texts(self.bench.texts.name)
        model = self.bench.open_meter().model
        key = (id(model), texts.fingerprint, objective)
        if self._objective is None or self._objective[0] != key:
            self._objective = (key, Objective(model, texts, objective, PRACTICE_TOKENS))
        return self._objective[1]

    def _found(self, found: Found) -> None:
        point = {"score": found.score, "seconds": found.seconds, "forwards": found.forwards, "stage": found.stage}
        self.bench.take_found(found.plan)
        history = [one for one in self._shown["history"] if one["stage"] != "guess"]  # a guess is scored on less text
        self._tell(history=[*history, point], plan=charts.plan_parts(self.bench.open_meter().model, found.plan))

    def _tell(self, **news: Any) -> None:
        with self._lock:
            self._shown = {**self._shown, **news}
            self.bench.page.put("search", "data", json.dumps(plain(self._shown)))
