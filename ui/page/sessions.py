"""Which workbench belongs to which tab of a browser."""

import threading
import time
from pathlib import Path

from ui.page.bench.desk import Desk
from ui.page.bench.learning import Learning

_IDLE_FOR = 6 * 3600.0  # seconds after which an unused workbench is forgotten


class Sessions:
    """The workbenches of all open tabs. One that was opened ahead is taken over by the first visitor."""

    def __init__(self, export_folder: Path) -> None:
        self._export_folder = export_folder
        self._learning = Learning()
        self._lock = threading.Lock()
        self._benches: dict[str, tuple[Desk, float]] = {}
        self._ahead: Desk | None = None

    def open_ahead(self) -> Desk:
        """Return a workbench for a visitor who is yet to come."""
        self._ahead = Desk(self._export_folder, self._learning)
        return self._ahead

    def of(self, session: str) -> Desk:
        """Return the workbench of a tab, made when it first asks; asking keeps its job alive."""
        now = time.monotonic()
        with self._lock:
            for key in [key for key, (_, used) in self._benches.items() if now - used > _IDLE_FOR]:
                self._benches.pop(key)[0].runner.cancel()
            if session in self._benches:
                bench = self._benches[session][0]
            else:
                bench, self._ahead = self._ahead or Desk(self._export_folder, self._learning), None
            self._benches[session] = (bench, now)
        bench.runner.heard()
        return bench

    def close(self, seconds: float = 5.0) -> bool:
        """Stop all jobs, for the program is about to end; return whether they all did."""
        with self._lock:
            benches = [bench for bench, _ in self._benches.values()] + ([self._ahead] if self._ahead else [])
        closed = [bench.runner.close(seconds) for bench in benches]
        return all([*closed, self._learning.close(seconds)])
