"""What the neighbours of a workbench that study its width and weights have in common."""

from engine.judge.cost import practice_texts
from engine.judge.practice import practice_packs
from engine.models.texts import Pack
from engine.types import Model
from ui.page.bench.costing import Costing
from ui.page.bench.workbench import Workbench


class Lab:
    """Studies the open model on practice texts; what was found is let go of once the model or the texts are others."""

    def __init__(self, bench: Workbench, costing: Costing) -> None:
        self.bench, self.costing = bench, costing
        self._of: tuple[Model, str] | None = None  # the model and the practice texts that all of it is of
        bench.when_opened(self._opened)

    def _opened(self) -> None:
        model, practice = self.bench.open_meter().model, practice_texts(self.bench.texts.name).fingerprint
        if self._of != (model, practice):
            self._of = (model, practice)
            self.begin(model)
        self.tell()

    def begin(self, model: Model) -> None:
        """Another model, or other texts: nothing is known of it yet."""
        raise NotImplementedError

    def tell(self) -> None:
        """Tell the page all that is known."""
        raise NotImplementedError

    def packs(self, tokens: int) -> tuple[Pack, ...]:
        """Return practice texts of about so many tokens."""
        return practice_packs(self.bench.open_meter().model, practice_texts(self.bench.texts.name), tokens)
