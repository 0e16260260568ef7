"""Two processes that train one model, on CPU: torch shards over gloo as it does over nccl."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.errors import SettingsError
from engine.recover.distill.distillation import require_shareable, terms_of
from engine.recover.run.runs import Run
from engine.training.checkpoints import checkpoints
from engine.types import Model, Plan, Trim
from tests.recovering import (
    DEEP,
    NARROW,
    SENTENCES,
    STEPS,
    assert_same,
    begun,
    going_on,
    played,
    shortened,
    text_in,
    told,
    weights_in,
    with_width,
    with_zeros,
)

Open = Callable[[str], Model]
TOGETHER = 2


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(monkeypatch.setattr)


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in told(run) if "loss" in line]


def lengths(run: Run) -> list[float]:
    return [line["gradient"] for line in told(run) if "loss" in line]


def looks(run: Run) -> list[float]:
    return [line["kind"]["ratio"] for line in told(run) if "kind" in line]


ASKED: dict[str, dict[str, Any]] = {
    "adapters": {"train": "lora", "accumulate": 2, "loss": "kl+cosine"},
    "zeros": {"recompute": True, "loss": "0.5*kl+0.5*ce"},
    "stored": {"teacher": "stored", "top": 9},
    "weighed": {"update": "as printed", "every": 2},
    "text": {"loss": "ce"},
}
WITHIN = 1e-5  # relative, of all that is told of a step


@pytest.fixture(scope="module")
def shared(able: Open, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs that two processes have gone on with. They start twice: the first time they are killed in the middle of the run "killed", whose
    files "alone" is a copy of; the second time they go on with that and all others, and take the steps of the last by torch's DDP."""
    folder = tmp_path_factory.mktemp("together")
    runs = {name: begun(able("gpt2"), DEEP, folder / name) for name in ("killed", "alone", "whole")}
    kill_after(3, going_on(("finish", runs["killed"]), processes=TOGETHER), runs["killed"])
    shutil.copytree(runs["killed"].folder, runs["alone"].folder, dirs_exist_ok=True)
    kinds = {name: of_kind(able, folder / name, name) for name in ASKED}
    runs |= {**kinds, "replicated": of_kind(able, folder / "replicated", "text")}
    finished = (("finish", runs[name]) for name in ("killed", "whole"))
    learned = (("learn", run) for run in kinds.values())
    assert going_on(*finished, *learned, ("replicate", runs["replicated"]), processes=TOGETHER).wait() == 0
    return runs


def of_kind(able: Open, folder: Path, name: str) -> Run:
    """Return a run of one of the kinds that are asked for."""
    plan = with_zeros(DEEP, (32, 48)) if name == "zeros" else DEEP
    texts: tuple[str, ...] = ()
    if name == "weighed":
        halves = folder.with_suffix(".one"), folder.with_suffix(".other")
        for half, sentences in zip(halves, (SENTENCES[::2], SENTENCES[1::2]), strict=True):
            half.mkdir(exist_ok=True)
            text_in(half, sentences)
        texts = tuple(str(half / "text.txt") for half in halves)
    return begun(able("llama"), plan, folder, texts=texts, **ASKED[name])


@pytest.mark.parametrize("name", ASKED)
def test_two_processes_come_to_what_one_comes_to(able: Open, shared: dict[str, Run], tmp_path: Path, name: str) -> None:
    one, two = of_kind(able, tmp_path / name, name), shared[name]
    played(one)
    assert two.state == one.state
    assert len(losses(one)) == STEPS
    assert losses(two) == pytest.approx(losses(one), rel=1e-4, abs=1e-7)  # the smallest are differences of numbers around 10
    assert lengths(two) == pytest.approx(lengths(one), rel=1e-4)
    assert looks(two) == pytest.approx(looks(one), rel=1e-5)
    for weight, tensor in weights_in(one).items():
        assert (weights_in(two)[weight] - tensor).abs().max() < 1e-4
        if name == "zeros":
            assert ((weights_in(two)[weight] == 0) == (tensor == 0)).all()


def test_two_processes_come_to_what_torchs_ddp_comes_to(shared: dict[str, Run]) -> None:
    ours, theirs = shared["text"], shared["replicated"]
    assert len(losses(theirs)) == STEPS
    assert losses(ours) == pytest.approx(losses(theirs), rel=WITHIN)
    assert lengths(ours) == pytest.approx(lengths(theirs), rel=WITHIN)


def test_both_killed_and_started_again_come_to_the_same_bits(shared: dict[str, Run]) -> None:
    whole, killed, alone = (shared[name] for name in ("whole", "killed", "alone"))
    assert checkpoints(alone.steps)
    for path in checkpoints(alone.steps):
        assert [one.suffix for one in path.iterdir()] == [".safetensors"] * TOGETHER
    assert (whole.state, killed.state) == ("done", "done")
    assert_same(whole, killed)
    before = told(alone)
    assert len(losses(alone)) >= 3
    assert played(alone)["state"] == "learned"  # what two began, one goes on with
    assert [line for line in told(alone) if line["step"] < 3] == [line for line in before if line["step"] < 3]
    assert len(losses(alone)) == STEPS


def kill_after(steps: int, group: subprocess.Popen[bytes], run: Run) -> None:
    """Kill processes that learn together without a warning, once they have told of some steps."""
    while group.poll() is None and len(losses(run)) < steps:
        time.sleep(0.01)
    for process in [*psutil.Process(group.pid).children(recursive=True), group]:
        process.kill()
    group.wait()


@pytest.mark.parametrize(
    ("rows", "loss", "plan", "correction", "expected"),
    [
        (3, "kl", DEEP, 0.0, "3 rows cannot be divided among 2 processes"),
        (4, "kl", DEEP, 0.1, "only in one process; omit --correct-teacher"),
        (4, "kl+mse", with_width(DEEP, Trim(channels=NARROW)), 0.0, "states of a plan with fewer channels"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(rows: int, loss: str, plan: Plan, correction: float, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        require_shareable(2, rows, terms_of(loss), plan, correction)
    require_shareable(1, rows, terms_of(loss), plan, correction)
