"""The Explore tab: which layers of the open model repeat each other."""

from dataclasses import asdict
from typing import Any

from engine.jobs import Job
from engine.judge.similarity import cached_profile
from engine.methods.width.minitron import RemovalPerplexity, removal_perplexity
from engine.passes.profiling import Profile, weight_distance
from ui.page import charts
from ui.page.bench.workbench import Workbench


class Exploring:
    """The Explore tab of one workbench: profiles every opened model and compares its weights."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        bench.when_opened(self._opened)

    def _opened(self) -> None:
        bench, model = self.bench, self.bench.open_meter().model
        bench.submit(
            "profile", lambda: cached_profile(bench.open_meter()), self._profiled, urgent=True, quick=True
        )  # it is shown first, so it runs first
        bench.submit("weights", lambda: weight_distance(model), self._weighed, yielding=True)

    def _profiled(self, found: Profile) -> None:
        self.bench.profile = found
        self.bench.show("similarity", charts.similarity_data(found, None))
        self.bench.show("norms", charts.encode({"norms": asdict(found.norms)}))

    def _weighed(self, found: Any) -> None:
        self.bench.show("weights", charts.encode(asdict(found)))

    def measure_removal(self) -> None:
        """Start a job that measures perplexity without each single layer."""
        bench, meter = self.bench, self.bench.open_meter()

        def job() -> Job[tuple[Profile, RemovalPerplexity]]:
            shown = bench.profile or (yield from cached_profile(meter))
            return shown, (yield from removal_perplexity(meter))

        def done(found: tuple[Profile, RemovalPerplexity]) -> None:
            bench.profile = found[0]
            bench.show("similarity", charts.similarity_data(*found))

        bench.submit("removal", job, done, urgent=True, yielding=True)
