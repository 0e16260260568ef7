import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ui.page.bench.jobs
import ui.page.bench.workbench
from engine.errors import PlanError, SettingsError, SourceError
from engine.jobs import Progress, drain
from engine.judge.similarity import SimilarityMeter
from engine.methods.depth.laco import LacoSettings
from engine.plans.files import plan_to_json
from engine.plans.rules import fold_spans
from engine.search.frontier import Mapping, frontier
from tests.families import save_tiny
from tests.page.benches import DATA, DEPTH, SETTINGS, open_on, other_texts, shown, texts, told_since
from tests.waiting import wait_for_jobs, wait_until
from ui.page.bench import shared
from ui.page.bench.desk import Desk as Workbench
from ui.page.bench.workbench import T_MIN

# --- opening ---


def test_an_opened_model_has_something_for_every_chart(bench: Workbench) -> None:
    _, news = bench.page.since(0)
    assert {name: news[name]["stale"] for name in DATA} == dict.fromkeys(DATA, "no")
    assert len(shown(bench, "similarity")["similarity"]) == DEPTH + 1
    assert len(shown(bench, "norms")["norms"]["first_token"]) == DEPTH + 1
    assert {len(row) for row in shown(bench, "weights")["cosine"]} == {DEPTH - 1}
    assert shown(bench, "landscape")["widths"] == [2, 3, 4, 5, 6]
    card = shown(bench, "spec", "value")
    assert (card["type"], card["depth"]) == ("llama", DEPTH)
    assert news["highest"] == {"maximum": DEPTH, "value": DEPTH}
    assert news["lowest"]["maximum"] == DEPTH - 1
    assert news["target"]["maximum"] == DEPTH


def test_the_map_shown_is_the_engines(bench: Workbench) -> None:
    assert bench.model is not None
    expected = drain(frontier(SimilarityMeter(bench.model, texts), SETTINGS, T_MIN))
    assert bench.map == expected
    data = shown(bench, "fold")
    assert [(step["t_from"], step["t_to"], step["depth"]) for step in data["steps"]] == [
        (step.t_from, step.t_to, step.proposal.plan.depth) for step in expected.steps
    ]
    assert data["settings"]["calibration"] == texts.fingerprint
    assert bench.page.since(0)[1]["target"]["minimum"] == min(step.proposal.plan.depth for step in expected.steps)


def test_opening_says_at_once_that_what_is_shown_is_out_of_date(bench: Workbench, folder: Path) -> None:
    assert bench.model is not None
    with bench.model.lock:
        bench.open(str(folder), "auto", other_texts, SETTINGS)
        news = bench.page.since(0)[1]
        assert {name: news[name]["stale"] for name in DATA} == dict.fromkeys(DATA, "yes")
    wait_for_jobs()
    assert {bench.page.since(0)[1][name]["stale"] for name in DATA} == {"no"}
    assert (shown(bench, "fold")["calibration"], shown(bench, "fold")["texts"]) == ("two texts", 2)


def test_opening_what_is_open_does_nothing(bench: Workbench, folder: Path) -> None:
    serial, model = bench.page.since(0)[0], bench.model
    bench.open(str(folder), "auto", texts, SETTINGS)
    assert bench.runner.state() is None
    assert bench.page.since(serial) == (serial, {})
    assert bench.model is model


def test_two_workbenches_share_a_models_weights(bench: Workbench, folder: Path, tmp_path: Path) -> None:
    other = Workbench(tmp_path)
    open_on(other, folder)
    assert other.model is bench.model
    assert other.page.since(0)[1]["fold"]["data"] == bench.page.since(0)[1]["fold"]["data"]


def test_what_one_visitor_has_measured_others_see_while_the_model_is_busy(bench: Workbench, folder: Path, tmp_path: Path) -> None:
    other = Workbench(tmp_path)
    assert bench.model is not None
    with bench.model.lock:  # a search of somebody's runs
        other.open(str(folder), "auto", texts, SETTINGS)
        wait_until(lambda: all(other.page.since(0)[1].get(name, {}).get("stale") == "no" for name in DATA))
    wait_for_jobs()
    assert other.meter is bench.meter
    assert {shown(other, name) == shown(bench, name) for name in DATA} == {True}


