"""A run's lines reach a tracker as they stand in metrics.jsonl, and a tracker that fails stops nothing."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import SettingsError
from engine.recover.run.runs import Run
from engine.recover.run.settings import TRACKED
from engine.recover.run.tracking import TRACKERS, Numbers, numbers_in
from engine.types import Model
from tests.recovering import DEEP, STEPS, assert_same, begun, played, shortened

Open = Callable[[str], Model]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(monkeypatch.setattr)


def tracking(run: Run, name: str) -> Run:
    run.note(track=name)
    return run


def test_the_settings_name_the_trackers() -> None:
    assert ("none", *TRACKERS) == TRACKED


def test_numbers_within_others_have_both_names() -> None:
    line = {"step": 3, "loss": 0.5, "kind": {"ratio": 1.25, "tokens": 9, "low": None}, "spoken": "once"}
    assert numbers_in(line) == {"loss": 0.5, "kind/ratio": 1.25, "kind/tokens": 9.0}


def test_a_tracker_gets_every_line_in_order(able: Open, tmp_path: Path) -> None:
    heard: list[tuple[int, Numbers]] = []
    ended: list[bool] = []
    TRACKERS.register("ours", "a list")(lambda _: (lambda numbers, step: heard.append((step, numbers)), lambda: ended.append(True)))
    try:
        run = tracking(begun(able("llama"), DEEP, tmp_path / "run"), "ours")
        played(run)
    finally:
        del TRACKERS._methods["ours"]
    written = run.lines()
    assert [step for step, _ in heard] == [line["step"] for line in written]
    for (_, numbers), line in zip(heard, written, strict=True):
        assert numbers == pytest.approx(numbers_in(line), rel=1e-6, nan_ok=True) or numbers.keys() > numbers_in(line).keys()
    assert ended == [True]


@pytest.mark.parametrize("moment", ["opening", "telling"])
def test_a_tracker_that_fails_stops_nothing(able: Open, tmp_path: Path, moment: str) -> None:
    def broken(*_: object) -> None:
        raise ConnectionError("nobody answers\nat all")

    TRACKERS.register("broken", "fails")(broken if moment == "opening" else lambda _: (broken, broken))  # type: ignore[arg-type]
    try:
        whole, run = (begun(able("llama"), DEEP, tmp_path / name) for name in ("whole", "run"))
        played(whole)
        played(tracking(run, "broken"))
    finally:
        del TRACKERS._methods["broken"]
    assert run.record.track_error == "nobody answers at all"
    assert_same(whole, run)


def test_one_that_is_not_there_is_told_before_there_is_a_run(able: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="--track wandb needs the package wandb, which is not installed; run: pip install wandb"):
        begun(able("llama"), DEEP, tmp_path / "run", track="wandb")
    with pytest.raises(SettingsError, match="unknown tracker 'paper'; choose one of trackio, tensorboard, wandb"):
        begun(able("llama"), DEEP, tmp_path / "run", track="paper")
    assert not (tmp_path / "run").exists()


def test_tensorboard_has_what_the_metrics_have(able: Open, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = begun(able("llama"), DEEP, tmp_path / "run", track="tensorboard")
    played(run)
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    losses = [(line["step"], line["loss"]) for line in run.lines() if "loss" in line]
    assert len(losses) == STEPS
    steps, values = zip(*losses, strict=True)
    assert tuple(event.step for event in events.Scalars("loss")) == steps
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(values, rel=1e-5)


def test_trackio_has_what_the_metrics_have(able: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # which it reads when it is imported
    pytest.importorskip("trackio")
    run = begun(able("llama"), DEEP, tmp_path / "run", track="trackio")
    played(run)
    assert run.record.track_error is None
    assert list((tmp_path / "trackio").rglob("*.db"))
