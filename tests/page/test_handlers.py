import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from engine.messages import Message
from engine.plans.files import plan_to_json
from engine.plans.rules import fold_spans
from tests.page.pages import KEY, SETTINGS, SLIDERS, Page
from tests.waiting import wait_for_jobs
from ui.page import sessions
from ui.page.app import build
from ui.page.bench.workbench import T_MIN
from ui.page.handlers.page_handlers import Handlers
from ui.page.sessions import Sessions


def test_entering_opens_what_the_link_says_and_sets_the_controls_to_it(folder: Path, tmp_path: Path) -> None:
    page = Page(tmp_path / "never opened", tmp_path)
    link = f"?model={folder}&texts=korean&T=0.8&C=3&I=1&L=2&H=5&rule=mean&similarity=per-token&plan=hand-made&spans=[[1,2]]"
    entered = page.enter(query=link)
    assert (entered["session"].partition(".")[0], entered["seen"], entered["model"]["value"], entered["texts"]) == (
        KEY,
        0,
        str(folder),
        "korean",
    )
    assert (entered["T"], entered["C"], entered["I"], entered["rule"], entered["similarity"]) == (0.8, 3, 1, "mean", "per-token")
    assert (entered["plan"], json.loads(entered["spans"])) == ("hand-made", [[1, 2]])
    assert (entered["L"]["value"], entered["H"]["value"]) == (2, 5)
    assert entered["status"]["problem"] is None
    wait_for_jobs()
    bench = page.sessions.of(KEY)
    assert bench.map_of is not None
    assert (bench.map_of.C, bench.map_of.lowest, bench.map_of.highest, bench.map_of.rule) == (3, 2, 5, "mean")


def test_a_link_downloads_nothing_by_itself_and_the_page_is_not_empty_meanwhile(folder: Path, tmp_path: Path) -> None:
    page = Page(folder, tmp_path)
    told = page.enter(query="?model=hub:somebody/some-model")
    wait_for_jobs()
    assert "hub:somebody/some-model" in str(told["model"])
    assert told["status"]["notice"] == "the link names hub:somebody/some-model, which is not on this machine; press Open to download it"
    status = page.tell()["status"]
    assert (status["problem"], status["notice"]) == (None, told["status"]["notice"])
    model = page.sessions.of(KEY).model
    assert model is not None
    assert model.folder == folder


@pytest.mark.parametrize("query", ["?T=-1&L=9999&H=9999&C=8", "?T=0.2", "?L=30&H=31"])
def test_entering_sets_no_slider_outside_its_own_range(query: str, folder: Path, tmp_path: Path) -> None:
    entered = Page(folder, tmp_path).enter(query=query)
    assert T_MIN <= entered["T"] <= 1  # a slider refuses whatever lies outside
    for name in ("L", "H"):
        assert entered[name]["value"] <= entered[name]["maximum"]
    wait_for_jobs()


@pytest.mark.parametrize("key", ["", "x", "../" + "0" * 29, "G" * 32, KEY + "\n", KEY.upper()])
def test_a_key_that_no_page_made_is_replaced_by_a_new_one(key: str, folder: Path, tmp_path: Path) -> None:
    page = Page(folder, tmp_path)
    made = [page.enter(key)["session"].partition(".")[0] for _ in range(2)]
    assert all(len(session) == 32 and set(session) <= set("0123456789abcdef") for session in made)
    assert len({key, *made}) == 3
    wait_for_jobs()


def test_a_reload_finds_everything_done_and_starts_nothing(page: Page) -> None:
    before = page.tell()
    entered = page.enter(query="?C=2&I=1&L=0")
    assert "kind" not in entered["status"]
    after = page.tell()
    assert after["serial"] == before["serial"]
    assert after["views"]["fold"]["data"] == before["views"]["fold"]["data"] != ""


