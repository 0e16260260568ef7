"""The report and the card contain a model's lineage. It is read from its folder and checked, never trusted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from engine.export.lineage import base_model, before, learned, lineage_of, sentences_of
from engine.export.report.language import speaker
from engine.jobs import drain
from engine.methods.depth.baselines import plan_of_kept
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.types import Model
from tests.exporting import write
from tests.families import save_tiny

GAP = {"ratio": 2.672}
SOURCE = {"step": "source", "name": "mine", "base_model": "org/first", "depth": 30, "fingerprint": "ab"}
PLAN = {"step": "plan", "method": "search", "depth": 24, "of": 30, "width": "weighted"}
RECOVERY: dict[str, Any] = {
    "step": "recovery",
    "text": ["self", "/home/me/secret place/books.txt", "hub:org/set"],
    "train": "all",
    "loss": "kl",
}
RECOVERY |= {"tokens": 30_000, "before": {"kind": GAP, "other": GAP}, "after": {"kind": {"ratio": 1.334}, "other": {"ratio": None}}}


def test_every_step_is_a_sentence_that_says_what_it_was() -> None:
    source, plan, recovery = sentences_of([SOURCE, PLAN, RECOVERY, {"step": "not known here"}])
    assert source == "The original model is org/first, with 30 layers."
    assert plan == "It was pruned to 24 of 30 layers (search, weighted)."
    assert "30,000 tokens of self, books.txt, hub:org/set, trained parameters all, loss kl" in recovery
    assert recovery.endswith("2.67 before and 1.33 after, on other text 2.67 before and not a number after.")
    assert "secret" not in recovery
    assert sentences_of([PLAN], speaker("ko")) == ("레이어 30개에서 24개로 프루닝했습니다(search, weighted).",)


def test_what_came_before_the_last_plan_is_told_apart() -> None:
    assert before([SOURCE, PLAN]) == before([SOURCE, PLAN, RECOVERY]) == ()
    assert before([SOURCE, PLAN, RECOVERY, PLAN]) == [SOURCE, PLAN, RECOVERY]
    assert learned([SOURCE, PLAN, RECOVERY])
    assert not learned([SOURCE, PLAN])


@pytest.mark.parametrize(
    "kept", [None, 3, [3], [{}], [{"step": 1}], [{"step": "recovery"}], [{**RECOVERY, "text": 3}], [{**RECOVERY, "after": 1}]]
)
def test_a_folder_that_tells_nonsense_is_a_first_source(kept: Any, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "odd", "llama")
    (folder / "layerscope.json").write_text(json.dumps({"lineage": kept}))
    model = drain(open_model(parse_source(str(folder))))
    assert [step["step"] for step in lineage_of(model.source, folder, model.spec, "ab")] == ["source"]
    assert base_model(model.source, folder) is None


def test_a_plan_of_a_model_that_was_made_names_its_first_source_and_all_steps(tiny: Callable[..., Model], tmp_path: Path) -> None:
    first = write(tiny("llama"), plan_of_kept(6, {0, 1, 2, 3, 5}, "by hand"), tmp_path / "five")
    record = json.loads((first / "layerscope.json").read_text())
    record["lineage"] = [{**record["lineage"][0], "base_model": "org/first"}, record["lineage"][1], RECOVERY]
    (first / "layerscope.json").write_text(json.dumps(record))
    again = write(drain(open_model(parse_source(str(first)))), plan_of_kept(5, {0, 1, 2, 4}, "by hand"), tmp_path / "four")
    steps = json.loads((again / "layerscope.json").read_text())["lineage"]
    assert [(step["step"], step.get("depth")) for step in steps] == [("source", 6), ("plan", 5), ("recovery", None), ("plan", 4)]
    card = (again / "README.md").read_text()
    assert ModelCard.load(again / "README.md").data.base_model == "org/first"
    assert "This is five, made from [org/first](https://huggingface.co/org/first), with 4 of its 5 layers left" in card
    assert "2. It was pruned to 5 of 6 layers (by hand)." in card
    assert "**Nothing was retrained after the last pruning.**" in card
    merge = yaml.safe_load((again / "mergekit.yml").read_text())  # the layers left are those of the model made, and not of its first source
    assert {source["model"] for part in merge["slices"] for source in part["sources"]} == {"five"}
