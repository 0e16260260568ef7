"""Turns on a model: several jobs, each in its own thread, share one model, and any of them may be cancelled.

A job can be cancelled where it yields. In between it may be deep in a forward pass, or waiting for a model that another job uses: there
`check_cancelled` cancels it, and `Turn` reports which job it waits for.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LOOK = 0.05  # seconds between two checks whether a waiting job was cancelled
_RECENT = 2.0  # seconds for which a job that had to wait counts as waiting: turns are short and frequent


class Cancelled(BaseException):
    """The running job was cancelled. It is not an Exception, so that no handler mistakes it for a failure."""


@dataclass(eq=False, slots=True)
class Work:
    """A thread's work: its name, whether it is cancelled, and which work it last waited for, and when."""

    name: str = ""
    stopped: Callable[[], bool] = lambda: False
    behind: str = ""
    waited: float = -_RECENT

    @property
    def waits_for(self) -> str | None:
        """The name of the work that this one is waiting for, or None."""
        return self.behind if time.monotonic() - self.waited < _RECENT else None


class _Here(threading.local):
    def __init__(self) -> None:
        self.work = Work()


_here = _Here()


@contextmanager
def working(name: str, stopped: Callable[[], bool]) -> Iterator[Work]:
    """Register this thread's work under a name, and make it cancellable."""
    before, _here.work = _here.work, Work(name, stopped)
    try:
        yield _here.work
    finally:
        _here.work = before


def check_cancelled() -> None:
    """Raise if this thread's work was cancelled: for loops that cannot yield.

    Raises:
        Cancelled: the work was cancelled.
    """
    if _here.work.stopped():
        raise Cancelled


class Turn:
    """A reentrant lock granted in the order of requests, so that two jobs on one model alternate.

    Raises on entering:
        Cancelled: the work was cancelled while waiting.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[Work] = deque()  # the current holder, then those that wait
        self._times = 0

    def __enter__(self) -> "Turn":
        work = _here.work
        with self._changed:
            if self._queue and self._queue[0] is work:
                self._times += 1
                return self
            self._queue.append(work)
            try:
                while self._queue[0] is not work:
                    if not self._changed.wait(_LOOK):
                        work.behind, work.waited = self._queue[0].name, time.monotonic()
                    check_cancelled()
            except BaseException:
                self._queue.remove(work)
                self._changed.notify_all()
                raise
            self._times = 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._times -= 1
            if not self._times:
                self._queue.popleft()
                self._changed.notify_all()
