"""The results of searches and repairs on a desk, and its report."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markupsafe import escape

from engine.errors import PlanError, SettingsError
from engine.export.settings import ExportSettings
from engine.judge.evaluation import Judge
from engine.methods.width.settings import TrimSettings
from engine.plans.files import plan_to_json
from engine.plans.rules import fold_spans
from engine.search.settings import SearchSettings, Target
from engine.types import Block
from tests.page.benches import DEPTH, held, rows, shown
from tests.waiting import wait_for_jobs, wait_until
from ui.page.bench.board import by_protocol
from ui.page.bench.desk import Desk
from ui.page.bench.plans import measuring
from ui.page.bench.plans.exporting import start_export

# --- search, repair, report ---


def test_a_search_shows_its_best_plan(desk: Desk) -> None:
    desk.searching.start(Target(keep=4), SearchSettings(seconds=20, survivors=("keep-first",)))
    wait_for_jobs()
    data = shown(desk, "search")
    scores = [point["score"] for point in data["history"]]
    assert scores == sorted(scores, reverse=True)
    assert scores
    plan, _ = desk.chosen("found", 0.9)
    assert (plan.depth, plan.method) == (4, "search")
    assert [block["home"] for block in data["plan"]["blocks"]] == list(plan.kept)
    desk.searching.make_baseline("tail", 4, "kl")
    wait_for_jobs()
    (beside,) = shown(desk, "search")["baselines"]
    assert (beside["method"], beside["depth"]) == ("tail", 4)
    assert beside["score"] >= scores[-1]
    assert desk.chosen("found", 0.9)[0].kept == (0, 1, 2, 3)


@pytest.mark.parametrize("target", [Target(keep=0), Target(keep=7), Target(), Target(parameters=10), Target(bytes=10.0)])
def test_a_target_that_cannot_be_met_is_refused(target: Target, desk: Desk) -> None:
    with pytest.raises(SettingsError):
        desk.searching.start(target, SearchSettings(seconds=20, survivors=("keep-first",)))
    assert desk.runner.state() is None


@pytest.mark.usefixtures("in_this_process")
def test_a_repaired_plan_is_judged_beside_what_it_was_and_exports(desk: Desk) -> None:
    desk.set_spans([[1, 3]])
    wait_for_jobs()
    desk.repairing.repair("hand-made", 0.9, "ridge", held, 100, tokens=800)
    wait_for_jobs()
    assert desk.runner.problem is None
    facts, plan = shown(desk, "repaired", "value"), desk.chosen("found", 0.9)[0]
    assert facts["seams"] == len(plan.repairs) == sum(bool(block.repair) for block in plan.blocks)
    assert len(rows(desk)) == (2 if plan.repairs else 1)
    assert plan.blocks[1] in (Block(1, ((3, 1.0),)), Block(1, ((3, 1.0),), plan.blocks[1].repair))
    start_export(desk, "found", 0.9, ExportSettings(), "repaired", **desk.comparison.known_of(plan))
    wait_for_jobs()
    assert shown(desk, "report", "value")["passed"] is True
    card = ModelCard.load(desk.export_folder / "repaired" / "README.md").data  # what was measured is in the model-index
    found = {result.metric_name: result.metric_value for result in card.eval_results}
    judged = next(row for row in rows(desk) if row["plan"]["blocks"] == plan_to_json(plan)["blocks"])["evaluation"]
    assert found["perplexity"] == pytest.approx(judged["perplexity"]["plan"])
    assert found["KL divergence from the source (nats per token)"] == pytest.approx(judged["kl"])


def test_layers_solved_again_are_told_as_such_and_go_on_from_a_trimmed_plan(desk: Desk) -> None:
    desk.set_spans([[1, 3]])
    wait_for_jobs()
    desk.trimming.trim("hand-made", 0.9, TrimSettings(neurons=24, compensation="nothing"), 800)
    wait_for_jobs()
    refused = desk.repairing.refused("found", 0.9)
    assert set(refused) == {"ridge", "scalar"}
    for kind, reason in refused.items():  # what the page says beside the buttons is what a press would
        with pytest.raises(PlanError, match=re.escape(reason)):
            desk.repairing.repair("found", 0.9, kind, held, 100, tokens=800)
    assert set(desk.repairing.times("found", 0.9, 100, tokens=800)["seconds"]) == {"refit"}
    desk.repairing.repair("found", 0.9, "refit", held, 100, tokens=800)
    wait_for_jobs()
    assert desk.runner.problem is None
    facts, plan = shown(desk, "repaired", "value"), desk.chosen("found", 0.9)[0]
    assert plan.width is not None
    assert (facts["seams"], facts["solved"]) == (0, sum(len(block.trim.refits) for block in plan.blocks if block.trim))
    assert facts["solved"] > 0
    assert facts["worse"] is (not facts["after"] <= facts["before"])
    desk.repairing.undo()
    wait_for_jobs()
    assert not any(block.trim.refits for block in desk.chosen("found", 0.9)[0].blocks if block.trim)


def test_how_long_a_repair_takes_is_told_before_at_the_pace_of_this_machine(desk: Desk) -> None:
    desk.set_spans([[1, 3]])
    wait_for_jobs()
    model = desk.open_meter().model
    model.paces.clear()  # as after an opening of which everything was remembered
    assert desk.repairing.times("hand-made", 0.9, 100, tokens=800) == {}
    wait_for_jobs()
    told = shown(desk, "repair-times", "value")
    assert 0 < model.pace < 1
    assert 0 < told["seconds"]["scalar"] < told["seconds"]["ridge"]  # which has more maps to choose from
    assert 800 <= told["tokens"] < 900
    now = desk.repairing.times("hand-made", 0.9, 100, tokens=800)
    model.paces.extend([2 * pace for pace in model.paces] * 9)
    assert desk.repairing.times("hand-made", 0.9, 100, tokens=800)["seconds"]["ridge"] == pytest.approx(2 * now["seconds"]["ridge"])
    longer = desk.repairing.times("hand-made", 0.9, 5000, tokens=4000)
    assert longer["seconds"]["ridge"] > 4 * now["seconds"]["ridge"]
    with pytest.raises(PlanError):
        desk.repairing.times("file", 0.9, 100)


def worse_after(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the judge find repaired plans worse, or better, than they were."""
    judge = Judge.judge

    def judged(self: Judge, plan: Any) -> Any:
        found = yield from judge(self, plan)
        ratio = found.perplexity.ratio * {"worse": 2, "better": 0.5}[change]
        return replace(found, perplexity=replace(found.perplexity, ratio=ratio)) if plan.repairs else found

    monkeypatch.setattr(Judge, "judge", judged)


