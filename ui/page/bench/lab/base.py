"""The base of the workbench's parts that study width and weights."""

from engine.judge.cost import practice_texts
from engine.judge.practice import practice_packs
from engine.models.texts import Pack
from engine.types import Model
from ui.page.bench.plans.costing import Costing
from ui.page.bench.workbench import Workbench


class Lab:
    """Studies the open model on practice texts. Results are dropped when the model or the texts change."""

    def __init__(self, bench: Workbench, costing: Costing) -> None:
        self.bench, self.costing = bench, costing
        self._of: tuple[Model, str] | None = None  # the model and the practice texts that the results belong to
        bench.when_opened(self._opened)

    def _opened(self) -> None:
        model, practice = self.bench.open_meter().model, practice_texts(self.bench.texts.name).fingerprint
        if self._of != (model, practice):
            self._of = (model, practice)
            self.begin(model)
        self.publish()

    def begin(self, model: Model) -> None:
        """Start without results: the model or the texts have changed."""
        raise NotImplementedError

    def publish(self) -> None:
        """Send all known results to the page."""
        raise NotImplementedError

    def packs(self, tokens: int) -> tuple[Pack, ...]:
        """Return about `tokens` tokens of practice texts."""
        return practice_packs(self.bench.open_meter().model, practice_texts(self.bench.texts.name), tokens)
