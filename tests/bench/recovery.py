"""A recovery run killed a hundred times: it must lose nothing and end with the same result."""

import random
import subprocess
import time
from pathlib import Path

from engine.errors import LayerscopeError
from tests.bench.lab import Row
from tests.recovering import DEEP, assert_same, begun, going_on, literate

KILLS, SPREAD = 100, 1.1  # moments go a little beyond the time that a run takes to its end, so that some runs get there


def kills(row: Row, folder: Path) -> None:
    """Kill whole processes, from their first line to the last file that they move, at moments that know nothing of what they do."""
    model, chance = literate(folder / "model", "gpt2"), random.Random(0)
    whole = begun(model, DEEP, folder / "whole", accumulate=2)
    began = time.monotonic()
    assert going_on(("finish", whole)).wait() == 0
    took = time.monotonic() - began
    killed = lost = different = number = 0
    while killed < KILLS:
        run = begun(model, DEEP, folder / f"run-{number}", accumulate=2)
        number += 1
        while run.state != "done" or run.probe.exists():
            child, began = going_on(("finish", run)), time.monotonic()
            try:
                child.wait(chance.uniform(0, SPREAD * took) if killed < KILLS else None)
                took = min(took, time.monotonic() - began)  # a shared machine has quicker moments
            except subprocess.TimeoutExpired:
                child.kill()
                killed += 1
            if child.wait() > 0:  # it ended by itself, and badly
                lost += 1
                break
        else:
            try:
                assert_same(whole, run)
            except (AssertionError, LayerscopeError):
                different += 1
    row(f"{killed} kills at random moments, {number} runs: lost, different", f"{lost}, {different}", "0, 0", lost + different == 0)
