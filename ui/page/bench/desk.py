"""A workbench with all its parts: everything one browser tab works on."""

from pathlib import Path

from ui.page.allowed_paths import AllowedPaths
from ui.page.bench.lab.looking import Looking
from ui.page.bench.lab.pruning import Pruning
from ui.page.bench.lab.scoring import Scoring
from ui.page.bench.lab.trimming import Trimming
from ui.page.bench.plans.comparison import Comparison
from ui.page.bench.plans.costing import Costing
from ui.page.bench.plans.exploring import Exploring
from ui.page.bench.plans.saving import Saving
from ui.page.bench.plans.searching import Searching
from ui.page.bench.plans.shaping import Shaping
from ui.page.bench.plans.sweeping import Sweeping
from ui.page.bench.plans.timing import Timing
from ui.page.bench.training.learning import Learning
from ui.page.bench.training.recovering import Recovering
from ui.page.bench.training.repairing import Repairing
from ui.page.bench.workbench import Workbench


class Desk(Workbench):
    """The workbench of one tab with the parts behind its tabs: exploring, the board, searches, costs, width, weights and recoveries. All
    tabs of an app share the recoveries."""

    def __init__(self, export_folder: Path, learning: Learning | None = None, reach: AllowedPaths = AllowedPaths()) -> None:  # noqa: B008  # frozen
        super().__init__(export_folder)
        self.reach = reach
        self.exploring = Exploring(self)
        self.saving = Saving(self)
        self.timing = Timing(self)
        self.comparison = Comparison(self, self.timing)
        self.repairing = Repairing(self, self.comparison)
        self.recovering = Recovering(self, learning or Learning())
        self.searching = Searching(self)
        self.costing = Costing(self)
        self.trimming = Trimming(self, self.costing)
        self.pruning = Pruning(self, self.costing)
        self.scoring = Scoring(self, self.costing, self.pruning)
        self.looking = Looking(self, self.costing, self.scoring)
        self.shaping = Shaping(self, self.costing)
        self.sweeping = Sweeping(self, self.comparison, self.costing)
