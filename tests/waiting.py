"""Waiting for the page's job threads."""

import threading
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 600.0) -> None:
    """Return as soon as the condition holds; fail when it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def wait_for_jobs() -> None:
    """Return when no runner has anything left to do: a job's thread starts the next one before it ends."""
    wait_until(lambda: not any(thread.name.startswith("job-") for thread in threading.enumerate()))
