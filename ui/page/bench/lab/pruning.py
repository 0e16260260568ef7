"""The Weights tab: prunes weights of the plan shown, and measures the cost of several sparsities by each method."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine.cache import plain
from engine.errors import SettingsError
from engine.jobs import Job
from engine.messages import Message
from engine.methods.definitions import pruning_by
from engine.methods.masks.distributions import Distributions
from engine.methods.masks.pruning import MASKS, prune, wanted_by
from engine.methods.masks.selection import wanted
from engine.methods.masks.settings import PruneSettings
from engine.methods.runtime_estimate import pruning_seconds
from engine.models.texts import Pack, tokens_in
from engine.plans.rules import untouched
from engine.types import Model, Plan
from ui.page.bench.lab.base import Lab
from ui.page.bench.plans.costing import Costing
from ui.page.bench.plans.curves import Curves, Point
from ui.page.bench.runtime_estimate import when_paced
from ui.page.bench.workbench import Workbench

CURVES = ("magnitude", "wanda", "gblm", "sparsegpt")
SPARSITIES = (0.5, 0.7, 0.3)


class Pruning(Lab):
    """Prunes weights of one workbench's plans."""

    def __init__(self, bench: Workbench, costing: Costing) -> None:
        super().__init__(bench, costing)
        self._lost: dict[str, Any] = {}
        self._curves = Curves("mask-costs", self)

    def begin(self, model: Model) -> None:
        self._lost = {}
        self._curves.forget()

    def publish(self) -> None:
        self.bench.show("masks", json.dumps(plain({"lost": self._lost, "curves": self._curves.points}, 5)))

    def learn(self, method: str, found: Distributions) -> None:
        """Store what a method's scores leave at each sparsity, measured on Importance."""
        self._lost[method] = {"projections": found.projections, "lost": [[one.lost for one in row] for row in found.layers]}
        self.publish()

    def prune(self, choice: str, threshold: float, asked: PruneSettings, tokens: int, **settings: Any) -> None:
        """Prune weights of the plan shown on the page; the pruned plan becomes the plan shown. A pattern comes before a sparsity.

        Raises:
            SettingsError: there is neither a sparsity above 0 nor a pattern.
        """
        model, plan = self.bench.open_meter().model, self.bench.chosen(choice, threshold)[0].dense
        method = asked.method
        if not (asked.pattern or asked.sparsity):
            raise SettingsError("no weight would become zero: choose a sparsity above 0")
        want = wanted_by(replace(asked, sparsity=None) if asked.pattern else asked)

        def job() -> Job[Plan]:
            packs = self.packs(tokens) if MASKS[method].settings.needs else ()  # type: ignore[attr-defined]
            return (yield from prune(model, plan, packs, method, want, settings))

        self.bench.submit("prune", job, self.bench.show_found, urgent=True)

    def times(self, method: str, tokens: int) -> dict[str, Any]:
        """Return the number of practice tokens that the method reads where `tokens` are requested, and the seconds it takes here."""
        model = self.bench.open_meter().model
        read = tokens_in(self.packs(tokens)) if MASKS.require(method).settings.needs else 0  # type: ignore[attr-defined]
        return when_paced(self.bench, "mask-times", lambda: {"tokens": read, "seconds": {"prune": pruning_seconds(model, method, read)}})

    def curves(self, sparsity: float = SPARSITIES[0]) -> None:
        """Measure the cost of a few sparsities by each method on the unchanged model, nearest to the slider first."""
        nearest = sorted(SPARSITIES, key=lambda one: abs(one - sparsity))
        self._curves.measure([self._point(method, one) for one in nearest for method in CURVES])

    def _point(self, method: str, sparsity: float) -> Point:
        model, want = self.bench.open_meter().model, wanted(sparsity, None, MASKS[method].settings.group)  # type: ignore[attr-defined]

        def make(packs: Sequence[Pack]) -> Job[Plan]:
            return prune(model, untouched(model.spec.depth), packs, method, want)

        facts = (("method", method), ("sparsity", sparsity))
        return Point(
            f"{method} {sparsity}",
            facts,
            Message("Sparsity {sparsity:.0%}, {method}", sparsity=sparsity, method=method),
            pruning_by(method),
            make,
        )
