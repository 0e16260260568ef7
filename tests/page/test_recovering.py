"""Runs on the page: a run starts, pauses, resumes, ends early, and its checkpoint is opened, pruned again and exported."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.corpus.settings import WritingSettings
from engine.errors import ExportError, SettingsError, TextError, TrainingError
from engine.export.settings import ExportSettings
from engine.jobs import Job, Progress
from engine.messages import decode_message
from engine.methods.masks.settings import PruneSettings
from engine.methods.width.settings import TrimSettings
from engine.plans.rules import fold_spans
from engine.recover.run import learning, recovery
from engine.recover.run.records import LearningRecord, Trained
from engine.recover.run.runs import Run
from engine.recover.run.settings import RecoverySettings
from engine.settings import controls
from engine.training.recipe import Recipe
from engine.types import ModelSource
from tests.page.benches import DEPTH, open_on, opened, shown
from tests.page.pages import Page
from tests.waiting import wait_for_jobs, wait_until
from ui.page.bench.desk import Desk
from ui.page.bench.plans.exporting import start_export
from ui.page.bench.training.run_progress import POINTS, course
from ui.page.handlers.recover_handlers import learned_from, settings_of
from ui.page.sessions import Sessions

SHORT = RecoverySettings(tokens=8 * 64, rows=2, length=32, loss="kl")
LONG = RecoverySettings(tokens=10_000 * 64, rows=2, length=32, loss="kl")
pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture(autouse=True)
def _few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "JUDGE_TOKENS", 300)
    monkeypatch.setattr(learning, "LOOKING", 9.0)  # looks may cost more than what they look at


def folded(bench: Desk) -> Desk:
    """The desk with a hand-made plan of four of six layers."""
    bench.set_spans([[1, 3]])
    wait_for_jobs()
    return bench


def begin(bench: Desk, name: str = "run", settings: RecoverySettings = SHORT, choice: str = "hand-made") -> Run:
    bench.recovering.begin(choice, 0.9, name, ["practice"], settings)
    return Run(bench.export_folder / name)


def runs(bench: Desk) -> list[dict[str, Any]]:
    bench.recovering.publish()
    return shown(bench, "recovery", "value")["runs"]


def looked_at(bench: Desk) -> dict[str, Any]:
    bench.recovering.publish()
    return shown(bench, "recovery", "value")["shown"]


# --- what the page draws of a run ---


ASKED = LearningRecord(
    layerscope=1, source=ModelSource("demo", ""), name="m", plan=Trained("hand-made", 4, 6, 9), text=("self",), own=WritingSettings(),
    train="all", loss="kl", teacher="auto", correct_teacher=0.0, top=64, budget={"tokens": 20_000}, until=1.2, language="english",
    measure=False, track="none", update="none", every=50, known_references={}, asked=Recipe(1, 1e-3, rows=2, length=10),
)  # fmt: skip


def test_a_course_says_what_its_files_say(tmp_path: Path) -> None:
    recipe, run = Recipe(steps=1000, rate=1e-3, rows=2, length=10), Run(tmp_path)
    run.keep(replace(ASKED, recipe=recipe, memory=7))
    losses = [5 / (1 + step / 100) for step in range(700)]
    for step, loss in enumerate(losses, 1):
        if step % 100 == 1:
            gap = {"perplexity": 9.0, "source": 3.0, "ratio": 3 - step / 700, "low": 2.0, "high": 3.5, "tokens": 50}
            run.log_line({"step": step - 1, "kind": gap, "other": {**gap, "ratio": 3.0}, "spoken": f"word {step}"})
        run.log_line({"step": step, "tokens": step * recipe.tokens, "loss": loss, "seconds": 0.5 if step > 690 else 9.0})
    told = course(run)
    assert (told["tokens"], told["total"], told["left"]) == (14_000, 20_000, 300 * 4.75)  # half of the last 20 took half a second
    assert told["pace"] == pytest.approx(20 / 4.75, rel=1e-5)
    assert len(told["loss"]) == POINTS
    ends = [told["loss"][place] for place in (0, -1)]  # of 700 steps in 300 parts the first hold three each, the last two
    assert ends == [pytest.approx(pair, rel=1e-5) for pair in ((40.0, sum(losses[:3]) / 3), (13_990.0, sum(losses[-2:]) / 2))]
    assert [look["tokens"] for look in told["looks"]] == [0, 2000, 4000, 6000, 8000, 10_000, 12_000]
    assert told["looks"][-1]["kind"] == pytest.approx([3 - 601 / 700, 2.0, 3.5], rel=1e-5)
    assert (told["before"], told["after"]["other"], told["best"]) == (None, 3.0, None)
    assert told["apart"] is True  # ×3 against ×2.14


@pytest.mark.parametrize(("other", "apart"), [(1.31, False), (1.62, True), (None, False)])
def test_other_text_has_fallen_behind_where_its_gap_grew_more(other: float | None, apart: bool, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.keep(ASKED)
    for step, ratios in enumerate(((2.67, 2.67), (1.31, other))):
        gaps = [{"ratio": ratio, "low": ratio, "high": ratio} for ratio in ratios]
        run.log_line({"step": step, "kind": gaps[0], "other": gaps[1], "spoken": ""})
    assert course(run)["apart"] is apart


# --- asking ---


def test_what_the_controls_say_becomes_settings() -> None:
    names = controls(RecoverySettings)
    said = {"train": "lora", "until": 0, "loss": " kl+cosine ", "rate": 0, "rows": 2.0, "length": 32, "seed": 0, "recompute": True}
    assert settings_of("tokens", 640.0, *[{**said, "language": "korean"}.get(name) for name in names]) == RecoverySettings(
        train="lora", loss="kl+cosine", tokens=640, rows=2, length=32, seed=0, recompute=True, language="korean"
    )
    assert settings_of("minutes", 0.5, *[None] * len(names)) == RecoverySettings(minutes=0.5)
    with pytest.raises(SettingsError, match="budget"):
        settings_of("minutes", None, *[None] * len(names))
    assert learned_from(["self"], " a.txt \n\nhub:x/y") == ["self", "a.txt", "hub:x/y"]


REFUSED: tuple[tuple[list[str], str, RecoverySettings, type[Exception]], ...] = (
    ([], "run", SHORT, TextError),
    (["nowhere.txt"], "run", SHORT, TextError),
    (["practice"], "../run", SHORT, ExportError),
    (["practice"], "run", RecoverySettings(), SettingsError),
    (["practice"], "run", RecoverySettings(tokens=9, loss="nothing"), SettingsError),
    (["practice"], "run", RecoverySettings(tokens=9, train="nothing"), SettingsError),
)


def test_what_cannot_be_learned_is_refused_and_leaves_no_folder(bench: Desk) -> None:
    folded(bench)
    for texts, name, settings, error in REFUSED:
        with pytest.raises(error):
            bench.recovering.begin("hand-made", 0.9, name, texts, settings)
        assert not list(bench.export_folder.glob("**/run.json")), (texts, name, settings)
        assert bench.recovering.learning.busy is None


@pytest.mark.parametrize(("train", "parts"), [("seams", "whole"), ("lora", "masks")])
def test_a_plan_that_forbids_a_kind_of_training_says_so_before_anything_runs(train: str, parts: str, bench: Desk) -> None:
    bench.show_found(fold_spans(DEPTH, [], "reference") if parts == "whole" else fold_spans(DEPTH, [(1, 3)], "reference"))
    wait_for_jobs()
    if parts == "masks":
        bench.pruning.prune("found", 0.9, PruneSettings("magnitude", 0.5), 100)
        wait_for_jobs()
    with pytest.raises(SettingsError, match="seam" if train == "seams" else "zeros"):
        begin(bench, settings=RecoverySettings(tokens=64, train=train), choice="found")


# --- a run, from its beginning to a model ---


def test_a_plan_learns_again_and_what_comes_of_it_is_opened_pruned_again_and_exported(bench: Desk, folder: Path) -> None:
    run = begin(folded(bench))
    assert runs(bench)[0]["state"] in ("running", "waiting")
    wait_for_jobs()
    told = looked_at(bench)
    assert (told["state"], told["error"], told["tokens"], told["asked"]["plan"]["depth"]) == ("done", "", 512, 4)
    assert told["before"]["kind"] >= told["after"]["kind"] > 0
    assert [look["tokens"] for look in told["looks"]][:2] == [0, 64]
    assert all(isinstance(look["spoken"], str) for look in told["looks"])
    assert told["pace"] > 0
    assert told["asked"]["memory"] > 0
    with pytest.raises(TrainingError, match="already finished"):
        bench.recovering.act("resume", "run")

    open_on(bench, run.folder)
    assert bench.runner.problem is None
    assert bench.model is not None
    assert bench.model.spec.depth == 4
    steps = shown(bench, "lineage", "value")["steps"]
    assert [step["step"] for step in steps] == ["source", "plan", "recovery"]
    with pytest.raises(TrainingError, match="is the open model"):
        bench.recovering.act("delete", "run")
    bench.set_spans([[1, 2]])
    wait_for_jobs()
    start_export(bench, "hand-made", 0.9, ExportSettings(), "smaller")
    wait_for_jobs()
    assert shown(bench, "report", "value")["passed"] is True
    record = json.loads((bench.export_folder / "smaller" / "layerscope.json").read_text())
    assert [step["step"] for step in record["lineage"]] == ["source", "plan", "recovery", "plan"]
    assert record["lineage"][0]["name"] == folder.name
    card = (bench.export_folder / "smaller" / "README.md").read_text()
    assert "It was pruned to 4 of 6 layers" in card
    assert "512 tokens of practice" in card
    assert "Nothing was retrained after the last pruning" in card
    assert "It was retrained by distillation from its source after pruning" in (run.folder / "README.md").read_text()


def test_a_step_is_measured_before_anything_is_learned(bench: Desk) -> None:
    run = begin(folded(bench), settings=replace(SHORT, tokens=None, minutes=0.05, measure=True))
    wait_for_jobs()
    told = looked_at(bench)
    assert (told["state"], told["tokens"], run.lines()) == ("paused", 0, [])
    assert told["left"] == pytest.approx(told["total"] / told["pace"], rel=1e-3)
    assert told["left"] == pytest.approx(3, rel=0.5)  # whole steps
    assert told["asked"]["memory"] > 0
    bench.recovering.act("resume", "run")
    wait_for_jobs()
    assert looked_at(bench)["state"] == "done"


def test_a_run_of_a_plan_with_width_and_masks_ends_as_that_plan(bench: Desk) -> None:
    folded(bench).trimming.trim("hand-made", 0.9, TrimSettings(neurons=24, compensation="nothing"), 800)
    wait_for_jobs()
    bench.pruning.prune("found", 0.9, PruneSettings("magnitude", 0.5), 100)
    wait_for_jobs()
    run = begin(bench, choice="found")
    wait_for_jobs()
    assert looked_at(bench)["state"] == "done"
    config = json.loads((run.folder / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (4, 24)


def test_a_run_pauses_goes_on_and_ends_early_with_the_best(bench: Desk) -> None:
    run = begin(folded(bench), settings=LONG)
    wait_until(lambda: len(run.lines()) > 3)
    assert looked_at(bench)["state"] == "running"
    bench.recovering.act("pause", "run")
    wait_for_jobs()
    told = looked_at(bench)
    assert (told["state"], told["error"]) == ("paused", "")
    reached = told["tokens"]
    assert 0 < reached < 10_000 * 64
    assert told["left"] > 0
    bench.recovering.act("resume", "run")
    wait_until(lambda: any(line["step"] * 64 > reached for line in run.lines()))
    bench.recovering.act("finish", "run")
    wait_for_jobs()
    told = looked_at(bench)
    assert (told["state"], told["after"]["kind"] <= told["before"]["kind"]) == ("done", True)
    assert reached < told["tokens"] < 10_000 * 64
    assert not (run.folder / "finish").exists()


def test_a_paused_run_is_finished_without_another_step(bench: Desk) -> None:
    run = begin(folded(bench), settings=LONG)
    wait_until(lambda: len(run.lines()) > 3)
    bench.recovering.act("pause", "run")
    wait_for_jobs()
    reached = looked_at(bench)["tokens"]
    bench.recovering.act("finish", "run")
    wait_for_jobs()
    assert (looked_at(bench)["state"], looked_at(bench)["tokens"]) == ("done", reached)


def test_one_learns_at_a_time_and_who_waits_can_be_taken_out(bench: Desk) -> None:
    first = begin(folded(bench), "first", LONG)
    wait_until(lambda: len(first.lines()) > 1)
    begin(bench, "second")
    assert {run["name"]: run["state"] for run in runs(bench)} == {"first": "running", "second": "waiting"}
    with pytest.raises(TrainingError, match="pause it before"):
        bench.recovering.act("delete", "second")
    bench.recovering.act("pause", "second")
    assert {run["name"]: run["state"] for run in runs(bench)} == {"first": "running", "second": "paused"}
    with pytest.raises(TrainingError, match="no trained weights yet"):
        bench.recovering.act("finish", "second")
    bench.recovering.act("delete", "second")
    assert [run["name"] for run in runs(bench)] == ["first"]
    with pytest.raises(TrainingError, match="pause it before"):
        bench.recovering.act("delete", "first")
    bench.recovering.act("pause", "first")
    wait_for_jobs()
    bench.recovering.act("delete", "first")
    assert runs(bench) == []
    assert not first.folder.exists()


def test_a_run_goes_on_while_another_model_is_opened_and_jobs_are_cancelled(bench: Desk, deeper: Path) -> None:
    run = begin(folded(bench), settings=LONG)
    wait_until(lambda: len(run.lines()) > 1)
    bench.open(str(deeper), "auto", bench.texts, bench.settings)
    bench.cancel()
    reached = len(run.lines())
    wait_until(lambda: len(run.lines()) > reached)
    assert looked_at(bench)["name"] == "run"
    bench.recovering.act("pause", "run")
    wait_for_jobs()


def test_a_run_of_a_name_that_is_not_there_is_nobodys(bench: Desk) -> None:
    for name in ("../run", "/etc", "nothing", ""):
        with pytest.raises(TrainingError, match="there is no run"):
            bench.recovering.act("delete", name)


def test_what_went_wrong_is_told_with_the_run_and_it_can_be_resumed(bench: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(_: dict[str, Any]) -> Job[dict[str, Any]]:
        yield Progress("Starting")
        raise RuntimeError("engine.recover.run.recovery ended with code -9: ")

    with monkeypatch.context() as patch:
        patch.setattr("engine.recover.run.run_process.in_fresh_process", lambda _module, request, _label: dies(request))
        begin(folded(bench))
        wait_for_jobs()
    told = looked_at(bench)
    assert told["state"] == "failed"
    assert "ended with code -9" in decode_message(told["error"])
    bench.recovering.act("resume", "run")
    wait_for_jobs()
    assert (looked_at(bench)["state"], looked_at(bench)["error"]) == ("done", "")


def test_a_run_of_another_process_is_seen_and_left_alone(bench: Desk) -> None:
    run = begin(folded(bench), settings=LONG)
    wait_until(lambda: len(run.lines()) > 1)
    bench.recovering.act("pause", "run")
    wait_for_jobs()
    with run.held():  # as another process would
        told = looked_at(bench)
        assert (told["state"], told["elsewhere"]) == ("running", True)
        with pytest.raises(TrainingError, match="another process"):
            bench.recovering.act("resume", "run")
        with pytest.raises(TrainingError):
            bench.recovering.act("delete", "run")
        bench.recovering.act("pause", "run")
        assert run.pausing()
    assert looked_at(bench)["state"] == "paused"


# --- tabs, reloads, restarts ---


def test_two_tabs_see_one_run_and_a_new_app_finds_it(folder: Path, tmp_path: Path, fresh_cache: Path) -> None:
    sessions = Sessions(tmp_path / "exports")
    one, other = (sessions.of(key * 32) for key in "ab")
    run = begin(folded(opened(one, folder)), settings=LONG)
    wait_until(lambda: len(run.lines()) > 1)
    assert looked_at(other)["state"] == "running"
    other.recovering.act("pause", "run")
    wait_until(lambda: one.recovering.learning.busy is None)
    assert looked_at(one)["state"] == "paused"
    later = Sessions(tmp_path / "exports").of("c" * 32)
    assert looked_at(later)["tokens"] == looked_at(one)["tokens"] > 0
    later.recovering.act("resume", "run")
    wait_until(lambda: len(run.lines()) > 1 and not run.pausing() and later.recovering.learning.busy)
    assert sessions.close(20)
    later.recovering.act("pause", "run")
    wait_for_jobs()


def test_closing_the_app_keeps_where_a_run_stands(folder: Path, tmp_path: Path, fresh_cache: Path) -> None:
    sessions = Sessions(tmp_path / "exports")
    run = begin(folded(opened(sessions.of("a" * 32), folder)), settings=LONG)
    wait_until(lambda: len(run.lines()) > 3)
    assert sessions.close(20)
    assert run.state == "paused"
    assert list(run.steps.iterdir())


def test_the_page_goes_on_asking_while_something_learns_and_tells_it_in_its_language(
    folder: Path, tmp_path: Path, fresh_cache: Path
) -> None:
    page = Page(folder, tmp_path / "exports", "ko")
    page.enter(query="?C=2&I=1&L=0&plan=hand-made&spans=[[1,3]]")
    wait_for_jobs()
    session = page.tell()["session"]
    assert page.tell()["timer"].active is False
    more = [{"rows": 2, "length": 32, "loss": "kl"}.get(name) for name in controls(RecoverySettings)]
    asked = [["practice"], "", "tokens", 64 * 10_000, *more]
    assert page.problem(page.on.learn(session, "hand-made", 0.9, " run ", *asked)) is None
    bench = page.sessions.of(session.partition(".")[0])
    run = Run(tmp_path / "exports" / "run")
    wait_until(lambda: len(run.lines()) > 2)
    told = page.tell()
    assert told["timer"].active is True
    assert told["status"]["learns"] == "run"
    assert page.problem(page.on.run(session, SimpleNamespace(what="pause", name="run"))) is None
    wait_until(lambda: bench.recovering.learning.busy is None)
    run.failed("name one budget: minutes or tokens")
    assert page.problem(page.on.runs(session)) is None
    assert json.loads(page.tell()["views"]["recovery"]["value"])["shown"]["error"] == "예산을 하나 정하세요: 분 또는 토큰."
    assert page.problem(page.on.run(session, SimpleNamespace(what="pause", name="nothing"))).endswith("‘nothing’ 실행이 없습니다.")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("job-")]