def test_a_page_whose_workbench_was_forgotten_is_told_so_and_comes_in_anew(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "gone" not in json.loads(page.on.wake(KEY)[0])
    monkeypatch.setattr(sessions, "_IDLE_FOR", 0.0)
    page.sessions.sweep()
    monkeypatch.undo()
    assert json.loads(page.on.wake(f"{KEY}.1")[0])["gone"]
    told = page.enter()
    assert told["status"]["notice"].startswith("this page was inactive for so long")
    assert told["model"]
    wait_for_jobs()
    assert "gone" not in json.loads(page.on.wake(KEY)[0])


def test_the_timer_brings_what_is_new_and_skips_the_rest(page: Page) -> None:
    told = page.tell()
    assert json.loads(told["views"]["fold"]["data"])["depth"] == 6
    assert told["highest"]["maximum"] == 6
    assert told["timer"].active is False
    skip = gr.skip()
    again = page.tell(told["serial"])
    assert not again["views"]
    assert all(again[name] == skip for name in SLIDERS)
    page.on.spans(KEY, "[[1, 2]]")
    wait_for_jobs()
    later = page.tell(told["serial"])
    assert set(later["views"]) == {"costs", "fold", "landscape"}
    assert all(later[name] == skip for name in SLIDERS)


def test_only_the_timer_tells_and_never_twice_at_once(tmp_path: Path) -> None:
    page = build("demo", Sessions(tmp_path / "exports"), tmp_path / "exports")
    telling = [event for event in page.fns.values() if getattr(event.fn, "__name__", "") == "poll"]
    assert len(telling) == 2  # one a language
    for event in telling:
        assert [name for _, name in event.targets] == ["tick"]
        assert event.trigger_mode == "once"


def test_a_setting_that_changes_asks_for_its_map(page: Page) -> None:
    assert page.problem(page.on.ask(KEY, 3, 1, 0, 6, "mean", "flattened")) is None
    wait_for_jobs()
    assert page.shown("fold", "data")["rule"] == "mean"


def test_h_goes_back_to_the_depth_when_a_model_is_opened(page: Page, folder: Path) -> None:
    page.on.ask(KEY, 2, 1, 0, 4, "reference", "flattened")
    wait_for_jobs()
    assert page.shown("fold", "data")["settings"]["highest"] == 4
    page.on.open(KEY, str(folder), "auto", "cpu", "korean", "", 2, 1, 0, 4, "reference", "flattened")
    wait_for_jobs()
    told = page.tell()
    assert json.loads(told["views"]["fold"]["data"])["settings"]["highest"] == 6
    assert told["highest"]["value"] == 6


FILES = {
    "no": "{",
    "deep": "[" * 100_000,
    "huge": '{"source_depth": 6, "blocks": [{"home": 0, "mix": [[0, 1' + "0" * 400 + "]]}]}",
    "other": json.dumps(plan_to_json(fold_spans(30, [(1, 2)], "mean"))),
}
Do = Callable[[Handlers, Path], list[Any]]


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        (lambda on, place: on.open(KEY, str(place / "nowhere"), "auto", "cpu", "english", "", *SETTINGS), "does not exist"),
        (lambda on, place: on.open(KEY, "demo", "auto", "cpu", "own", " \n ", *SETTINGS), "no text"),
        (lambda on, place: on.ask(KEY, 7, *SETTINGS[1:]), "C is 7"),
        (lambda on, place: on.spans(KEY, "[[4, 9]]"), "between 0 and 5"),
        (lambda on, place: on.load_plan(KEY, str(place / "missing.json")), "does not exist"),
        (lambda on, place: on.load_plan(KEY, str(place / "no.json")), "JSON"),
        (lambda on, place: on.load_plan(KEY, str(place / "deep.json")), ""),
        (lambda on, place: on.load_plan(KEY, str(place / "huge.json")), ""),
        (lambda on, place: on.load_plan(KEY, str(place / "other.json")), "30 layers"),
        (lambda on, place: on.export(KEY, "map", 0.9, "a/b", "safetensors", "auto", "5GB"), "a/b"),
        (lambda on, place: on.export(KEY, "file", 0.9, "", "safetensors", "auto", "5GB"), "no such plan"),
        (lambda on, place: on.export(KEY, "map", 0.9, "", "safetensors", "auto", "five"), "five"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_persons_mistake_is_the_status_line_until_the_next_thing_they_do(do: Do, expected: str, page: Page, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    told = page.problem(do(page.on, tmp_path))
    assert told
    assert expected in told
    assert page.tell()["status"]["problem"] == told
    assert "kind" not in page.tell()["status"]
    assert page.problem(page.on.cancel(KEY)) is None


def test_what_the_page_asks_by_itself_takes_no_complaint_away_but_its_own(page: Page, tmp_path: Path) -> None:
    told = page.problem(page.on.open(KEY, str(tmp_path / "nowhere"), "auto", "cpu", "english", "", *SETTINGS))
    assert told
    assert page.problem(page.on.ask(KEY, *SETTINGS)) == told  # as the page does after every opening
    assert page.problem(page.on.spans(KEY, "[]")) == told
    assert "C is 7" in str(page.problem(page.on.ask(KEY, 7, *SETTINGS[1:])))
    assert page.problem(page.on.ask(KEY, *SETTINGS)) is None


def test_a_mistake_is_told_in_the_language_of_the_page(folder: Path, tmp_path: Path) -> None:
    page = Page(folder, tmp_path / "exports", "ko")
    page.enter(query="?C=2&I=1&L=0")
    wait_for_jobs()
    assert page.problem(page.on.ask(KEY, 7, *SETTINGS[1:])) == "C가 7입니다. 2와 모델의 깊이 6 사이여야 합니다."
    assert page.problem(page.on.ask(KEY, *SETTINGS)) is None


def test_rows_of_the_board_are_named_in_the_language_of_the_page(folder: Path, tmp_path: Path) -> None:
    for language, named in (("en", "by hand, repaired (ridge)"), ("ko", "수동, 복구 (ridge)")):
        page = Page(folder, tmp_path / "exports", language)
        page.enter(query="?C=2&I=1&L=0")
        wait_for_jobs()
        bench = page.sessions.of(KEY)
        bench.set_spans([[1, 2]])
        wait_for_jobs()
        name = bench.comparison.board.pin(bench.hand, Message("{label}, repaired ({kind})", label=Message("by hand"), kind="ridge"))
        bench.comparison.shown()
        assert [entry["label"] for entry in page.shown("board", "data")["entries"]] == [named]
        bench.comparison.board.remove(name)


def test_a_plan_file_is_shown_when_it_could_be_taken(page: Page, tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(json.dumps({"plan": plan_to_json(fold_spans(6, [(1, 2)], "mean"))}), encoding="utf-8")
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    page.on.load_plan(KEY, str(tmp_path / "good.json"))
    wait_for_jobs()
    told = page.tell()
    assert told["plan"]["value"] == "file"
    assert page.shown("fold", "file")["depth"] == 5
    page.on.load_plan(KEY, str(tmp_path / "bad.json"))
    assert page.tell(told["serial"])["plan"] == gr.skip()


def test_judging_measures_what_is_ticked_as_more_settings_say(page: Page) -> None:
    assert page.problem(page.on.judge(KEY, "map", T_MIN, "english", "", 100, ["speed", "tasks"], "bundled", 3, 50, None)) is None
    wait_for_jobs()
    (row,) = page.shown("board", "data")["entries"]
    assert row["evaluation"]["protocol"]["tokens"] == 100
    assert (row["memory"]["context"], row["memory"]["batch"]) == (50, 1)
    assert {score["source"] * 3 % 1 for score in row["tasks"]} == {0}
    assert "samples" not in row
    assert "at least 1" in page.problem(page.on.judge(KEY, "map", T_MIN, "english", "", 100, ["speed"], None, None, 0, None))


def test_present_measures_what_the_plan_lacks_and_nothing_else(fresh_cache: Path, page: Page) -> None:
    lacks = SimpleNamespace(also=["speed", "tasks"])  # tasks are not for guests
    assert page.problem(page.on.measure(KEY, lacks, "map", T_MIN, "english", "", 100, None, None, 50, None)) is None
    wait_for_jobs()
    (row,) = page.shown("board", "data")["entries"]
    assert row["memory"]["context"] == 50
    assert row["speed"]["plan_peak"] > row["memory"]["plan_weights"]
    assert {"samples", "tasks"} & set(row) == set()


def test_a_button_below_the_board_does_as_more_settings_say(page: Page) -> None:
    page.on.judge(KEY, "map", T_MIN, "english", "", 100, [], None, None, None, None)
    wait_for_jobs()
    (row,) = page.shown("board", "data")["entries"]
    press = SimpleNamespace(what="speed", name=row["name"])
    assert page.problem(page.on.board(KEY, press, None, None, 50, 3)) is None  # type: ignore[arg-type]
    wait_for_jobs()
    (row,) = page.shown("board", "data")["entries"]
    assert (row["memory"]["context"], row["memory"]["batch"]) == (50, 3)
    show = SimpleNamespace(what="show", name=row["name"])
    page.on.board(KEY, show, None, None, None, None)  # type: ignore[arg-type]
    assert page.tell()["plan"]["value"] == "found"


def test_clicking_a_fold_adds_it_and_clicking_it_again_takes_it_out(page: Page) -> None:
    def click(text: str, first: int, last: int) -> tuple[list[list[int]], str]:
        spans, plan = page.on.toggle(text, SimpleNamespace(first=first, last=last))  # type: ignore[arg-type]
        return json.loads(spans), plan

    assert click("[]", 4, 5) == ([[4, 5]], "hand-made")
    assert click("[[4, 5]]", 1, 2) == ([[1, 2], [4, 5]], "hand-made")
    assert click("[[1, 2], [4, 5]]", 4, 5) == ([[1, 2]], "hand-made")
    assert click("[[1, 2]]", 1, 2) == ([], "map")


@pytest.mark.usefixtures("in_this_process")
def test_an_export_without_a_name_gets_one_from_its_plan(page: Page, tmp_path: Path) -> None:
    bench = page.sessions.of(KEY)
    assert bench.model is not None
    with bench.model.lock:
        assert page.problem(page.on.export(KEY, "map", T_MIN, "  ", "safetensors", "auto", "5GB")) is None
        status = page.tell()["status"]
    assert status["kind"] == "export"
    wait_for_jobs()
    (made,) = (tmp_path / "exports").iterdir()
    depth = bench.chosen("map", T_MIN)[0].depth
    assert made.name.startswith(f"tiny-{depth}-layers-")
    assert json.loads(page.tell()["views"]["report"]["value"])["passed"] is True


def test_cancel_stops_what_runs(page: Page) -> None:
    bench = page.sessions.of(KEY)
    assert bench.model is not None
    with bench.model.lock:
        assert json.loads(page.on.removal(KEY)[0])["kind"] == "removal"
        page.on.cancel(KEY)
    wait_for_jobs()
    told = page.tell()["status"]
    assert told.pop("at") > 0
    assert told == {"problem": None}
    assert page.shown("similarity", "data")["removal"] is None
