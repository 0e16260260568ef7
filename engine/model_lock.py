"""Whose turn it is: one model, many jobs, each in a thread of its own, any of which may be told to stop.

A job stops where it yields. In between it may be deep in a forward pass, or wait for a model that another job is using:
there `check_cancelled` stops it, and `Turn` says whom it waits for.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LOOK = 0.05  # seconds between two looks at whether a job that waits is still wanted
_RECENT = 2.0  # seconds for which a job that had to wait counts as waiting: turns are short, and there are many


class Cancelled(BaseException):
    """The running job is no longer wanted. No Exception, so that nobody takes it for something that went wrong."""


@dataclass(eq=False, slots=True)
class Work:
    """What a thread works on: its name, whether it is to stop, and whose turn it last had to wait for, and when."""

    name: str = ""
    stopped: Callable[[], bool] = lambda: False
    behind: str = ""
    waited: float = -_RECENT

    @property
    def waits_for(self) -> str | None:
        """The name of the work that this one is kept waiting by, or None."""
        return self.behind if time.monotonic() - self.waited < _RECENT else None


class _Here(threading.local):
    def __init__(self) -> None:
        self.work = Work()


_here = _Here()


@contextmanager
def working(name: str, stopped: Callable[[], bool]) -> Iterator[Work]:
    """Make this thread's work known by a name, and able to be stopped."""
    before, _here.work = _here.work, Work(name, stopped)
    try:
        yield _here.work
    finally:
        _here.work = before


def check_cancelled() -> None:
    """Stop here if this thread's work is no longer wanted: for loops that cannot yield.

    Raises:
        Stopped: it is not.
    """
    if _here.work.stopped():
        raise Cancelled


class Turn:
    """A lock that is taken in the order it was asked for, so that two jobs on one model take turns; one may take it again.

    Raises on entering:
        Stopped: the work is no longer wanted, while it waits.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[Work] = deque()  # whose turn it is, and who waits
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
