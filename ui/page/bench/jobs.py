"""Runs engine jobs for one workbench: one thread a job, progress to look at, cancel, and a life beyond a page reload."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from engine.errors import LayerscopeError
from engine.jobs import Job, Progress
from engine.model_lock import Cancelled, Work, working

_TELLING = 0.03  # the share of a task that must be done before anything is said of the rest
_NICE = 10  # by how much other threads and programs go before a task that is not quick
log = logging.getLogger("layerscope")
ABANDONED_AFTER = 180.0  # seconds without a page asking; browsers slow a hidden tab's timer down to one tick a minute


@dataclass(frozen=True, slots=True)
class Task:
    """A job to run: `make` starts it, `done` takes its result (in the job's thread). A task of a kind replaces another
    of the same kind. A `yielding` one may be interrupted by a more urgent one and starts again from what is cached. Somebody looks on
    while a `quick` one runs, of which most is remembered; every other one leaves the processors to whoever wants them: the page, other
    visitors, the browser beside it."""

    kind: str
    make: Callable[[], Job[Any]]
    done: Callable[[Any], None]
    yielding: bool = False
    quick: bool = False


class Interrupted(Exception):  # noqa: N818  # no error: somebody wanted it
    """Raised inside the runner only: the job was stopped from outside."""


class Runner:
    """A queue of tasks, worked off one at a time. All methods may be called from any thread.

    `dropped` is called when the runner itself forgets what waits: a task failed, or no page asks any more; `lasting` tasks go on when
    nobody asks.
    """

    def __init__(self, dropped: Callable[[], object] = lambda: None, lasting: bool = False) -> None:
        self._dropped, self._lasting = dropped, lasting
        self.lock = threading.RLock()  # also that of whoever owns the runner, so that a result is taken in one piece
        self._queue: list[Task] = []
        self._current: Task | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._progress, self._began = Progress(""), time.monotonic()
        self._work = Work()
        self._ended = False  # the running task has its result and tells of it
        self._heard = time.monotonic()
        self.problem: str | None = None  # what a person is told; "" stands for a bug, whose traceback is in the log
        self._culprit: str | None = None

    def complain(self, problem: str | None, kind: str | None = None) -> None:
        """Tell the page of a problem, or of none; one of a kind of task goes away when such a task succeeds."""
        self.problem, self._culprit = problem, kind

    def content(self, kind: str | None = None) -> None:
        """Take back what the page was told; or only if it was of this kind of task."""
        if kind in (None, self._culprit):
            self.complain(None)

    def submit(self, task: Task, urgent: bool = False) -> None:
        """Queue a task; an urgent one goes first, and past a yielding one that is running."""
        with self.lock:
            self.heard()
            self._queue = [other for other in self._queue if other.kind != task.kind]
            current = self._current
            if current is not None and current.kind == task.kind:
                self._stop.set()
            elif current is not None and urgent and current.yielding and not self._ended and not self._stop.is_set():
                self._queue.insert(0, current)
                self._stop.set()
            self._queue.insert(0 if urgent else len(self._queue), task)
            if current is None:
                self._start()

    def cancel(self, kind: str | None = None) -> None:
        """Stop the running task and forget the waiting ones; or only those of one kind."""
        with self.lock:
            self._queue = [task for task in self._queue if kind is not None and task.kind != kind]
            if self._current is not None and kind in (None, self._current.kind):
                self._stop.set()

    def close(self, seconds: float) -> bool:
        """Cancel, and wait for the running task to come to its next step; return whether it did."""
        self.cancel()
        if self._thread is not None:
            self._thread.join(seconds)
        return self.state() is None

    def heard(self) -> None:
        """A page has asked: somebody is still there."""
        self._heard = time.monotonic()

    def state(self) -> tuple[str, Progress] | None:
        """Return the running task's kind and progress, or None when nothing runs."""
        with self.lock:
            return (self._current.kind, self._progress) if self._current is not None else None

    def waiting(self) -> tuple[str, ...]:
        """Return the kinds of the tasks that wait for the running one."""
        with self.lock:
            return tuple(task.kind for task in self._queue)

    def waiting_for(self) -> str | None:
        """Return the kind of another tab's task that the running one is kept waiting by, or None."""
        return self._work.waits_for

    def stopping(self) -> bool:
        """True where the running task was told to stop, has not stopped yet, and nothing comes after it."""
        with self.lock:
            return self._current is not None and self._stop.is_set() and not self._queue

    def seconds_left(self) -> float | None:
        """Return how long the running task will still take, judged by how long it took so far; None while that says little."""
        with self.lock:
            done, took = self._progress.fraction, time.monotonic() - self._began
            return took / done * (1 - done) if self._current is not None and done and done >= _TELLING and took >= 1 else None

    def _start(self) -> None:
        with self.lock:
            if self._current is not None or not self._queue:
                return
            self._current, self._progress, self._began = self._queue.pop(0), Progress(""), time.monotonic()
            self._stop.clear()
            self._ended = False
            self._thread = threading.Thread(target=self._run, args=(self._current,), daemon=True, name=f"job-{self._current.kind}")
            self._thread.start()

    def _run(self, task: Task) -> None:
        try:
            if task.quick:
                self._work_off(task)
            else:  # in a thread of its own: a priority that was given up is not had back, neither here nor in threads that are started here
                apart = threading.Thread(target=self._work_aside, args=(task,), daemon=True, name=threading.current_thread().name)
                apart.start()
                apart.join()
        finally:
            with self.lock:  # in between nothing would seem to run, and a page that looks then would stop asking
                self._current = None
                self._start()

    def _work_aside(self, task: Task) -> None:
        if sys.platform == "linux":  # where this is said of a thread, not of the whole process
            os.nice(_NICE)
        self._work_off(task)

    def _work_off(self, task: Task) -> None:
        try:
            with working(task.kind, self._stop.is_set) as self._work:
                result = self._drain(task)
            with self.lock:
                if self._stop.is_set():  # between its last step and now
                    raise Interrupted
                self.content(task.kind)
                self._ended = True
                task.done(result)
        except (Interrupted, Cancelled):
            log.info("%s stopped", task.kind)
        except Exception as error:
            self._fail(task, error)

    def _fail(self, task: Task, error: Exception) -> None:
        with self.lock:
            if self._stop.is_set():  # it was cancelled or replaced; how it ended is nobody's concern
                log.info("%s stopped: %r", task.kind, error)
                return
            if not isinstance(error, LayerscopeError):
                log.error("%s failed", task.kind, exc_info=error)
            self.complain(str(error) if isinstance(error, LayerscopeError) else "", task.kind)
            self._drop()

    def _drop(self) -> None:
        self.cancel()
        self._dropped()

    def _drain(self, task: Task) -> Any:
        with closing(task.make()) as job:
            while True:
                try:
                    self._progress = next(job)
                except StopIteration as end:
                    if self._stop.is_set():
                        raise Interrupted from None
                    return end.value
                if not self._lasting and time.monotonic() - self._heard > ABANDONED_AFTER:
                    self._drop()
                if self._stop.is_set():
                    raise Interrupted
