"""A transcription of how mergekit reads the file: the slices' layers, one after another."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from engine.export.mergekit import mergekit_config
from engine.methods.depth.baselines import plan_of_kept
from engine.models.library import DEMO_BASE_MODEL
from engine.plans.rules import fold_spans, untouched
from engine.types import Model, ModelSource, Plan
from tests.exporting import export_unverified, write


def layers_of(text: str) -> list[int]:
    """Return the source layers that a passthrough merge stacks up."""
    config = yaml.safe_load(text)
    assert config["merge_method"] == "passthrough"
    (ranges,) = zip(*[[source["layer_range"] for source in part["sources"]] for part in config["slices"]], strict=True)
    return [layer for first, end in ranges for layer in range(first, end)]


@pytest.mark.parametrize("kept", [[0], [5], [0, 1, 2, 3, 4, 5], [0, 2, 4], [0, 1, 4, 5], [1, 2, 3]])
def test_the_layers_kept_are_those_of_the_plan(kept: list[int]) -> None:
    text = mergekit_config(plan_of_kept(6, set(kept), "by hand"), "org/name", "bfloat16")
    assert text is not None
    assert layers_of(text) == kept
    assert yaml.safe_load(text)["dtype"] == "bfloat16"
    assert {source["model"] for part in yaml.safe_load(text)["slices"] for source in part["sources"]} == {"org/name"}


@pytest.mark.parametrize(("rule", "drops"), [("keep-first", True), ("keep-last", True), ("reference", False), ("mean", False)])
def test_only_a_plan_that_drops_has_one(rule: str, drops: bool) -> None:
    assert (mergekit_config(fold_spans(6, [(2, 4)], rule), "m", "float32") is not None) == drops


@pytest.mark.parametrize("plan", [plan_of_kept(6, {0, 1, 4, 5}, "by hand"), untouched(6)])
def test_it_lies_beside_the_card_which_names_it(plan: Plan, tiny: Callable[..., Model], tmp_path: Path) -> None:
    llama = tiny("llama")
    target = write(llama, plan, tmp_path / "out", dtype="bfloat16")
    assert layers_of((target / "mergekit.yml").read_text()) == list(plan.kept)
    assert yaml.safe_load((target / "mergekit.yml").read_text())["slices"][0]["sources"][0]["model"] == llama.spec.name
    assert "mergekit-yaml mergekit.yml" in ModelCard.load(target / "README.md").text
    folded = write(llama, fold_spans(6, [(2, 4)], "reference"), tmp_path / "folded")
    assert not (folded / "mergekit.yml").exists()
    assert "mergekit" not in (folded / "README.md").read_text()


def test_it_names_the_model_that_mergekit_can_fetch(tiny: Callable[..., Model], tmp_path: Path) -> None:
    folder = tiny("llama").folder
    for source, name in ((ModelSource("hub", "org/name", "v1"), "org/name@v1"), (ModelSource("demo", "x.gguf"), DEMO_BASE_MODEL)):
        target = export_unverified(source, folder, plan_of_kept(6, {0, 5}, "by hand"), tmp_path / source.kind)
        assert yaml.safe_load((target / "mergekit.yml").read_text())["slices"][0]["sources"][0]["model"] == name