def test_only_two_models_stay_open(empty: Workbench, tmp_path: Path) -> None:
    for seed in range(3):
        open_on(empty, save_tiny(tmp_path / str(seed), "llama", seed=seed))
    assert [source.location for source in shared._models] == [str(tmp_path / "1"), str(tmp_path / "2")]


def test_a_model_that_does_not_exist_is_refused_and_the_open_one_stays(bench: Workbench, tmp_path: Path) -> None:
    serial = bench.page.since(0)[0]
    with pytest.raises(SourceError, match="does not exist"):
        bench.open(str(tmp_path / "nowhere"), "auto", texts, SETTINGS)
    assert bench.page.since(serial)[1] == {}
    bench.ask(LacoSettings(C=3))
    wait_for_jobs()
    assert bench.chosen("map", 0.9)[0].source_depth == DEPTH


def test_a_model_that_cannot_be_read_is_a_problem_that_can_be_mended(empty: Workbench, folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:2000])
    open_on(empty, broken)
    assert "truncated or corrupted" in (empty.runner.problem or "")
    assert empty.model is None
    (broken / "model.safetensors").write_bytes(weights)
    open_on(empty, broken)  # the same words again: now there is something to open
    assert empty.runner.problem is None
    assert shown(empty, "fold")["depth"] == DEPTH


def test_opening_can_be_cancelled_and_begun_again(empty: Workbench, folder: Path) -> None:
    empty.open(str(folder), "auto", texts, SETTINGS)
    empty.cancel()
    wait_for_jobs()
    open_on(empty, folder)
    assert shown(empty, "fold")["depth"] == DEPTH


@pytest.mark.parametrize("settings", [LacoSettings(C=8), LacoSettings(lowest=DEPTH), LacoSettings(highest=2, lowest=4)])
def test_a_link_whose_settings_do_not_fit_still_shows_the_model(settings: LacoSettings, empty: Workbench, folder: Path) -> None:
    open_on(empty, folder, settings)
    assert len(shown(empty, "similarity")["similarity"]) == DEPTH + 1
    assert shown(empty, "weights")["projections"]
    empty.ask(SETTINGS)
    wait_for_jobs()
    assert shown(empty, "fold")["depth"] == DEPTH


def test_h_of_a_link_is_cut_to_the_models_depth(empty: Workbench, folder: Path) -> None:
    open_on(empty, folder, LacoSettings(C=2, I=1, lowest=0, highest=30))
    assert shown(empty, "fold")["settings"]["highest"] == DEPTH


# --- asking ---


def test_asking_the_same_again_does_nothing(bench: Workbench) -> None:
    serial = bench.page.since(0)[0]
    for same in (SETTINGS, LacoSettings(C=2, I=1, lowest=0, highest=DEPTH), LacoSettings(C=2, I=1, lowest=0, T=0.7)):
        bench.ask(same)
        assert bench.runner.state() is None
    assert bench.page.since(serial) == (serial, {})


@pytest.mark.parametrize("change", [{"rule": "mean"}, {"similarity": "per-token"}])
def test_another_rule_or_definition_gives_another_map_and_landscape(change: dict[str, Any], bench: Workbench) -> None:
    serial, _ = bench.page.since(0)
    before = {name: shown(bench, name) for name in ("fold", "landscape")}
    settings = LacoSettings(C=2, I=1, lowest=0, **change)
    bench.ask(settings)
    wait_for_jobs()
    assert {bench.page.since(0)[1][name]["stale"] for name in DATA} == {"no"}
    fold, landscape = shown(bench, "fold"), shown(bench, "landscape")
    assert fold["steps"] != before["fold"]["steps"]
    assert landscape["similarity"] != before["landscape"]["similarity"]
    assert (fold["rule"], fold["definition"]) == (landscape["rule"], landscape["definition"]) == (settings.rule, settings.similarity)
    assert not told_since(bench, serial) & {"similarity", "norms", "weights"}  # nothing is worked out twice


