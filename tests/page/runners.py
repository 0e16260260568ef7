"""A runner whose tasks a test controls."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from engine.jobs import Job, Progress
from tests.waiting import wait_for_jobs, wait_until
from ui.page.bench.jobs import Runner, Task


class Bench:
    """A runner and a record of what its tasks did. A task runs until its gate is opened, a step every few milliseconds."""

    def __init__(self) -> None:
        self.runner = Runner()
        self.log: list[str] = []
        self.gates: dict[str, threading.Event] = {}

    def task(self, kind: str, name: str = "", yielding: bool = False, waits: bool = False, error: Exception | None = None) -> Task:
        name = name or kind
        self.gates[name] = threading.Event()
        if not waits:
            self.gates[name].set()

        def job() -> Job[str]:
            self.log.append(f"{name} starts")
            try:
                while not self.gates[name].is_set():
                    yield Progress(name, 0.5)
                    time.sleep(0.002)
                if error is not None:
                    raise error
                yield Progress(name, 1.0)
                return name
            finally:
                self.log.append(f"{name} closes")

        return Task(kind, job, lambda result: self.log.append(f"{result} is done"), yielding)

    def started(self, name: str, times: int = 1) -> None:
        wait_until(lambda: self.log.count(f"{name} starts") >= times)


def whole(*names: str) -> list[str]:
    """The record of tasks that ran to their end, one after another."""
    return [line for name in names for line in (f"{name} starts", f"{name} closes", f"{name} is done")]


@contextmanager
def a_bench() -> Iterator[Bench]:
    """A bench, and at the end nothing that runs."""
    bench = Bench()
    yield bench
    bench.runner.cancel()
    for gate in bench.gates.values():
        gate.set()
    wait_for_jobs()
