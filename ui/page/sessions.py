"""Sessions: which workbench belongs to which browser tab."""

import threading
import time
from collections import deque
from functools import partial
from pathlib import Path

from ui.page.allowed_paths import AllowedPaths
from ui.page.bench.desk import Desk
from ui.page.bench.shared import release
from ui.page.bench.training.learning import Learning

_IDLE_FOR = 6 * 3600.0  # seconds without a request after which a workbench is closed
_REMEMBERED = 1000  # how many closed sessions are remembered
_GONE_FOR = 300.0  # seconds after the last page of a session closed; a reload takes less


class Sessions:
    """The workbenches of all open tabs. The first session takes over the workbench that was opened ahead."""

    def __init__(self, export_folder: Path, reach: AllowedPaths = AllowedPaths()) -> None:  # noqa: B008  # frozen
        self._learning = Learning()
        self._make = partial(Desk, export_folder, self._learning, reach)
        self._lock = threading.Lock()
        self._benches: dict[str, tuple[Desk, float]] = {}
        self._ahead: Desk | None = None
        self._tabs: dict[str, str] = {}  # open pages: Gradio's session hash to our session key
        self._left: dict[str, float] = {}  # sessions without an open page, and since when (monotonic seconds)
        self._forgotten: deque[str] = deque(maxlen=_REMEMBERED)

    def arrived(self, session: str, page: str) -> None:
        """Register a loaded page of a session."""
        with self._lock:
            self._tabs[page] = session
            self._left.pop(session, None)

    def left(self, page: str) -> None:
        """Register that a page was closed or is reloading."""
        with self._lock:
            session = self._tabs.pop(page, None)
            if session is not None and session not in self._tabs.values():
                self._left[session] = time.monotonic()

    def sweep(self) -> None:
        """Close the workbenches of sessions that left or are idle, cancel their jobs, and release models that no session has open."""
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
        """Return a workbench for the first visitor, before the visit."""
        self._ahead = self._make()
        return self._ahead

    def of(self, session: str) -> Desk:
        """Return the session's workbench. The first request makes it; each request keeps its jobs alive."""
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
        """Return whether this session's workbench was closed and not made again since."""
        with self._lock:
            return session in self._forgotten and session not in self._benches

    def close(self, seconds: float = 5.0) -> bool:
        """Cancel all jobs before the program exits; return whether all ended within `seconds` each."""
        with self._lock:
            benches = [bench for bench, _ in self._benches.values()] + ([self._ahead] if self._ahead else [])
        closed = [bench.runner.close(seconds) for bench in benches]
        return all([*closed, self._learning.close(seconds)])
