"""Runs engine jobs for one workbench: one thread per job, with progress and cancel. Jobs outlive a page reload."""

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

_MIN_FRACTION = 0.03  # share of a task that must be done before the remaining time is estimated
_NICE = 10  # niceness of tasks that are not quick, so that other threads and programs go first
log = logging.getLogger("layerscope")
ABANDONED_AFTER = 180.0  # seconds without a request; browsers slow a hidden tab's timer to one tick a minute


@dataclass(frozen=True, slots=True)
class Task:
    """A job to run: `make` starts it, `done` receives its result in the job's thread. A task replaces another of the same kind.

    A more urgent task may interrupt a `yielding` one, which later starts again from what is cached. A `quick` task keeps its priority: the
    user waits for it, and most of it is cached. Other tasks run at low priority, so that the page, other sessions and the browser stay
    responsive.
    """

    kind: str
    make: Callable[[], Job[Any]]
    done: Callable[[Any], None]
    yielding: bool = False
    quick: bool = False


class Interrupted(Exception):  # noqa: N818  # not an error: a cancel
    """Raised inside the runner only: the job was stopped from outside."""


class Runner:
    """A queue of tasks that run one at a time. All methods may be called from any thread.

    `dropped` is called when the runner itself clears the queue: a task failed, or no page sent a request for ABANDONED_AFTER seconds.
    If `lasting`, tasks continue without requests.
    """

    def __init__(self, dropped: Callable[[], object] = lambda: None, lasting: bool = False) -> None:
        self._dropped, self._lasting = dropped, lasting
        self.lock = threading.RLock()  # shared with the runner's owner, so that a result is published as a whole
        self._queue: list[Task] = []
        self._current: Task | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._progress, self._began = Progress(""), time.monotonic()
        self._work = Work()
        self._ended = False  # the running task has ended and its result is being handled
        self._heard = time.monotonic()
        self.problem: str | None = None  # shown to the user; "" stands for a bug, whose traceback is in the log
        self._problem_kind: str | None = None

    def set_problem(self, problem: str | None, kind: str | None = None) -> None:
        """Show a problem, or none. A problem of a `kind` disappears when a task of that kind succeeds."""
        self.problem, self._problem_kind = problem, kind

    def content(self, kind: str | None = None) -> None:
        """Clear the problem; with a `kind`, only a problem of that kind."""
        if kind in (None, self._problem_kind):
            self.set_problem(None)

    def submit(self, task: Task, urgent: bool = False) -> None:
        """Queue a task. An urgent task goes first and interrupts a yielding one."""
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
        """Stop the running task and clear the queue; with a `kind`, only tasks of that kind."""
        with self.lock:
            self._queue = [task for task in self._queue if kind is not None and task.kind != kind]
            if self._current is not None and kind in (None, self._current.kind):
                self._stop.set()

    def close(self, seconds: float) -> bool:
        """Cancel all tasks and wait up to `seconds` for the running one; return whether it stopped."""
        self.cancel()
        if self._thread is not None:
            self._thread.join(seconds)
        return self.state() is None

    def heard(self) -> None:
        """Register a request from a page."""
        self._heard = time.monotonic()

    def state(self) -> tuple[str, Progress] | None:
        """Return the running task's kind and progress, or None when nothing runs."""
        with self.lock:
            return (self._current.kind, self._progress) if self._current is not None else None

    def waiting(self) -> tuple[str, ...]:
        """Return the kinds of the queued tasks."""
        with self.lock:
            return tuple(task.kind for task in self._queue)

    def waiting_for(self) -> str | None:
        """Return the kind of another tab's task that blocks the running one, or None."""
        return self._work.waits_for

    def stopping(self) -> bool:
        """True while the running task is being cancelled and the queue is empty."""
        with self.lock:
            return self._current is not None and self._stop.is_set() and not self._queue

    def seconds_left(self) -> float | None:
        """Return an estimate of the running task's remaining seconds, or None while too little is done for one."""
        with self.lock:
            done, took = self._progress.fraction, time.monotonic() - self._began
            return took / done * (1 - done) if self._current is not None and done and done >= _MIN_FRACTION and took >= 1 else None

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
                self._execute(task)
            else:  # in its own thread: lowered priority cannot be raised again, and threads started here inherit it
                apart = threading.Thread(target=self._execute_nice, args=(task,), daemon=True, name=threading.current_thread().name)
                apart.start()
                apart.join()
        finally:
            with self.lock:  # else a page that polls between two tasks would see none and stop polling
                self._current = None
                self._start()

    def _execute_nice(self, task: Task) -> None:
        if sys.platform == "linux":  # niceness is per thread on Linux, per process elsewhere
            os.nice(_NICE)
        self._execute(task)

    def _execute(self, task: Task) -> None:
        try:
            with working(task.kind, self._stop.is_set) as self._work:
                result = self._drain(task)
            with self.lock:
                if self._stop.is_set():  # cancelled after its last step
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
            if self._stop.is_set():  # cancelled or replaced: no error to report
                log.info("%s stopped: %r", task.kind, error)
                return
            if not isinstance(error, LayerscopeError):
                log.error("%s failed", task.kind, exc_info=error)
            self.set_problem(error.message if isinstance(error, LayerscopeError) else "", task.kind)
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
