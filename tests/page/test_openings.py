"""One opening of a model has one number; requests with another number are dropped. Also the state that a loading page brings."""

import json
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
import pytest

from engine.plans.files import plan_to_json
from engine.plans.rules import fold_spans
from tests.page.pages import KEY, Page
from tests.waiting import wait_for_jobs
from ui.page.bench.plans.costing import Costing
from ui.page.bench.workbench import T_MIN

# --- one opening, one number ---


def test_what_a_page_asks_of_the_model_before_is_dropped(page: Page, deeper: Path) -> None:
    before = page.tell()["session"]
    page.on.open(before, str(deeper), "auto", "cpu", "english", "", 2, 1, 0, 6, "reference", "flattened")
    wait_for_jobs()
    bench = page.sessions.of(KEY)
    assert page.on.spans(before, "[[1, 2]]") == page.on.ask(before, 3, 1, 0, 6, "mean", "flattened") == gr.skip()
    wait_for_jobs()
    assert (bench.hand, bench.map_of.C, bench.map_of.rule) == (None, 2, "reference")  # type: ignore[union-attr]
    after = page.tell()["session"]
    assert after != before
    assert page.problem(page.on.spans(after, "[[1, 2]]")) is None
    assert bench.hand is not None
    wait_for_jobs()


def test_every_slider_fits_the_model_when_one_of_less_depth_follows_a_deeper_one(page: Page, folder: Path, deeper: Path) -> None:
    page.on.open(KEY, str(deeper), "auto", "cpu", "english", "", 2, 1, 0, 6, "reference", "flattened")
    wait_for_jobs()
    seen = page.tell()["serial"]
    page.on.open(KEY, str(folder), "auto", "cpu", "english", "", 8, 1, 8, 9, "reference", "flattened")
    wait_for_jobs()
    told = page.tell(seen)
    sliders = {name: {"minimum": 0, **told[name]} for name in ("highest", "lowest", "width", "target")}
    assert all(slider["minimum"] < slider["maximum"] for slider in sliders.values())  # Gradio answers 500 to all else, equal ends too
    assert [step.proposal.plan.depth for step in page.sessions.of(KEY).map.steps] == [6]  # type: ignore[union-attr]
    assert (sliders["width"]["value"], sliders["lowest"]["value"], sliders["highest"]["value"]) == (6, 5, 6)
    assert json.loads(told["views"]["fold"]["data"])["depth"] == json.loads(told["views"]["spec"]["value"])["depth"] == 6


def test_the_last_open_wins_whatever_else_was_asked_for(folder: Path, deeper: Path, tmp_path: Path) -> None:
    page = Page(deeper, tmp_path / "exports")
    entered = page.enter(query="?C=2&I=1&L=0")
    for where in (folder, deeper, folder):  # pressed while the first one still opens by itself
        page.on.open(entered["session"], str(where), "auto", "cpu", "english", "", 2, 1, 0, 9, "reference", "flattened")
        page.on.ask(entered["session"], 2, 1, 0, 9, "reference", "flattened")  # the sliders of the page that has just come in
    wait_for_jobs()
    told, bench = page.tell(), page.sessions.of(KEY)
    assert bench.model is not None
    assert bench.model.source.location == json.loads(told["views"]["spec"]["value"])["source"] == str(folder)
    assert json.loads(told["views"]["fold"]["data"])["depth"] == 6
    assert bench.map_of is not None
    assert bench.map_of.highest == 6
    assert told["status"]["problem"] is None


