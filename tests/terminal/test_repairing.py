"""Repairing from the terminal: the plan and its maps, here and on another machine."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.plans import tensor_store
from engine.search.search import Search
from tests.answers import Answer, assert_refused, read_json
from tests.families import save_tiny
from tests.terminal.given import DEPTH, homes, plan_of
from ui.terminal import cli


@pytest.fixture(scope="module")
def repaired(tiny_folder: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that the command repaired, its maps beside it; the cache it was made with is thrown away."""
    folder = tmp_path_factory.mktemp("repaired")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERSCOPE_CACHE", str(folder / "cache"))
        arguments = ("repair", "--plan", files / "plan.json", "--model", tiny_folder, "--text", files / "texts.txt")
        patch.setattr(sys, "argv", ["layerscope", *map(str, (*arguments, "--out", folder / "plan.json"))])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
    assert sorted(os.listdir(folder)) == ["cache", "plan.json", "plan.tensors.safetensors"]
    shutil.rmtree(folder / "cache")
    return folder


@pytest.fixture
def another_machine(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing that was repaired is known, on disk or in memory."""
    monkeypatch.setattr(tensor_store, "_fresh", type(tensor_store._fresh)())
    return fresh_cache


def test_repair_writes_the_plan_and_its_maps(repaired: Path) -> None:
    plan = read_json((repaired / "plan.json").read_text(encoding="utf-8"))
    assert homes(plan) == [0, 1, 4]
    assert plan["settings"]["repair"] == "ridge"
    assert plan["repairs"]
    for entry in plan["repairs"]:
        assert set(entry) == {"place", "kind", "strength", "before", "after", "fingerprint"}
        assert entry["place"] in (1, 2)
        assert entry["after"] < entry["before"]
        assert plan["blocks"][entry["place"]]["repair"] == entry["fingerprint"]
    maps = load_file(repaired / "plan.tensors.safetensors")
    assert {mark: tuple(tensor.shape) for mark, tensor in maps.items()} == {entry["fingerprint"]: (32, 32) for entry in plan["repairs"]}


def test_a_scalar_repair_is_one_factor_a_seam(on_practice: tuple[object, ...], files: Path, inside: Callable[..., Answer]) -> None:
    plan = inside("repair", "--plan", files / "plan.json", "--kind", "scalar", *on_practice).json
    assert plan["repairs"]
    assert {entry["kind"] for entry in plan["repairs"]} == {"scalar"}


def test_repair_leaves_a_whole_plan_whole(
    on_practice: tuple[object, ...], files: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    assert inside("repair", "--plan", files / "whole.json", *on_practice, "--out", tmp_path / "same.json").code == 0
    plan = read_json((tmp_path / "same.json").read_text(encoding="utf-8"))
    assert plan["blocks"] == plan_of(DEPTH, *range(DEPTH))["blocks"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["same.json"]


@pytest.mark.usefixtures("another_machine")
def test_a_repaired_plan_is_judged_on_another_machine(
    repaired: Path, on_practice: tuple[object, ...], files: Path, inside: Callable[..., Answer]
) -> None:
    better, bare = (
        inside("evaluate", "--plan", plan, *on_practice, "--tokens", 2000).json for plan in (repaired / "plan.json", files / "plan.json")
    )
    assert 0 < better["kl"] < bare["kl"]


@pytest.mark.usefixtures("in_this_process")
def test_a_repaired_plan_is_exported_on_another_machine(
    repaired: Path, tiny_folder: Path, another_machine: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    report = inside("export", "--plan", repaired / "plan.json", "--model", tiny_folder, "--out", tmp_path / "out").json
    assert report["passed"] is True, report["checks"]
    kept = read_json((tmp_path / "out" / "layerscope.json").read_text(encoding="utf-8"))
    plan = read_json((repaired / "plan.json").read_text(encoding="utf-8"))
    assert {"model": plan["model"], **kept["plan"]} == plan
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    source = AutoModelForCausalLM.from_pretrained(tiny_folder, local_files_only=True)
    assert len(found.model.layers) == 3
    maps = load_file(repaired / "plan.tensors.safetensors")
    for layer, block in zip(found.model.layers, plan["blocks"], strict=True):
        weight = source.model.layers[block["home"]].mlp.down_proj.weight
        expected = (maps[block["repair"]] if "repair" in block else torch.eye(32)) @ weight
        torch.testing.assert_close(layer.mlp.down_proj.weight, expected)
        torch.testing.assert_close(layer.mlp.up_proj.weight, source.model.layers[block["home"]].mlp.up_proj.weight)


def test_a_repaired_plan_without_its_maps_is_refused(
    repaired: Path, on_practice: tuple[object, ...], another_machine: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    shutil.copyfile(repaired / "plan.json", tmp_path / "alone.json")
    assert_refused(inside("evaluate", "--plan", tmp_path / "alone.json", *on_practice), "not on this machine")
    assert_refused(inside("export", "--plan", tmp_path / "alone.json", "--out", tmp_path / "out", *on_practice[:2]), "not on this machine")
    assert not (tmp_path / "out").exists()
    plan = inside("repair", "--plan", tmp_path / "alone.json", *on_practice).json  # which is the way out
    assert plan["repairs"]


@pytest.mark.usefixtures("another_machine")
def test_tampered_maps_are_refused(repaired: Path, on_practice: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path) -> None:
    shutil.copyfile(repaired / "plan.json", tmp_path / "plan.json")
    maps = load_file(repaired / "plan.tensors.safetensors")
    save_file({mark: tensor + 1e-3 for mark, tensor in maps.items()}, tmp_path / "plan.tensors.safetensors")
    assert_refused(inside("evaluate", "--plan", tmp_path / "plan.json", *on_practice), "plan.tensors.safetensors", "another fingerprint")
    (tmp_path / "plan.tensors.safetensors").write_bytes(b"no maps")
    assert_refused(inside("evaluate", "--plan", tmp_path / "plan.json", *on_practice), "plan.tensors.safetensors", "cannot be read")


def test_a_plan_repaired_on_a_model_of_another_width_is_refused(
    repaired: Path, files: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    wide = save_tiny(tmp_path / "wide", "llama", hidden_size=64)
    answer = inside("evaluate", "--plan", repaired / "plan.json", "--model", wide, "--text", files / "texts.txt")
    warned, refused = answer.err.splitlines()
    assert warned.startswith("layerscope: warning: plan.json: this plan was made for tiny-llama (")
    assert_refused(answer._replace(err=refused), "does not fit the model's width")


def test_a_place_for_maps_that_cannot_be_written_is_refused(
    on_practice: tuple[object, ...], files: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "plan.tensors.safetensors").mkdir()
    answer = inside("repair", "--plan", files / "plan.json", *on_practice, "--out", tmp_path / "plan.json")
    assert_refused(answer, "cannot be written")


def test_a_family_that_cannot_be_repaired_is_refused(files: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "gemma", "gemma3_text")
    options = ("--model", folder, "--text", files / "texts.txt")
    assert_refused(inside("repair", "--plan", files / "plan.json", *options), "gemma3_text")


@pytest.mark.parametrize(("family", "text"), [("gemma3_text", "texts.txt"), ("llama", "few.txt")])
def test_a_search_whose_plan_could_not_be_repaired_is_refused_before_it_begins(
    family: str, text: str, files: Path, inside: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, began, run = save_tiny(tmp_path / family, family), [], Search.run
    monkeypatch.setattr(Search, "run", lambda self: began.append(1) or run(self))
    answer = inside("search", "--keep", 3, "--repair", "--seconds", 20, "--model", folder, "--text", files / text)
    assert_refused(answer)
    assert not began
