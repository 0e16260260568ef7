"""A killed export leaves nothing that looks like a checkpoint, and the next export removes its remains.

`make soak` kills two hundred; here it is a few.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.export.checkpoint.export import export
from engine.export.checkpoint.target import ASIDE
from engine.methods.depth.baselines import plan_of_kept
from engine.models.loading import load_with_transformers
from engine.types import Model
from tests.exporting import write
from ui.terminal.cli import stoppable

KILLS = int(os.environ.get("LAYERSCOPE_KILLS", "4"))
PLAN = plan_of_kept(6, (0, 1, 4, 5), "hand-made")


def exporting(model: Model, target: Path) -> int:
    """Begin an export in a process of its own, slowed down while it writes, and return it."""
    if child := os.fork():
        return child
    try:
        for step in export(model.source, model.folder, PLAN, target, shard_bytes=10**6):
            time.sleep(0.01 if step.label.startswith("Writing") else 0)
    finally:
        os._exit(0)


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_export_leaves_nothing_under_its_name_and_the_next_removes_what_is_left(
    number: int, tiny: Callable[..., Model], in_this_process: None, tmp_path: Path
) -> None:
    model, target, random_ = tiny("llama"), tmp_path / "out", random.Random(number)
    child = exporting(model, target)
    while number % 2 and not list(tmp_path.glob(f"{ASIDE}*/out/*")):  # half of them while it writes
        time.sleep(0.002)
    time.sleep(random_.uniform(0, 0.4 if number % 2 else 1.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if target.exists():  # it was done
        network, told = load_with_transformers(target, "auto")
        assert network.config.num_hidden_layers == 4
        assert not told["missing_keys"]
        shutil.rmtree(target)
    write(model, PLAN, target)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_terminated_export_tidies_up_by_itself(tiny: Callable[..., Model], tmp_path: Path) -> None:
    target = tmp_path / "out"
    child = os.fork()
    if not child:
        code: Any = None
        try:
            with stoppable():
                for _ in export(tiny("llama").source, tiny("llama").folder, PLAN, target):
                    time.sleep(0.02)
        except SystemExit as end:
            code = end.code
        finally:
            os._exit(0 if code == 143 and not list(tmp_path.iterdir()) else 1)
    while not list(tmp_path.glob(f"{ASIDE}*/out/*")):
        time.sleep(0.002)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