def test_another_c_gives_another_map_and_leaves_the_landscape(bench: Workbench) -> None:
    serial = bench.page.since(0)[0]
    bench.ask(LacoSettings(C=3, I=1, lowest=0))
    wait_for_jobs()
    assert told_since(bench, serial) == {"fold", "target", "costs"}
    assert shown(bench, "fold")["settings"]["C"] == 3


@pytest.mark.parametrize("settings", [LacoSettings(C=7), LacoSettings(lowest=6), LacoSettings(rule="none")])
def test_settings_that_do_not_fit_are_refused_and_the_map_stays(settings: LacoSettings, bench: Workbench) -> None:
    serial, plan = bench.page.since(0)[0], bench.chosen("map", 0.9)
    with pytest.raises(SettingsError):
        bench.ask(settings)
    assert bench.runner.state() is None
    assert bench.page.since(serial) == (serial, {})
    assert bench.chosen("map", 0.9) == plan


def test_a_question_that_was_cancelled_can_be_asked_again(bench: Workbench) -> None:
    assert bench.model is not None
    with bench.model.lock:
        bench.ask(LacoSettings(C=3, rule="mean"))
        bench.cancel()
    wait_for_jobs()
    bench.ask(LacoSettings(C=3, rule="mean"))
    wait_for_jobs()
    assert (shown(bench, "fold")["rule"], shown(bench, "landscape")["rule"]) == ("mean", "mean")
    assert bench.chosen("map", 0.9)


def test_controls_that_say_by_themselves_what_was_cancelled_do_not_ask_for_it(bench: Workbench) -> None:
    assert bench.model is not None
    cancelled, other = LacoSettings(C=3, rule="mean"), LacoSettings(C=4, rule="mean")
    with bench.model.lock:
        bench.ask(cancelled)
        bench.cancel()
        bench.cancel()
    wait_for_jobs()
    bench.ask(cancelled, by_itself=True)
    assert bench.runner.state() is None
    bench.ask(other, by_itself=True)  # a hand: from now on both are questions again
    wait_for_jobs()
    bench.ask(cancelled, by_itself=True)
    wait_for_jobs()
    assert shown(bench, "fold")["settings"]["C"] == 3


