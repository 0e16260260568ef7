"""What a run refuses and what stops it: one clear line each, and no progress is lost."""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import LayerscopeError, MemoryLimitError, SettingsError, TextError, TrainingError
from engine.jobs import drain
from engine.models.texts import bundled
from engine.plans.live import live_network
from engine.recover.distill.student import student_of, trained
from engine.recover.run import learning, recovery
from engine.recover.run.memory_estimate import MemoryEstimate, room
from engine.recover.run.runs import Run
from engine.training.checkpoints import about, latest
from engine.types import Model, Plan, Trim
from tests.recovering import DEEP, NARROW, SENTENCES, assert_same, begun, played, shortened, stopped, told, with_width, with_zeros

Open = Callable[[str], Model]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(monkeypatch.setattr)


def one_line(error: pytest.ExceptionInfo[LayerscopeError]) -> str:
    (line,) = str(error.value).splitlines()
    return line


def test_text_that_is_shorter_than_a_batch_is_told_before_anything_is_judged(able: Open, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("\n\n".join(SENTENCES[:3]), encoding="utf-8")
    run = begun(able("llama"), DEEP, tmp_path / "run", texts=(str(tmp_path / "few.txt"),), rows=9)
    with pytest.raises(TextError, match=r"has \d rows of 32 tokens, fewer than one batch of 9") as refused:
        played(run)
    assert (run.state, run.error) == ("failed", one_line(refused))
    assert run.record.before is None


def test_text_that_judges_is_no_text_to_learn_from(able: Open, tmp_path: Path) -> None:
    (tmp_path / "judge.txt").write_text("\n\n".join(bundled("english", "evaluation").texts[:4]), encoding="utf-8")
    run = begun(able("llama"), DEEP, tmp_path / "run", texts=(str(tmp_path / "judge.txt"),))
    with pytest.raises(TextError, match=r"all 4 documents of .* overlap with the evaluation texts"):
        played(run)
    assert run.record.before is None


def test_text_or_source_that_have_changed_are_told(able: Open, tmp_path: Path) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run")
    played(run)
    run.probe.unlink()
    run.note(fingerprint="0" * 64)
    with pytest.raises(TrainingError, match=r"the source of .* has changed"):
        played(run)
    run.note(fingerprint=able("llama").fingerprint)
    (tmp_path / "text.txt").write_text("\n\n".join(reversed(SENTENCES)), encoding="utf-8")
    with pytest.raises(TrainingError, match=r"the text of .* has changed"):
        played(run)


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_good(able: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "SAVE", 0.0)
    run = begun(able("llama"), DEEP, tmp_path / "run", rate=1e30)
    with pytest.raises(TrainingError, match=r"step 2 has a loss of (nan|inf).* and a gradient of .*; lower the learning rate") as stopped:
        played(run)
    assert (run.state, run.error) == ("failed", one_line(stopped))
    assert (latest(run.steps) or (0,))[0] == 1
    assert about(run.best)["step"] == "0"
    assert [line["step"] for line in told(run) if "loss" in line] == [1]


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes, as where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_stops_in_one_line_and_what_was_there_goes_on(
    able: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = (begun(able("llama"), DEEP, tmp_path / name) for name in ("whole", "run"))
    played(whole)
    monkeypatch.setattr(learning, "SAVE", 0.0)
    learned = sum(one.numel() for one in trained(student_of(able("llama"), DEEP), DEEP, "all").values())
    with at_most(8 * learned), pytest.raises(TrainingError, match=r"cannot be written: .*; the previous file is kept") as stopped:
        played(run)
    assert (run.state, run.error) == ("failed", one_line(stopped))
    assert about(run.best)["step"] == "0"  # a third of a checkpoint, for which there was room
    assert not list(run.folder.rglob(".*safetensors"))
    played(run)
    assert_same(whole, run)


def test_metrics_that_do_not_fit_are_one_line_too(able: Open, tmp_path: Path) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run")
    with at_most(16), pytest.raises(TrainingError, match=r"run cannot be written to: .*; its former content is unchanged"):
        run.note(name="x" * 99)
    with at_most(16), pytest.raises(TrainingError, match="cannot be written to"):
        run.log_line({"step": 1, "loss": 1.23456789})
    assert run.record.name != "x" * 99
    assert not list(run.folder.glob("*.tmp"))


def test_a_run_learns_in_one_process_at_a_time(able: Open, tmp_path: Path) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run")
    before = sorted(run.folder.iterdir())
    with run.held():
        assert run.state == "running"
        second = subprocess.run(
            [sys.executable, "-m", "engine.recover.run.recovery"], input=f'{{"folder": "{run.folder}"}}', capture_output=True, text=True
        )
        assert "is already training in another process; pause it there first" in second.stdout
    assert sorted(run.folder.iterdir()) in (before, sorted([*before, run.folder / ".lock"]))
    assert (run.state, run.error) == ("paused", "")


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(TrainingError, match="holds no run that can be resumed"):
            _ = Run(folder).record
    (tmp_path / "run.json").write_text('{"half": ', encoding="utf-8")
    with pytest.raises(TrainingError, match=r"run.json is missing or broken"):
        _ = Run(tmp_path).record


def test_a_record_that_somebody_has_changed_is_no_run(able: Open, tmp_path: Path) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run")
    file = run.folder / "run.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"train": "all"', '"train": "alL"'), encoding="utf-8")
    with pytest.raises(TrainingError, match=r"run.json is missing or broken"):
        played(run)


def test_lines_that_a_run_never_told_are_passed_over(able: Open, tmp_path: Path) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run")
    sound = [
        {"step": 1, "tokens": 4, "loss": None},
        {"step": 1, "kind": {"ratio": 1.0}, "other": {"ratio": None}},
        {"step": 2, "domains": {}},
    ]
    for line in sound:
        run.log_line(line)
    with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        for other in (
            '{"step": "1", "loss": 2}',
            '{"step": 3}',
            '{"step": 3, "kind": 4, "other": {}}',
            "[1]",
            "NaN",
            "[" * 90000,
            '{"half":',
        ):
            file.write(other + "\n")
    assert run.lines() == sound


def test_a_checkpoint_that_is_not_as_it_was_written_is_passed_over_and_the_best_is_told(able: Open, tmp_path: Path) -> None:
    whole, run = (begun(able("llama"), DEEP, tmp_path / name) for name in ("whole", "run"))
    played(whole)
    stopped(run, lambda label: label.startswith("Training: step 3 "))
    for name in ("step-00000002.safetensors", "step-00000003.safetensors"):
        save_file({"weight.x": torch.zeros(2)}, run.folder / name, {"step": "3", "layerscope": "0"})
        run.steps.mkdir(exist_ok=True)
        (run.folder / name).rename(run.steps / name)
    run.best.write_bytes(run.best.read_bytes()[:-4])
    with pytest.raises(TrainingError, match=r"best.safetensors cannot be read: .*; delete it, and the run continues without it"):
        played(run)
    run.best.unlink()
    played(run)
    assert_same(whole, run)


# --- Memory ---


@pytest.mark.parametrize("train", ["all", "lora", "seams"])
@pytest.mark.parametrize("plan", [DEEP, with_width(DEEP, Trim(neurons=tuple(range(20)), channels=NARROW))])
def test_the_room_is_that_of_the_real_student(able: Open, train: str, plan: Plan) -> None:
    model = able("llama")
    student = student_of(model, plan)
    learns = trained(student, plan, train)
    assert room(model.config, model.spec, plan, train) == MemoryEstimate(
        sum(one.nbytes for one in student.parameters()),
        3 * sum(one.nbytes for one in learns.values()),
        sum(one.nbytes for one in model.network.parameters()),
    )


def test_what_does_not_fit_is_told_with_the_numbers_before_the_source_is_read(
    able: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model = begun(able("llama"), DEEP, tmp_path / "run", teacher="live"), able("llama")
    needed = room(model.config, model.spec, DEEP, "all")
    monkeypatch.setattr(recovery, "free_bytes", lambda _: needed.live - 1)
    labels: list[str] = []
    with pytest.raises(MemoryLimitError) as refused:
        drain(recovery.recover({"folder": str(run.folder)}), lambda step: labels.append(step.label))
    assert f"about {needed.live / 1e9:.3g} GB" in one_line(refused)
    assert f"{needed.learning / 1e9:.3g} for its gradients" in one_line(refused)
    assert not labels
    monkeypatch.setattr(recovery, "free_bytes", lambda _: needed.live)
    assert played(run)["state"] == "learned"


# --- What does not go together ---


@pytest.mark.parametrize(
    ("plan", "asked", "expected"),
    [
        (DEEP, {"loss": "local+kl"}, "combines local with other losses"),
        (DEEP, {"loss": "local", "recompute": True}, "omit recompute"),
        (with_width(DEEP, Trim(channels=NARROW)), {"loss": "local"}, "narrower than the source's states"),
        (Plan(6, DEEP.blocks[:2], "the last layers left out"), {"loss": "local"}, "needs a seam below the last block"),
        (Plan(6, tuple(DEEP.blocks[:1]), "one"), {"loss": "kl*2"}, "is not a loss"),
        (Plan(6, tuple(DEEP.blocks[:1]), "one"), {"loss": "kl+cosine"}, "this plan has only one block"),
        (DEEP, {"loss": "kl+mse", "teacher": "stored"}, "too large to store"),
        (DEEP, {"teacher": "away"}, "unknown teacher 'away'"),
        (DEEP, {"top": 0}, "top is 0"),
        (DEEP, {"seed": -1}, "seed is -1"),
        (DEEP, {"seed": 1 << 31}, "seed is 2147483648"),
        (DEEP, {"train": "half"}, "unknown kind of training 'half'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_there_is_a_run(
    able: Open, tmp_path: Path, plan: Plan, asked: dict[str, object], expected: str
) -> None:
    assert live_network(able("llama"), plan)  # the plan itself is sound
    with pytest.raises(SettingsError, match=expected.replace("*", r"\*")):
        begun(able("llama"), plan, tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()


def test_adapters_leave_masks_alone(able: Open, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="would overwrite the zeros"):
        begun(able("llama"), with_zeros(DEEP, (32, 48)), tmp_path / "run", train="lora")
    assert not (tmp_path / "run").exists()
