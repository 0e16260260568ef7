"""The Importance tab: scores of heads, neurons, channels and weights, and the scores' agreement."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from engine.cache import plain
from engine.jobs import Job, as_part
from engine.judge.cost import practice_texts
from engine.methods.analysis.agreement import Layers, agreements
from engine.methods.analysis.importance import importance, needs_gradients, require_importance, scores_of
from engine.methods.analysis.slicegpt import directions
from engine.methods.masks.distributions import distributions
from engine.methods.runtime_estimate import directions_seconds, scoring_seconds
from engine.models.shapes import facts_of
from engine.models.texts import Pack, tokens_in
from engine.plans.rules import untouched
from engine.types import Model
from ui.page.bench.lab.base import Lab
from ui.page.bench.lab.pruning import Pruning
from ui.page.bench.plans.costing import Costing
from ui.page.bench.runtime_estimate import when_paced
from ui.page.bench.workbench import Workbench


class Scoring(Lab):
    """The measured scores of the open model's parts."""

    def __init__(self, bench: Workbench, costing: Costing, pruning: Pruning) -> None:
        super().__init__(bench, costing)
        self._pruning = pruning
        self._shown: dict[str, Any] = {}
        self._on_measured: list[Callable[[], None]] = []

    def when_measured(self, report: Callable[[], None]) -> None:
        """Register a callback that runs after each measured score."""
        self._on_measured.append(report)

    def begin(self, model: Model) -> None:
        shape = facts_of(model.config, model.spec)["shape"]
        self._shown = {"shape": shape, "measured": {}, "agreement": {}, "tokens": {}, "directions": None}

    def publish(self) -> None:
        self.bench.show("importance", json.dumps(plain(self._shown, 5)))

    def scores(self, axis: str) -> Mapping[str, Layers]:
        """Return the measured scores of an axis, by name."""
        found: Mapping[str, Layers] = self._shown["measured"].get(axis, {})
        return found

    def measure(self, axis: str, score: str | None, tokens: int) -> None:
        """Measure one score of an axis on the unchanged model; with `score` None, all scores that need no gradients. For channels, also
        measure the principal directions of the residual stream."""
        names = [require_importance(axis, score)] if score else quick_scores(axis)
        model = self.bench.open_meter().model

        def job() -> Job[None]:
            packs = self.packs(tokens)
            known = self._shown["tokens"].get(axis, {})
            parts = [self._measuring(model, axis, name, packs) for name in names if known.get(name) != tokens_in(packs)]
            if self._lacks_directions(axis):
                parts.append(self._directing(model, packs))
            for number, part in enumerate(parts):
                yield from as_part(part, "", number, len(parts))

        self.bench.submit("importance", job, lambda _: None, urgent=True)

    def times(self, axis: str, score: str, tokens: int) -> dict[str, Any]:
        """Return the number of practice tokens read where `tokens` are requested, and the seconds for `one` score and for `all` that
        need no gradients. A score already measured on as many tokens takes no time."""
        model, read = self.bench.open_meter().model, tokens_in(self.packs(tokens))
        asked = {"one": [require_importance(axis, score)], "all": quick_scores(axis)}
        todo = {which: [name for name in names if self._shown["tokens"].get(axis, {}).get(name) != read] for which, names in asked.items()}

        def facts() -> dict[str, Any]:
            more = directions_seconds(model, read) if self._lacks_directions(axis) else 0.0
            return {
                "tokens": read,
                "seconds": {which: more + sum(scoring_seconds(model, axis, name, read) for name in todo[which]) for which in todo},
            }

        return when_paced(self.bench, "importance-times", facts)

    def _measuring(self, model: Model, axis: str, name: str, packs: tuple[Pack, ...]) -> Job[None]:
        whole = untouched(model.spec.depth)
        if axis == "weights":
            spread = yield from distributions(model, whole, packs, name)
            found: Any = asdict(spread)
            self._pruning.learn(name, spread)
        else:
            found = (yield from importance(model, whole, packs, axis, name)).layers
        of_axis = self._learn("measured", axis, name, found)
        self._learn("tokens", axis, name, tokens_in(packs))
        if axis != "weights":
            self._shown["agreement"] = {**self._shown["agreement"], axis: [asdict(one) for one in agreements(of_axis)]}
        self._shown["texts"] = practice_texts(self.bench.texts.name).name
        self.publish()
        for report in self._on_measured:
            report()

    def _learn(self, what: str, axis: str, name: str, found: Any) -> dict[str, Any]:
        """Store a result of one score; return the results of all scores of the axis."""
        of_axis = {**self._shown[what].get(axis, {}), name: found}
        self._shown[what] = {**self._shown[what], axis: of_axis}
        return of_axis

    def _lacks_directions(self, axis: str) -> bool:
        return axis == "channels" and self._shown["directions"] is None

    def _directing(self, model: Model, packs: tuple[Pack, ...]) -> Job[None]:
        self._shown["directions"] = asdict((yield from directions(model, untouched(model.spec.depth), packs)))
        self.publish()


def quick_scores(axis: str) -> list[str]:
    """Return the scores of an axis that need no gradients."""
    return [name for name in scores_of(axis) if not needs_gradients(axis, name)]
