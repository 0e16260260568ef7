"""A stored teacher: the content of its file, that a student learns from it as from the source, and that a kill loses nothing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engine.corpus.rows import Rows
from engine.errors import MemoryLimitError, TrainingError
from engine.jobs import drain
from engine.recover.distill.distillation import LiveTeacher
from engine.recover.distill.stored_teacher import Stored
from engine.recover.run import recovery
from engine.recover.run.memory_estimate import room
from engine.recover.run.runs import Run
from engine.training.recipe import Recipe
from engine.types import Model
from tests.families import VOCABULARY
from tests.recovering import DEEP, LENGTH, ROWS, STEPS, assert_same, begun, played, shortened, stopped, told

Open = Callable[[str], Model]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(monkeypatch.setattr)


def rows_of(run: Run) -> Rows:
    return drain(recovery._opened(run)).rows


def test_the_file_holds_the_likeliest_tokens_of_each_row_and_what_is_missing(able: Open, tmp_path: Path) -> None:
    model, top = able("llama"), 5
    rows = rows_of(begun(model, DEEP, tmp_path / "run"))
    recipe = Recipe(steps=len(rows), rate=1.0, rows=3, length=LENGTH, seed=2)  # more than an epoch: each row once
    stored = Stored(tmp_path / "said", rows, recipe, top, VOCABULARY)
    drain(stored.fill(LiveTeacher(model.network, ""), "cpu"))
    assert stored.whole
    assert stored.done == len(rows)
    batch = rows.batch(len(rows) // 3 + 1, 3, 2)  # of the second epoch
    lesson, _ = stored.hear(batch.ids, batch.positions, batch.numbers, False)
    with torch.no_grad():
        logs = model.network(input_ids=batch.ids, position_ids=batch.positions, use_cache=False).logits.float().log_softmax(-1)
    kept = logs.flatten(0, 1).topk(top)
    assert torch.equal(lesson.ids, kept.indices)
    assert torch.allclose(lesson.logs.float(), kept.values, atol=2e-3)
    missing = 1 - logs.topk(top).values.exp().sum(-1).mean()
    assert stored.missing(batch.numbers.tolist()) == pytest.approx(float(missing), abs=1e-5)
    assert 0 < stored.missing() < 1


def test_a_pipe_in_its_place_is_told_and_waited_for_by_nobody(able: Open, tmp_path: Path) -> None:
    model = able("llama")
    rows = rows_of(begun(model, DEEP, tmp_path / "run"))
    os.mkfifo(tmp_path / "said")
    stored = Stored(tmp_path / "said", rows, Recipe(steps=1, rate=1.0, rows=3, length=LENGTH), 5, VOCABULARY)
    with pytest.raises(TrainingError, match="said cannot be read: it is a pipe or a device"):
        drain(stored.fill(LiveTeacher(model.network, ""), "cpu"))


def test_a_run_from_all_tokens_is_that_beside_the_source(able: Open, tmp_path: Path) -> None:
    live, stored = (begun(able("llama"), DEEP, tmp_path / way, teacher=way, top=VOCABULARY) for way in ("live", "stored"))
    played(live)
    played(stored)
    ours, theirs = ([line["loss"] for line in told(run) if "loss" in line] for run in (stored, live))
    assert ours == pytest.approx(theirs, abs=2e-3)  # the log-probabilities are float16
    assert stored.record.missing == pytest.approx(0, abs=1e-5)
    assert stored.record.quick_scores == live.record.quick_scores


def test_a_run_from_few_tokens_learns_and_tells_what_is_missing(able: Open, tmp_path: Path) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run", teacher="stored", top=8)
    answer = played(run)
    lines = [line["missing"] for line in told(run) if "loss" in line]
    assert run.record.missing is not None
    assert 0 < run.record.missing < 0.5
    assert sum(lines) / STEPS == pytest.approx(run.record.missing, rel=1e-4)
    assert answer["after"]["kind"]["ratio"] < answer["before"]["kind"]["ratio"]
    looks = [line["kind"]["ratio"] for line in told(run) if "kind" in line]
    assert min(looks[1:]) < looks[0]


def test_the_source_is_gone_while_the_student_learns(able: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def watched(school: Any, recipe: Recipe) -> Any:
        seen.append(school.model.network)
        return (yield from learn(school, recipe))

    learn = recovery.learn
    monkeypatch.setattr(recovery, "learn", watched)
    played(begun(able("llama"), DEEP, tmp_path / "run", teacher="stored"))
    assert seen == [None]


def test_a_file_that_is_not_as_it_was_written_is_told(able: Open, tmp_path: Path) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run", teacher="stored", top=8)
    stopped(run, lambda label: label.startswith("Training: step 3 "))
    run.said.write_bytes(b"\xff" * run.said.stat().st_size)
    with pytest.raises(TrainingError, match=r"teacher.bin is corrupted; delete it"):
        played(run)
    run.said.unlink()
    played(run)


@pytest.mark.parametrize("moment", ["Storing the source's outputs: row 8 ", "Training: step 3 "])
def test_writing_down_goes_on_where_it_was(able: Open, tmp_path: Path, moment: str) -> None:
    whole, parts = (begun(able("llama"), DEEP, tmp_path / name, teacher="stored", top=8) for name in ("whole", "parts"))
    played(whole)
    stopped(parts, lambda label: label.startswith(moment))
    with parts.said.open("ab") as file:
        file.write(b"cut off")
    before = parts.said.read_bytes()
    labels: list[str] = []
    drain(recovery.recover({"folder": str(parts.folder)}), lambda step: labels.append(step.label))
    written = [label for label in labels if label.startswith("Storing the source's outputs")]
    assert written[:1] == (["Storing the source's outputs: row 12 of 24"] if "Storing" in moment else [])
    assert parts.said.read_bytes()[: len(before) - 7] == before[:-7]
    assert parts.said.read_bytes()[: whole.said.stat().st_size] == whole.said.read_bytes()
    assert_same(whole, parts)


def test_a_run_that_measures_its_steps_first_needs_nothing_written_down(able: Open, tmp_path: Path) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run", teacher="stored", tokens=3 * ROWS * LENGTH)
    run.note(recipe=None)
    assert played(run)["state"] == "learned"
    assert run.record.recipe is not None
    assert run.record.recipe.steps == 3
    assert run.said.stat().st_size % (3 * ROWS) == 0


def test_the_source_stays_where_it_fits_and_is_stored_where_only_that_does(
    able: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = able("llama")
    needed = room(model.config, model.spec, DEEP, "all")
    for free, taken in ((needed.live, "live"), (needed.live - 1, "stored"), (needed.stored, "stored")):
        monkeypatch.setattr(recovery, "free_bytes", lambda _, free=free: free)
        run = begun(model, DEEP, tmp_path / f"{free}-{taken}")
        assert played(run)["state"] == "learned"
        assert run.record.teacher == taken
    monkeypatch.setattr(recovery, "free_bytes", lambda _: needed.stored - 1)
    for asked in ({}, {"teacher": "stored"}, {"loss": "kl+mse"}):
        with pytest.raises(MemoryLimitError, match="training needs about"):
            played(begun(model, DEEP, tmp_path / f"none-{len(asked)}{asked.get('loss')}", **asked))


def test_a_disk_without_room_is_told_before_anything_is_written(able: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run", teacher="stored", top=8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(TrainingError, match=r"the likeliest tokens needs .* GB in .*, but only 1e-07 GB are free"):
        played(run)
    assert not run.said.exists()
    assert run.record.before is not None
    assert np.isfinite(run.record.before["kind"].ratio)