def test_what_the_old_models_map_has_found_does_not_get_before_the_new_model(
    folder: Path, deeper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map's job asks for its first step's cost while another model is asked for: the cost came first, failed, and dropped the model."""
    found, asked, ask = Event(), Event(), Costing.ask

    def late(*plans: Any) -> None:
        found.set()
        asked.wait(1)  # in vain: who asks for another model waits for the job
        ask(*plans)

    monkeypatch.setattr(Costing, "ask", late)
    page = Page(deeper, tmp_path / "exports")
    page.enter(query="?C=2&I=1&L=0")
    assert found.wait(120)
    page.on.open(KEY, str(folder), "auto", "cpu", "english", "", 2, 1, 0, 9, "reference", "flattened")
    asked.set()
    wait_for_jobs()
    assert json.loads(page.tell()["views"]["spec"]["value"])["source"] == str(folder)
    assert page.tell()["status"]["problem"] is None


def test_nothing_is_asked_of_the_old_model_while_another_is_on_its_way(page: Page, deeper: Path) -> None:
    bench = page.sessions.of(KEY)
    assert bench.model is not None
    with bench.lock:  # the new one cannot be taken over meanwhile
        page.on.open(KEY, str(deeper), "auto", "cpu", "english", "", 2, 1, 0, 9, "reference", "flattened")
        assert "being opened" in page.problem(page.on.judge(KEY, "map", T_MIN, "english", "", 100, [], None, None, None, None))  # type: ignore[operator]
        assert "being opened" in page.problem(page.on.export(KEY, "map", T_MIN, "", "safetensors", "auto", "5GB"))  # type: ignore[operator]
    wait_for_jobs()
    assert page.shown("board", "data")["entries"] == []


def test_a_model_that_was_given_up_leaves_the_one_before_with_all_that_belongs_to_it(page: Page, deeper: Path) -> None:
    page.on.spans(KEY, "[[1, 2]]")
    wait_for_jobs()
    before, bench = page.tell(), page.sessions.of(KEY)
    assert bench.model is not None
    with bench.lock:
        page.on.open(KEY, str(deeper), "auto", "cpu", "korean", "", 3, 1, 0, 9, "mean", "flattened")
        bench.page.put("spec", "value", "{}")  # what is told of the new one before its weights are read
        page.on.cancel(KEY)
    wait_for_jobs()
    after = page.tell()
    assert after["views"]["spec"]["value"] == before["views"]["spec"]["value"]
    assert after["views"]["fold"]["data"] == before["views"]["fold"]["data"]
    assert (after["views"]["fold"]["stale"], bench.texts.name) == ("no", "english")
    assert bench.chosen("hand-made", 0.9)[0] == fold_spans(6, [(1, 2)], "reference")
    assert after["session"] != before["session"]  # so the page asks again for what its controls say


@pytest.mark.parametrize("opened_before", [False, True])
def test_a_link_beyond_the_models_depth_is_cut_to_it_and_says_so(opened_before: bool, folder: Path, tmp_path: Path) -> None:
    page = Page(folder, tmp_path / "exports", "ko")
    if opened_before:
        page.enter(query="?C=2&I=1&L=0")
        wait_for_jobs()
    page.enter(query="?C=2&I=1&L=0&H=31")
    wait_for_jobs()
    told = page.tell()
    assert told["highest"]["value"] == 6
    assert json.loads(told["views"]["fold"]["data"])["settings"]["highest"] == 6
    assert told["status"]["problem"] is None
    assert told["status"]["notice"] == "이 모델의 레이어는 6개입니다. 그보다 큰 설정은 줄였습니다: H 31 → 6"


def test_a_reload_moves_no_control_that_a_hand_has_moved_since(page: Page) -> None:
    page.on.ask(KEY, 2, 1, 0, 4, "reference", "flattened")
    wait_for_jobs()
    entered = page.enter(query="?C=2&I=1&L=0&H=4")
    assert entered["H"]["value"] == 4
    assert "value" not in page.tell()["highest"]
    assert page.shown("fold", "data")["settings"]["highest"] == 4


# --- languages, own texts, plans of other models ---


@pytest.mark.parametrize(("language", "texts"), [("en", "english"), ("ko", "korean")])
def test_a_page_starts_with_the_texts_of_its_language_unless_the_link_says_others(
    language: str, texts: str, folder: Path, tmp_path: Path
) -> None:
    page = Page(folder, tmp_path, language)
    assert page.enter()["texts"] == texts
    wait_for_jobs()
    assert page.sessions.of(KEY).texts.name.endswith(texts)
    other = {"english": "korean", "korean": "english"}[texts]
    assert page.enter(query=f"?texts={other}")["texts"] == other
    wait_for_jobs()


def test_a_persons_own_texts_survive_a_reload(page: Page) -> None:
    page.on.open(KEY, page.on._model, "auto", "cpu", "own", "Mine alone.\nAnd this.", 2, 1, 0, 6, "reference", "flattened")
    wait_for_jobs()
    bench = page.sessions.of(KEY)
    mine, opened = bench.texts.fingerprint, bench.opened
    answer = page.on.enter(KEY, "?C=2&I=1&L=0&texts=own", "Mine alone.\nAnd this.")
    assert (answer[5], bench.texts.fingerprint, bench.opened) == ("own", mine, opened)  # nothing was opened anew
    assert page.on.enter(KEY, "?C=2&I=1&L=0&texts=own", " ")[5] == "english"  # in a tab that has none of its own
    wait_for_jobs()


def test_a_plan_of_another_model_says_so_when_it_is_loaded(page: Page, tmp_path: Path) -> None:
    bench, plan = page.sessions.of(KEY), plan_to_json(fold_spans(6, [(1, 2)], "mean"))
    assert bench.model is not None
    data = page.shown("fold", "data")
    assert (data["model"], data["fingerprint"]) == (bench.model.spec.name, bench.model.fingerprint)  # what Save writes
    for fingerprint, notice in (
        ("f" * 64, "this plan was made for Other (ffffffffffff), which is not the open model"),
        (data["fingerprint"], None),
    ):
        (tmp_path / "plan.json").write_text(json.dumps({**plan, "model": {"name": "Other", "fingerprint": fingerprint}}), encoding="utf-8")
        assert page.problem(page.on.load_plan(KEY, str(tmp_path / "plan.json"))) is None
        told = page.tell()["status"]
        assert told.get("notice") == notice
        assert notice is None or told["of"] == page.shown("fold", "file")["name"]  # it goes when another plan is shown
    wait_for_jobs()