def test_a_map_that_is_stopped_shows_the_steps_it_has_and_goes_on(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, advance = LacoSettings(C=2, I=1, lowest=0, rule="mean"), Mapping._advance
    monkeypatch.setattr(ui.page.bench.workbench, "T_MIN", -1.0)
    steps: list[int] = []

    def slow(run: Mapping) -> Iterator[Progress]:
        steps.append(len(run.found.steps))
        while steps[-1] == 3:
            yield Progress("Waiting")
            time.sleep(0.01)
        yield from advance(run)

    with monkeypatch.context() as patch:
        patch.setattr(Mapping, "_advance", slow)
        bench.ask(settings)
        wait_until(lambda: steps[-1:] == [3])
        bench.cancel()
        wait_for_jobs()
    part = shown(bench, "fold")
    assert (part["stopped"], part["filling"], part["settings"]["rule"], bench.page.since(0)[1]["fold"]["stale"]) == (
        True,
        False,
        "mean",
        "no",
    )
    assert part["t_min"] == pytest.approx(part["steps"][2]["t_from"], abs=1e-5)
    top, low = part["steps"][0], bench.map.steps[-1].t_from if bench.map else 0.0
    assert bench.chosen("map", top["t_from"])[0].depth == top["depth"]
    with pytest.raises(PlanError, match="not ready yet"):
        bench.chosen("map", low - 0.1)
    bench.look(low - 0.1)  # the rest is wanted after all
    wait_for_jobs()
    whole = shown(bench, "fold")
    assert (whole["stopped"], whole["t_min"]) == (False, -1.0)
    assert whole["steps"][:3] == part["steps"][:3]
    assert bench.chosen("map", low - 0.1)


def test_a_job_that_was_abandoned_is_begun_again_when_the_page_comes_back(
    bench: Workbench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = LacoSettings(C=3, I=1, lowest=0, rule="mean")
    with monkeypatch.context() as patch:
        patch.setattr(ui.page.bench.jobs, "ABANDONED_AFTER", -1.0)
        bench.ask(settings)
        wait_for_jobs()
    assert bench.page.since(0)[1]["fold"]["stale"] == "yes"
    bench.open(str(folder), "auto", texts, settings)  # as a reloaded page does
    wait_for_jobs()
    assert bench.page.since(0)[1]["fold"]["stale"] == "no"
    assert (shown(bench, "fold")["rule"], shown(bench, "landscape")["rule"]) == ("mean", "mean")


def test_cancelling_something_else_leaves_the_map_in_use(bench: Workbench) -> None:
    assert bench.model is not None
    before = bench.chosen("map", 0.9)
    with bench.model.lock:
        bench.exploring.measure_removal()
        bench.cancel()
    wait_for_jobs()
    assert bench.chosen("map", 0.9) == before  # it is on the screen, and not out of date
    bench.set_spans([[1, 2]])
    wait_for_jobs()
    assert bench.chosen("hand-made", 0.9)[0].depth == DEPTH - 1


def test_removal_is_added_to_the_profile(bench: Workbench) -> None:
    assert shown(bench, "similarity")["removal"] is None
    bench.exploring.measure_removal()
    wait_for_jobs()
    data = shown(bench, "similarity")
    assert len(data["removal"]["removed"]) == DEPTH
    assert len(data["similarity"]) == DEPTH + 1


def test_removal_without_the_profile_it_belongs_to_is_no_bug(bench: Workbench, folder: Path, tmp_path: Path) -> None:
    deeper = save_tiny(tmp_path / "deeper", "llama", num_hidden_layers=8)
    other = Workbench(tmp_path)
    open_on(other, deeper)
    assert other.model is not None
    with other.model.lock:  # opened for the second time, but not cached_profile: somebody cancels
        bench.open(str(deeper), "auto", texts, SETTINGS)
        wait_until(lambda: bench.model is other.model and bench.runner.state())
        bench.cancel()
    wait_for_jobs()
    bench.exploring.measure_removal()
    wait_for_jobs()
    assert bench.runner.problem != ""
    data = shown(bench, "similarity")
    assert data["removal"] is None or len(data["removal"]["removed"]) == len(data["layers"])


# --- plans by hand and from a file ---


def test_spans_make_a_hand_made_plan_and_it_is_measured(bench: Workbench) -> None:
    bench.set_spans([[1, 2], [4, 5]])
    wait_for_jobs()
    plan, known = bench.chosen("hand-made", 0.9)
    assert plan == fold_spans(DEPTH, [(1, 2), (4, 5)], "reference")
    assert known.trials is None
    assert bench.model is not None
    found = SimilarityMeter(bench.model, texts).measure(plan.blocks, plan.prefix).flattened
    hand = shown(bench, "fold", "hand")
    assert hand["similarity"] == pytest.approx(sum(found) / len(found), rel=1e-5)
    assert hand["depth"] == DEPTH - 2
    assert shown(bench, "landscape", "marks") == [[1, 2], [4, 5]]
    bench.set_spans([])
    assert bench.page.since(0)[1]["fold"]["hand"] == ""
    with pytest.raises(PlanError, match="no such plan"):
        bench.chosen("hand-made", 0.9)


def test_a_hand_made_plan_follows_the_rule(bench: Workbench) -> None:
    bench.set_spans([[1, 3]])
    wait_for_jobs()
    before = shown(bench, "fold", "hand")
    bench.ask(LacoSettings(C=2, I=1, lowest=0, rule="mean"))
    wait_for_jobs()
    assert bench.chosen("hand-made", 0.9)[0] == fold_spans(DEPTH, [(1, 3)], "mean")
    after = shown(bench, "fold", "hand")
    assert after["blocks"] != before["blocks"]
    assert after["similarity"] != before["similarity"]


def test_a_span_outside_the_model_is_refused_and_nothing_changes(bench: Workbench) -> None:
    bench.set_spans([[1, 2]])
    wait_for_jobs()
    serial = bench.page.since(0)[0]
    with pytest.raises(PlanError, match="between 0 and 5"):
        bench.set_spans([[1, 2], [4, DEPTH]])
    assert bench.chosen("hand-made", 0.9)[0] == fold_spans(DEPTH, [(1, 2)], "reference")
    assert told_since(bench, serial) == set()


def test_a_plan_file_is_taken_and_measured(bench: Workbench) -> None:
    plan = fold_spans(DEPTH, [(0, 2)], "keep-last")
    assert bench.load_plan(json.loads(json.dumps(plan_to_json(plan)))) == plan
    wait_for_jobs()
    assert bench.chosen("file", 0.9)[0] == plan
    file = shown(bench, "fold", "file")
    assert (file["depth"], file["method"]) == (DEPTH - 2, "hand-made")
    assert -1 < file["similarity"] < 1


@pytest.mark.parametrize("value", [plan_to_json(fold_spans(30, [(1, 2)], "mean")), {}, [], None, 5, {"plan": {}}, {"steps": []}])
def test_a_plan_file_for_another_depth_or_none_at_all_is_refused(value: Any, bench: Workbench) -> None:
    good = bench.load_plan(plan_to_json(fold_spans(DEPTH, [(1, 2)], "mean")))
    wait_for_jobs()
    serial = bench.page.since(0)[0]
    with pytest.raises(PlanError):
        bench.load_plan(value)
    assert bench.chosen("file", 0.9)[0] == good
    assert told_since(bench, serial) == set()


@pytest.mark.parametrize(("again", "of"), [(LacoSettings(C=2, I=1, lowest=0, similarity="per-token"), texts), (SETTINGS, other_texts)])
@pytest.mark.parametrize("choice", ["hand", "file"])
def test_the_figure_of_a_plan_follows_the_definition_and_the_texts(
    choice: str, again: LacoSettings, of: Any, bench: Workbench, folder: Path
) -> None:
    """Beside the figure the page names the definition and the texts that it was measured with."""
    plan = fold_spans(DEPTH, [(1, 3)], "reference")
    if choice == "hand":
        bench.set_spans([[1, 3]])
    else:
        bench.load_plan(plan_to_json(plan))
    wait_for_jobs()
    if of is texts:
        bench.ask(again)
    else:
        bench.open(str(folder), "auto", of, again)
    wait_for_jobs()
    assert bench.model is not None
    found = SimilarityMeter(bench.model, of).measure(plan.blocks, plan.prefix).of(again.similarity)
    assert shown(bench, "fold", choice)["similarity"] == pytest.approx(sum(found) / len(found), rel=1e-5)


def test_another_model_forgets_the_plans_of_the_one_before(bench: Workbench, tmp_path: Path) -> None:
    bench.set_spans([[1, 2]])
    bench.load_plan(plan_to_json(fold_spans(DEPTH, [(1, 2)], "mean")))
    wait_for_jobs()
    open_on(bench, save_tiny(tmp_path / "deeper", "llama", num_hidden_layers=8))
    for choice, prop in (("hand-made", "hand"), ("file", "file")):
        assert bench.page.since(0)[1]["fold"][prop] == ""
        with pytest.raises(PlanError, match="no such plan"):
            bench.chosen(choice, 0.9)
    assert shown(bench, "fold")["depth"] == 8