@pytest.mark.parametrize("choice", ["hand-made", "file", "found"])
@pytest.mark.parametrize("change", ["worse", "better"])
def test_after_a_repair_the_page_is_on_the_repaired_plan_and_can_go_back(
    choice: str, change: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse_after(change, monkeypatch)
    plan = fold_spans(DEPTH, [(1, 3)], "reference")
    desk.set_spans([[1, 3]])
    desk.load_plan(plan_to_json(plan))
    desk.show_found(plan)
    wait_for_jobs()
    serial = desk.page.since(0)[0]
    desk.repairing.repair(choice, 0.9, "ridge", held, 100, tokens=800)
    wait_for_jobs()
    news = desk.page.since(serial)[1]
    assert news["plan"] == {"value": "found"}  # so that Save, Judge, Report and Export, which go by it, take the repaired one
    repaired = desk.chosen("found", 0.9)[0]
    assert repaired.repairs
    assert [block.get("repair", "") for block in json.loads(news["fold"]["found"])["blocks"]] == [block.repair for block in repaired.blocks]
    facts = json.loads(news["repaired"]["value"])
    assert facts["worse"] is (change == "worse")
    assert (facts["texts"], facts["practice"]) == ("held out", "practice-english")
    assert facts["practice_after"] < facts["practice_before"]
    desk.repairing.undo()
    wait_for_jobs()
    assert desk.page.since(serial)[1]["plan"] == {"value": choice}
    assert desk.chosen(choice, 0.9)[0].blocks == plan.blocks
    with pytest.raises(PlanError, match="no repair"):
        desk.repairing.undo()


def test_a_search_moves_fold_to_its_best_plan_so_far(desk: Desk) -> None:
    desk.searching.start(Target(keep=4), SearchSettings(seconds=20, survivors=("keep-first",)))
    wait_until(lambda: "plan" in desk.page.since(0)[1])
    with desk.lock:  # what is shown is what would be exported, also while it goes on
        found = shown(desk, "fold", "found")
        assert [block["home"] for block in found["blocks"]] == list(desk.chosen("found", 0.9)[0].kept)
    wait_for_jobs()


def test_a_report_measures_what_is_ticked_and_nothing_else(desk: Desk) -> None:
    desk.comparison.report("map", 0.0, held, 100, ["speed"])
    wait_for_jobs()
    (row,) = rows(desk)
    assert {"evaluation", "speed", "memory"} <= set(row)
    assert "samples" not in row
    assert "Writing (decoding), tokens per second" in shown(desk, "download")["text"]


def test_plans_that_were_judged_differently_are_told_apart(desk: Desk) -> None:
    for spans, tokens in (([[1, 2]], 80), ([[2, 3]], 80), ([[3, 4]], 60)):
        desk.set_spans(spans)
        wait_for_jobs()
        desk.comparison.judge("hand-made", 0.9, held, tokens)
        wait_for_jobs()
    desk.comparison.board.pin(fold_spans(DEPTH, [(0, 1)], "mean"), "never judged")
    desk.comparison.shown()
    board = shown(desk, "board")
    assert [row["mark"] for row in board["entries"]] == ["", "", "a", ""]
    assert [(one["mark"], one["tokens"], one["texts"]) for one in board["protocols"]] == [("", 80, "held out"), ("a", 60, "held out")]


def test_of_two_protocols_with_as_many_plans_the_newer_one_ranks() -> None:
    entries = {name: {"evaluation": {"protocol": {"tokens": tokens}}} for name, tokens in (("x", 1), ("y", 2))}
    assert by_protocol(entries) == ({"y": "", "x": "a"}, [{"tokens": 2, "mark": ""}, {"tokens": 1, "mark": "a"}])


def test_a_report_is_handed_to_the_browser_whole(desk: Desk) -> None:
    desk.comparison.report("map", 0.0, held, 100, ["samples", "speed"])
    wait_for_jobs()
    assert desk.runner.problem is None
    file = shown(desk, "download")
    assert file["name"].endswith("-layers.html")
    assert file["text"].lstrip().lower().startswith("<!doctype html>")
    (row,) = rows(desk)  # what nobody had measured was measured for it
    assert {"evaluation", "samples", "speed", "memory"} <= set(row)
    assert str(escape(row["samples"][0]["plan"]["text"].strip()))[:20] in file["text"]
    assert "Writing (decoding), tokens per second" in file["text"]


def test_a_report_sets_plans_of_the_board_beside_it_that_were_judged_alike(desk: Desk) -> None:
    desk.comparison.judge("map", 0.9, held, 20)  # by another protocol than the report's
    desk.set_spans([[1, 3]])
    desk.searching.make_baseline("bi", 3, "kl")
    wait_for_jobs()
    for choice in ("hand-made", "found"):
        desk.comparison.judge(choice, 0.9, held, 100)
        wait_for_jobs()
    desk.comparison.report("hand-made", 0.9, held, 100, language="ko")
    wait_for_jobs()
    assert desk.runner.problem is None
    page = shown(desk, "download")["text"]
    drawn = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])["cost"]["points"]
    assert [(point["label"], point["depth"]) for point in drawn] == [(None, 4), ("블록 영향도(BI)", 3)]
    judged = next(row for row in rows(desk) if row["depth"] == 3)["evaluation"]["perplexity"]["ratio"]
    assert drawn[1]["ratio"] == pytest.approx(judged, rel=1e-5)
    assert '<html lang="ko">' in page


def test_a_report_measures_nothing_twice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.comparison.judge("map", 0.0, held, 100, ["samples", "speed"])
    wait_for_jobs()
    monkeypatch.setattr(measuring, "measure_speed", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(measuring, "generate_beside", lambda *_: pytest.fail("written again"))
    desk.comparison.report("map", 0.0, held, 100, ["samples", "speed"])
    wait_for_jobs()
    assert desk.runner.problem is None
    assert shown(desk, "download")["text"]


def test_an_ablation_is_a_table_of_judged_plans(desk: Desk) -> None:
    assert desk.map is not None
    desk.comparison.ablate("drop-or-merge", desk.map.steps[-1].t_from, held, 100)
    wait_for_jobs()
    assert desk.runner.problem is None
    assert len(shown(desk, "ablation")["rows"]) == 5
    with pytest.raises(SettingsError):
        desk.comparison.ablate("nothing", 0.9, held, 100)
