"""A workbench with its neighbours: everything one tab of the browser works on."""

from pathlib import Path

from ui.page.bench.comparison import Comparison
from ui.page.bench.costing import Costing
from ui.page.bench.searching import Searching
from ui.page.bench.sweeping import Sweeping
from ui.page.bench.workbench import Workbench


class Desk(Workbench):
    """The workbench, the board beside it, the search that runs on it, and what its plans cost, and the sweep over all."""

    def __init__(self, export_folder: Path) -> None:
        super().__init__(export_folder)
        self.comparison = Comparison(self)
        self.searching = Searching(self)
        self.costing = Costing(self)
        self.sweeping = Sweeping(self, self.comparison, self.costing)
