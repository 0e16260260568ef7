"""The plan shown on Fold, and its export."""

import json
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from engine.errors import ExportError, LayerscopeError, PlanError
from engine.export.provenance import Calibration
from engine.export.settings import ExportSettings
from engine.methods.depth.laco import LacoSettings
from engine.methods.masks.settings import PruneSettings
from engine.plans import tensor_store
from engine.plans.bundle import read_saved
from engine.plans.files import plan_to_json, read_json
from engine.plans.rules import fold_spans
from tests.families import TEXTS
from tests.page.benches import DEPTH, shown, texts
from tests.waiting import wait_for_jobs
from ui.page.bench.desk import Desk as Workbench
from ui.page.bench.plans.exporting import start_export
from ui.page.bench.shared import suggested_name, texts_of

# --- choosing and exporting ---


def test_the_plan_chosen_is_the_step_that_holds_t(bench: Workbench) -> None:
    assert bench.map is not None
    for step in bench.map.steps:
        plan, known = bench.chosen("map", step.t_from)
        assert plan == step.proposal.plan
        assert known.trials == step.proposal.trials
        assert known.calibration == Calibration(len(TEXTS), texts.fingerprint, "three texts")


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
            start_export(bench, "map", 0.9, ExportSettings(), "name")
    wait_for_jobs()
    assert dict(bench.chosen("map", 0.9)[0].settings)["rule"] == "mean"


@pytest.mark.parametrize(
    "do",
    [
        lambda bench: bench.chosen("map", 0.9),
        lambda bench: start_export(bench, "map", 0.9, ExportSettings(), "name"),
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


def test_a_name_that_could_lead_elsewhere_is_refused(bench: Workbench) -> None:
    for name in NAMES:
        with pytest.raises(ExportError):
            start_export(bench, "map", 0.9, ExportSettings(), name)
        assert bench.runner.state() is None, name
        assert not bench.export_folder.exists(), name


def test_a_name_that_is_taken_is_refused(bench: Workbench) -> None:
    (bench.export_folder / "taken").mkdir(parents=True)
    with pytest.raises(ExportError, match="exists already"):
        start_export(bench, "map", 0.9, ExportSettings(), "taken")
    assert list((bench.export_folder / "taken").iterdir()) == []


def test_a_size_that_is_none_is_refused(bench: Workbench) -> None:
    for size in ("", "five", "1KB", "-5GB"):
        with pytest.raises(ExportError, match="shard size"):
            start_export(bench, "map", 0.9, ExportSettings(shard_size=size), "name")


@pytest.mark.usefixtures("in_this_process")
def test_an_export_writes_the_chosen_plan_and_reports(bench: Workbench) -> None:
    bench.set_spans([[1, 2], [3, 5]])
    wait_for_jobs()
    start_export(bench, "hand-made", 0.9, ExportSettings(), "two-folds")
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
        start_export(bench, "hand-made", 0.9, ExportSettings(), "two-folds")


def test_what_the_page_saves_is_the_plan_that_it_shows(bench: Workbench) -> None:
    """The page's Save writes the blocks it was told; loading them again must give the very same plan."""
    for rule in ("mean", "paper"):
        bench.ask(LacoSettings(C=3, I=1, lowest=0, rule=rule))
        wait_for_jobs()
        step = shown(bench, "fold")["steps"][-1]
        saved = {"source_depth": DEPTH, "blocks": step["blocks"], "method": "laco", "settings": {}}
        assert bench.load_plan(saved).blocks == bench.chosen("map", step["t_from"])[0].blocks
        wait_for_jobs()


def test_a_plan_with_tensors_is_saved_and_loaded_with_them(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.pruning.prune("map", 1.0, PruneSettings("sparsegpt", 0.5), 400)
    wait_for_jobs()
    plan = bench.chosen("found", 1.0)[0]
    assert shown(bench, "fold", "found")["tensors"] == len(plan.tensors) > 0
    file = bench.saving.file("found", 1.0)
    assert file.name == f"plan-{DEPTH}-layers.zip"
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / "elsewhere"))  # a machine that has none of them
    monkeypatch.setattr(tensor_store, "_fresh", OrderedDict())
    with pytest.raises(PlanError, match="not on this machine"):
        bench.load_plan(read_json(file))
    assert bench.file is None
    assert bench.load_plan(read_saved([file])) == plan
    wait_for_jobs()
    assert bench.runner.problem is None
    assert shown(bench, "fold", "file")["masks"] == {"sparsity": 0.5, "pattern": "", "method": "sparsegpt"}


# --- names and texts ---


def test_a_suggested_name_is_one_that_export_takes(bench: Workbench) -> None:
    plan, other = (fold_spans(6, [span], "mean") for span in ((1, 3), (2, 4)))
    model = bench.open_meter().model
    name = suggested_name(model, plan)
    assert re.fullmatch(r"tiny-4-layers-[0-9a-f]{6}", name)
    assert suggested_name(model, other) != name
    bench.set_spans([[1, 3]])
    assert suggested_name(model, bench.hand) == shown(bench, "fold", "hand")["folder"]  # what the page says before it is pressed
    wait_for_jobs()


def test_texts_are_a_bundled_language_or_a_persons_own_lines() -> None:
    assert len(texts_of("english", "").texts) == len(texts_of("korean", "").texts) == 10
    assert texts_of("own", "one\n\n  two \n").texts == ("one", "two")
    with pytest.raises(LayerscopeError, match="no text"):
        texts_of("own", " \n")
