import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

import ui.page.bench.jobs
from engine.errors import ExportError, LayerscopeError, PlanError, SettingsError, SourceError
from engine.jobs import drain
from engine.judge.similarity import SimilarityMeter
from engine.methods.laco import LacoSettings
from engine.models.texts import calibration_of
from engine.plans.files import plan_to_json
from engine.plans.rules import fold_spans
from engine.search.frontier import frontier
from tests.families import TEXTS, save_tiny
from tests.waiting import wait_for_jobs, wait_until
from ui.page.bench import shared
from ui.page.bench.desk import Desk as Workbench
from ui.page.bench.exporting import start_export
from ui.page.bench.shared import suggested_name, texts_of
from ui.page.bench.workbench import T_MIN

DEPTH = 6
DATA = ("similarity", "norms", "weights", "landscape", "fold")  # the components that wait for data
texts = calibration_of(TEXTS, "three texts")
other_texts = calibration_of(("Something else entirely.", "And one more text."), "two texts")
SETTINGS = LacoSettings(C=2, I=1, lowest=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny", "llama")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> Iterator[Workbench]:
    """A workbench without a model, in a house where nothing was opened or measured before."""
    monkeypatch.setattr(shared, "_models", {})
    bench = Workbench(tmp_path / "exports")
    yield bench
    bench.runner.cancel()
    wait_for_jobs()


@pytest.fixture
def bench(empty: Workbench, folder: Path) -> Workbench:
    """A workbench that has opened the tiny model and has nothing left to do."""
    opened(empty, folder)
    assert empty.runner.problem is None
    return empty


def opened(bench: Workbench, folder: Path, settings: LacoSettings = SETTINGS, of: Any = texts) -> None:
    bench.open(str(folder), "auto", of, settings)
    wait_for_jobs()


def strict(text: str) -> Any:
    """Read JSON as a browser does: it knows no NaN and no Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def shown(bench: Workbench, component: str, prop: str = "data") -> Any:
    return strict(bench.page.since(0)[1][component][prop])


def told_since(bench: Workbench, serial: int) -> set[str]:
    return set(bench.page.since(serial)[1])


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
    opened(other, folder)
    assert other.model is bench.model
    assert other.page.since(0)[1]["fold"]["data"] == bench.page.since(0)[1]["fold"]["data"]


def test_only_two_models_stay_open(empty: Workbench, tmp_path: Path) -> None:
    for seed in range(3):
        opened(empty, save_tiny(tmp_path / str(seed), "llama", seed=seed))
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
    opened(empty, broken)
    assert "truncated or corrupted" in (empty.runner.problem or "")
    assert empty.model is None
    (broken / "model.safetensors").write_bytes(weights)
    opened(empty, broken)  # the same words again: now there is something to open
    assert empty.runner.problem is None
    assert shown(empty, "fold")["depth"] == DEPTH


def test_opening_can_be_cancelled_and_begun_again(empty: Workbench, folder: Path) -> None:
    empty.open(str(folder), "auto", texts, SETTINGS)
    empty.cancel()
    wait_for_jobs()
    opened(empty, folder)
    assert shown(empty, "fold")["depth"] == DEPTH


@pytest.mark.parametrize("settings", [LacoSettings(C=8), LacoSettings(lowest=DEPTH), LacoSettings(highest=2, lowest=4)])
def test_a_link_whose_settings_do_not_fit_still_shows_the_model(settings: LacoSettings, empty: Workbench, folder: Path) -> None:
    opened(empty, folder, settings)
    assert len(shown(empty, "similarity")["similarity"]) == DEPTH + 1
    assert shown(empty, "weights")["projections"]
    empty.ask(SETTINGS)
    wait_for_jobs()
    assert shown(empty, "fold")["depth"] == DEPTH


def test_h_of_a_link_is_cut_to_the_models_depth(empty: Workbench, folder: Path) -> None:
    opened(empty, folder, LacoSettings(C=2, I=1, lowest=0, highest=30))
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
    opened(other, deeper)
    assert other.model is not None
    with other.model.lock:  # opened for the second time, but not profiled: somebody cancels
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
    assert "trials" not in known
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
    with pytest.raises(PlanError, match="0 to 5"):
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
    opened(bench, save_tiny(tmp_path / "deeper", "llama", num_hidden_layers=8))
    for choice, prop in (("hand-made", "hand"), ("file", "file")):
        assert bench.page.since(0)[1]["fold"][prop] == ""
        with pytest.raises(PlanError, match="no such plan"):
            bench.chosen(choice, 0.9)
    assert shown(bench, "fold")["depth"] == 8


# --- choosing and exporting ---


def test_the_plan_chosen_is_the_step_that_holds_t(bench: Workbench) -> None:
    assert bench.map is not None
    for step in bench.map.steps:
        plan, known = bench.chosen("map", step.t_from)
        assert plan == step.proposal.plan
        assert [trial["pointer"] for trial in known["trials"]] == [trial.pointer for trial in step.proposal.trials]
        assert known["calibration"] == {"texts": len(TEXTS), "fingerprint": texts.fingerprint, "name": "three texts"}


def test_nothing_is_chosen_while_the_map_is_out_of_date(bench: Workbench) -> None:
    assert bench.model is not None
    serial = bench.page.since(0)[0]
    with bench.model.lock:  # the new map cannot be made meanwhile
        bench.ask(LacoSettings(C=3, I=1, lowest=0, rule="mean"))
        news = bench.page.since(serial)[1]
        assert {name: news[name]["stale"] for name in news} == {"fold": "yes", "landscape": "yes"}
        with pytest.raises(PlanError, match="not ready"):
            bench.chosen("map", 0.9)
        with pytest.raises(PlanError, match="not ready"):
            start_export(bench, "map", 0.9, "auto", "5GB", "name")
    wait_for_jobs()
    assert dict(bench.chosen("map", 0.9)[0].settings)["rule"] == "mean"


@pytest.mark.parametrize(
    "do",
    [
        lambda bench: bench.chosen("map", 0.9),
        lambda bench: start_export(bench, "map", 0.9, "auto", "5GB", "name"),
        lambda bench: bench.load_plan(plan_to_json(fold_spans(DEPTH, [(1, 2)], "mean"))),
    ],
)
def test_without_a_model_the_page_is_told_so(do: Callable[[Workbench], object], empty: Workbench) -> None:
    with pytest.raises(LayerscopeError, match="no model is open yet"):
        do(empty)


def test_removal_without_a_model_is_told_too(empty: Workbench) -> None:
    try:
        empty.exploring.measure_removal()
        wait_for_jobs()
        told = empty.runner.problem
    except LayerscopeError as error:
        told = str(error)
    assert told == "no model is open yet"


NAMES = ("", ".", "..", "../x", "a/b", "a\\b", "/tmp/x", ".hidden", "-rf", "a b", "a\n", "한글", "x" * 101, "CON:")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_could_lead_elsewhere_is_refused(name: str, bench: Workbench) -> None:
    with pytest.raises(ExportError):
        start_export(bench, "map", 0.9, "auto", "5GB", name)
    assert bench.runner.state() is None
    assert not bench.export_folder.exists()


def test_a_name_that_is_taken_is_refused(bench: Workbench) -> None:
    (bench.export_folder / "taken").mkdir(parents=True)
    with pytest.raises(ExportError, match="exists already"):
        start_export(bench, "map", 0.9, "auto", "5GB", "taken")
    assert list((bench.export_folder / "taken").iterdir()) == []


@pytest.mark.parametrize("size", ["", "five", "1KB", "-5GB"])
def test_a_size_that_is_none_is_refused(size: str, bench: Workbench) -> None:
    with pytest.raises(ExportError, match="shard size"):
        start_export(bench, "map", 0.9, "auto", size, "name")


def test_an_export_writes_the_chosen_plan_and_reports(bench: Workbench) -> None:
    bench.set_spans([[1, 2], [3, 5]])
    wait_for_jobs()
    start_export(bench, "hand-made", 0.9, "auto", "5GB", "two-folds")
    wait_for_jobs()
    assert bench.runner.problem is None
    target, report = bench.export_folder / "two-folds", shown(bench, "report", "value")
    assert (report["path"], report["passed"]) == (str(target), True)
    assert [path.name for path in bench.export_folder.iterdir()] == ["two-folds"]
    network, info = AutoModelForCausalLM.from_pretrained(target, local_files_only=True, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    hand = shown(bench, "fold", "hand")
    assert network.config.num_hidden_layers == hand["depth"] == DEPTH - 3
    assert sum(parameter.numel() for parameter in network.parameters()) == hand["parameters"]
    kept = json.loads((target / "layerscope.json").read_text(encoding="utf-8"))
    assert kept["plan"] == json.loads(json.dumps(plan_to_json(bench.chosen("hand-made", 0.9)[0])))
    assert kept["calibration"]["fingerprint"] == texts.fingerprint
    with pytest.raises(ExportError, match="exists already"):
        start_export(bench, "hand-made", 0.9, "auto", "5GB", "two-folds")


def test_what_the_page_saves_is_the_plan_that_it_shows(bench: Workbench) -> None:
    """The page's Save writes the blocks it was told; loading them again must give the very same plan."""
    for rule in ("mean", "paper"):
        bench.ask(LacoSettings(C=3, I=1, lowest=0, rule=rule))
        wait_for_jobs()
        step = shown(bench, "fold")["steps"][-1]
        saved = {"source_depth": DEPTH, "blocks": step["blocks"], "method": "laco", "settings": {}}
        assert bench.load_plan(saved).blocks == bench.chosen("map", step["t_from"])[0].blocks
        wait_for_jobs()


# --- names and texts ---


def test_a_suggested_name_is_one_that_export_takes(bench: Workbench) -> None:
    name = suggested_name(bench.model, ["a plan", "auto"], 4)
    assert re.fullmatch(r"tiny-4-layers-[0-9a-f]{6}", name)
    assert suggested_name(bench.model, ["a plan", "bfloat16"], 4) != name
    assert suggested_name(bench.model, ["a plan", "auto"], 4) == name


def test_texts_are_a_bundled_language_or_a_persons_own_lines() -> None:
    assert len(texts_of("english", "").texts) == len(texts_of("korean", "").texts) == 10
    assert texts_of("own", "one\n\n  two \n").texts == ("one", "two")
    with pytest.raises(LayerscopeError, match="no text"):
        texts_of("own", " \n")
