"""Which workbench belongs to which tab of a browser."""

import threading
import time
from collections import deque
from functools import partial
from pathlib import Path

from ui.page.allowed_paths import AllowedPaths
from ui.page.bench.desk import Desk
from ui.page.bench.learning import Learning
from ui.page.bench.shared import release

_IDLE_FOR = 6 * 3600.0  # seconds after which an unused workbench is forgotten
_REMEMBERED = 1000  # who was forgotten, the last of them
_GONE_FOR = 300.0  # seconds after which that of a visitor who has left is; a reload takes less


class Sessions:
    """The workbenches of all open tabs. One that was opened ahead is taken over by the first visitor."""

    def __init__(self, export_folder: Path, reach: AllowedPaths = AllowedPaths()) -> None:  # noqa: B008  # frozen
        self._learning = Learning()
        self._make = partial(Desk, export_folder, self._learning, reach)
        self._lock = threading.Lock()
        self._benches: dict[str, tuple[Desk, float]] = {}
        self._ahead: Desk | None = None
        self._tabs: dict[str, str] = {}  # the open pages by what Gradio calls them, and whose they are
        self._left: dict[str, float] = {}  # who has closed the last of theirs, or whose connection broke, and when
        self._forgotten: deque[str] = deque(maxlen=_REMEMBERED)

    def arrived(self, session: str, page: str) -> None:
        """A page of a visitor has come in."""
        with self._lock:
            self._tabs[page] = session
            self._left.pop(session, None)

    def left(self, page: str) -> None:
        """A page was closed, or is being loaded again."""
        with self._lock:
            session = self._tabs.pop(page, None)
            if session is not None and session not in self._tabs.values():
                self._left[session] = time.monotonic()

    def sweep(self) -> None:
        """Forget the workbenches of who has left or has not asked for long, stop their jobs, and let go of models that nobody has open."""
        now = time.monotonic()
        with self._lock:
            gone = {key for key, (_, used) in self._benches.items() if now - max(used, self._left.get(key, now)) > _GONE_FOR}
            gone |= {key for key, (_, used) in self._benches.items() if now - used > _IDLE_FOR}
            benches = [self._benches.pop(key)[0] for key in gone]
            self._forgotten.extend(gone)
            for key in gone:
                self._left.pop(key, None)
        while benches:
            benches.pop().cancel()
        if gone:
            with self._lock:
                present = [bench for bench, _ in self._benches.values()] + ([self._ahead] if self._ahead else [])
            release([bench.model for bench in present if bench.model is not None])

    def open_ahead(self) -> Desk:
        """Return a workbench for a visitor who is yet to come."""
        self._ahead = self._make()
        return self._ahead

    def of(self, session: str) -> Desk:
        """Return the workbench of a tab, made when it first asks; asking keeps its job alive."""
        self.sweep()
        now = time.monotonic()
        with self._lock:
            if session in self._benches:
                bench = self._benches[session][0]
            else:
                bench, self._ahead = self._ahead or self._make(), None
            self._benches[session] = (bench, now)
        bench.runner.heard()
        return bench

    def forgot(self, session: str) -> bool:
        """Return whether a visitor had a workbench that was forgotten, and has none since."""
        with self._lock:
            return session in self._forgotten and session not in self._benches

    def close(self, seconds: float = 5.0) -> bool:
        """Stop all jobs, for the program is about to end; return whether they all did."""
        with self._lock:
            benches = [bench for bench, _ in self._benches.values()] + ([self._ahead] if self._ahead else [])
        closed = [bench.runner.close(seconds) for bench in benches]
        return all([*closed, self._learning.close(seconds)])
