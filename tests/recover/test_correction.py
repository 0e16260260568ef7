"""A teacher corrected on the text first: its gain, that judging still uses the unchanged source, and that a pause changes nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.errors import SettingsError
from engine.jobs import drain
from engine.models.loading import open_model
from engine.plans.rules import untouched
from engine.recover.distill import correction
from engine.recover.distill.student import merged, trained
from engine.recover.run import learning, recovery
from engine.recover.run.runs import Run
from engine.types import Model
from tests.families import VOCABULARY
from tests.recovering import DEEP, SENTENCES, STEPS, assert_same, begun, played, shortened, stopped, text_in, told

Open = Callable[[str], Model]
FOREIGN = [sentence[::-1].upper() for sentence in SENTENCES]  # text that the source has never seen


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(monkeypatch.setattr)
    monkeypatch.setattr(correction, "RATE", 1e-2)


def correcting(model: Model, folder: Path, name: str = "run", sentences: list[str] = FOREIGN, **asked: Any) -> Run:
    """Return a run in which the source takes as many steps as the student."""
    return begun(model, DEEP, folder / name, texts=(text_in(folder, sentences),), correct_teacher=0.5, **asked)


def test_a_source_reads_foreign_text_first_and_the_judge_is_the_source_as_it_was(able: Open, tmp_path: Path) -> None:
    model = able("llama")
    plain = begun(model, DEEP, tmp_path / "plain", texts=(text_in(tmp_path, FOREIGN),))
    run = correcting(model, tmp_path)
    played(plain)
    played(run)
    found, part = run.record.correction, run.part("teacher")
    assert found is not None
    assert found.used
    assert found.after < 0.99 * found.before
    assert found.tokens == STEPS * 4 * 32
    assert run.record.quick_scores == plain.record.quick_scores
    assert (run.record.before, run.record.source_scores) == (plain.record.before, plain.record.source_scores)
    assert [line["loss"] for line in told(run) if "loss" in line] != [line["loss"] for line in told(plain) if "loss" in line]

    # what is kept beside the run is what gained: the source with these adapters, scored by plain transformers' loss
    source = drain(open_model(model.source))
    with torch.no_grad():
        for name, parameter in trained(source.network, untouched(6), "lora").items():
            parameter.copy_(load_file(part.best)[name])
    network = merged(source.network)
    held = learning.looks(drain(recovery._opened(run)).held)["kind"]
    loss, tokens = 0.0, 0
    for pack in held.packs:
        for _, start, stop in pack.spans:
            ids = pack.ids[:, start:stop]
            with torch.no_grad():
                loss += float(network(input_ids=ids, labels=ids).loss) * (stop - start - 1)
            tokens += stop - start - 1
    assert found.after == pytest.approx(float(torch.tensor(loss / tokens).exp()), rel=1e-4)


def test_a_source_that_knows_such_text_teaches_as_it_is(able: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correction, "RATE", 1e-6)
    plain = begun(able("llama"), DEEP, tmp_path / "plain")
    run = correcting(able("llama"), tmp_path, sentences=SENTENCES)
    played(plain)
    played(run)
    assert run.record.correction is not None
    assert not run.record.correction.used
    assert_same(plain, run)


def test_reading_ends_when_held_out_text_is_told_worse(able: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correction, "RATE", 3.0)
    run = correcting(able("llama"), tmp_path, sentences=SENTENCES)
    played(run)
    found = run.record.correction
    assert found is not None
    assert found.tokens == 2 * 4 * 32  # up to the first look
    assert (found.best, found.ratio, found.used) == (0, 1.0, False)


@pytest.mark.parametrize("way", ["live", "stored"])
def test_a_run_that_was_stopped_comes_to_the_same_bits(able: Open, tmp_path: Path, way: str) -> None:
    names = ("whole", "stopped while the source reads", "stopped while the student learns")
    whole, *others = (correcting(able("llama"), tmp_path, name, teacher=way, autocast="bfloat16") for name in names)
    played(whole)
    for parts, moment in zip(others, ("The source reads the text: Training: step 3 ", "Training: step 3 "), strict=True):
        stopped(parts, lambda label, moment=moment: label.startswith(moment))
        played(parts)
        assert_same(whole, parts)
        ours, theirs = whole.record.correction, parts.record.correction
        assert ours is not None
        assert theirs is not None
        assert replace(ours, seconds=0.0) == replace(theirs, seconds=0.0)


def test_a_pause_while_the_source_reads_is_heeded(able: Open, tmp_path: Path) -> None:
    run = correcting(able("llama"), tmp_path)
    job = recovery.recover({"folder": str(run.folder)})
    paused = drain(job, lambda step: run.ask_to_pause() if step.label.startswith("The source reads the text: Training: step 2 ") else None)
    assert paused == {"state": "paused"}
    assert [line["step"] for line in run.part("teacher").lines() if "loss" in line] == [1, 2]
    assert played(run)["state"] == "learned"


def test_a_corrected_source_that_was_written_down_teaches_as_one_that_is_there(able: Open, tmp_path: Path) -> None:
    live, stored = (correcting(able("llama"), tmp_path, way, teacher=way, top=VOCABULARY) for way in ("live", "stored"))
    played(live)
    played(stored)
    ours, theirs = ([line["loss"] for line in told(run) if "loss" in line] for run in (stored, live))
    assert ours == pytest.approx(theirs, abs=2e-3)


@pytest.mark.parametrize(
    ("asked", "texts", "expected"),
    [
        ({"correct_teacher": 0.6}, (), "teacher correction is 0.6"),
        ({"correct_teacher": -0.1}, (), "teacher correction is -0.1"),
        ({"correct_teacher": 0.1}, ("self",), "no effect on text that the source wrote itself"),
        ({"correct_teacher": 0.1, "loss": "ce"}, (), "the loss 'ce' uses no teacher"),
    ],
)
def test_what_cannot_be_corrected_is_refused(
    able: Open, tmp_path: Path, asked: dict[str, Any], texts: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(SettingsError, match=expected):
        begun(able("llama"), DEEP, tmp_path / "run", texts=texts, **asked)
    assert not (tmp_path / "run").exists()
