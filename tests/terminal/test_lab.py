"""The terminal's width and weight commands: what they write, alone and after the older commands, and what they refuse."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from engine.plans import tensor_store
from engine.plans.files import plan_from_json
from tests.answers import Answer, assert_refused
from tests.terminal.given import DEPTH

Inside = Callable[..., Answer]


@pytest.fixture
def lab(on_practice: tuple[object, ...], inside: Inside, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A function that runs a verb on the tiny model and its text, writes into a file of a name, and returns what it wrote."""

    def run(verb: str, name: str, *arguments: object) -> dict[str, Any]:
        answer = inside(verb, *on_practice, "--tokens", 700, "--out", tmp_path / name, *arguments)
        assert (answer.code, answer.out) == (0, ""), answer.err
        return json.loads((tmp_path / name).read_text(encoding="utf-8"))

    return run


@pytest.mark.parametrize(("axis", "units"), [("heads", 4), ("neurons", 48), ("channels", 32), ("weights", 7)])
def test_importance_has_a_row_a_layer(axis: str, units: int, lab: Callable[..., dict[str, Any]]) -> None:
    found = lab("importance", "found.json", "--axis", axis)
    assert (found["axis"], found["score"]) == (axis, "wanda" if axis == "weights" else "weighted")
    assert [len(row) for row in found["layers"]] == [units] * DEPTH
    assert all(value >= 0 for row in found["layers"] for value in row)
    assert 0 < found["tokens"] < 1000
    assert found.get("projections", [])[:1] == (["self_attn.q_proj"] if axis == "weights" else [])


@pytest.mark.usefixtures("in_this_process")
def test_plans_go_from_verb_to_verb(lab: Callable[..., dict[str, Any]], inside: Inside, on_practice: Any, tmp_path: Path) -> None:
    """Depth, then width, then masks in one plan; judged, exported, loaded."""
    plan = tmp_path / "plan.json"
    assert inside("baseline", "--method", "bi", "--keep", 4, *on_practice, "--out", plan).code == 0
    width = lab("trim", "width.json", "--plan", plan, "--heads", 2, "--neurons", 36, "--score", "minitron", "--batch", "mean")
    assert [len(layer["heads"]) for layer in width["width"]["layers"]] == [2] * 4
    assert (width["width"]["method"], width["width"]["settings"]["batch"]) == ("minitron", "mean")
    assert (tmp_path / "width.tensors.safetensors").exists()

    masked = lab("prune", "masked.json", "--plan", tmp_path / "width.json", "--method", "wanda", "--pattern", "2:4")
    assert masked["width"] == width["width"]
    assert masked["blocks"] == json.loads(plan.read_text())["blocks"]
    assert set(load_file(tmp_path / "masked.tensors.safetensors")) == set(plan_from_json(masked).tensors)

    judged = inside("evaluate", *on_practice, "--plan", tmp_path / "masked.json", "--tokens", 400).json
    assert judged["perplexity"]["ratio"] != 1.0
    exported = inside("export", "--plan", tmp_path / "masked.json", "--model", on_practice[1], "--out", tmp_path / "smaller")
    assert exported.code == 0, exported.err
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "smaller", local_files_only=True)
    assert (network.config.num_hidden_layers, network.config.num_attention_heads, network.config.intermediate_size) == (4, 2, 36)
    assert float((network.model.layers[0].mlp.up_proj.weight == 0).double().mean()) == 0.5
    card = (tmp_path / "smaller" / "README.md").read_text(encoding="utf-8")
    assert "Every layer keeps 2 query heads (minitron)." in card
    assert "pattern = 2:4" in card
    assert "neither size nor speed changes" in card

    again = lab("trim", "again.json", "--plan", tmp_path / "masked.json", "--neurons", 24, "--no-refit")
    assert "masks" not in again  # they were of the wider plan
    assert [len(layer["heads"]) for layer in again["width"]["layers"]] == [2] * 4


def test_a_plan_goes_to_another_machine_with_its_tensors(
    lab: Callable[..., dict[str, Any]], inside: Inside, on_practice: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab("prune", "masked.json", "--sparsity", 0.5, "--method", "sparsegpt")
    judged = ("evaluate", *on_practice, "--plan", tmp_path / "masked.json", "--tokens", 300)

    def on_machine(name: str) -> Answer:
        monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / name))
        monkeypatch.setattr(tensor_store, "_fresh", type(tensor_store._fresh)())
        return inside(*judged)

    there = on_machine("elsewhere")
    assert there.code == 0, there.err
    (tmp_path / "masked.tensors.safetensors").unlink()
    assert_refused(on_machine("a third"), "of this plan is not on this machine", ".tensors.safetensors")


@pytest.mark.parametrize("method", ["magnitude", "wanda", "gblm", "gblm-local", "sparsegpt"])
def test_every_method_makes_half_of_the_weights_zero(method: str, lab: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found = lab("prune", "masked.json", "--method", method, "--sparsity", 0.5)
    assert found["masks"]["method"] == method
    tensors = load_file(tmp_path / "masked.tensors.safetensors")
    assert len(found["masks"]["layers"]) == DEPTH
    for layer in found["masks"]["layers"]:
        assert len(layer) == 7
        for mark in layer.values():
            bits = tensors[mark]
            left = (bits != 0).double().mean() if bits.dtype == torch.float32 else sum(int(b).bit_count() for b in bits) / bits.numel() / 8
            assert float(left) == pytest.approx(0.5, abs=0.01)


def test_shapes_are_ranked_and_the_best_is_a_plan(
    lab: Callable[..., dict[str, Any]], inside: Inside, on_practice: Any, tmp_path: Path
) -> None:
    found = lab("shapes", "shapes.json", "--params", "45K", "--measured", 3)
    measured = [one for one in found["shapes"] if one["cost"]]
    assert len(measured) == 3 < len(found["shapes"])
    assert [one["cost"]["ratio"] for one in measured] == sorted(one["cost"]["ratio"] for one in measured)
    assert found["front"][0] == found["fast_front"][0] == 0
    assert [one["speed"]["rounds"] for one in measured] == [5] * 3
    assert all(one["speed"] is None for one in found["shapes"][3:])
    estimate, size = found["rankings"]
    assert found["shapes"][estimate["first"]]["by_estimate"] == found["shapes"][size["first"]]["by_size"] == 0
    assert (estimate["name"], size["name"], -1 <= size["correlation"] <= 1) == ("estimate", "size", True)
    assert all(42_750 <= one["parameters"] <= 45_000 for one in found["shapes"])
    assert inside("evaluate", "--plan", tmp_path / "shapes.json", *on_practice, "--tokens", 300).code == 0


def test_shapes_are_a_table_too(inside: Inside, on_practice: Any) -> None:
    asked = ("--tokens", 700, "--params", "45K", "--measured", 2, "--no-refit", "--no-speed")
    answer = inside("shapes", *on_practice, *asked, "--format", "csv")
    head, *rows = answer.out.splitlines()
    assert head == "layers,heads,neurons,channels,parameters,by_estimate,by_size,ratio,ratio_low,ratio_high,kl"
    assert len(rows) == 2


def test_a_trim_meets_a_number_of_parameters(lab: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    plan = lab("trim", "narrow.json", "--params", "45K", "--heads", 2, "--no-refit")
    assert len(plan["width"]["layers"][0]["heads"]) == 2
    assert 20 < len(plan["width"]["layers"][0]["neurons"]) < 48


@pytest.mark.usefixtures("in_this_process")
def test_a_trim_with_biases_and_redistributed_heads_loads_as_a_stock_checkpoint(
    lab: Callable[..., dict[str, Any]], inside: Inside, on_practice: Any, tmp_path: Path
) -> None:
    plan = lab("trim", "flap.json", "--heads", 2, "--neurons", 36, "--score", "flap", "--bias", "--redistribute")
    told = plan["width"]["settings"]
    assert (told["refit"], told["bias"], told["redistributed"]) == (False, True, True)
    assert set(plan["width"]["layers"][0]["refits"]) == {"self_attn.q_proj.weight", "self_attn.o_proj.bias", "mlp.down_proj.bias"}
    exported = inside("export", "--plan", tmp_path / "flap.json", "--model", on_practice[1], "--out", tmp_path / "smaller")
    assert exported.code == 0, exported.err
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "smaller", local_files_only=True).config
    assert (config.attention_bias, config.mlp_bias, config.num_attention_heads) == (True, True, 2)


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("prune", ("--sparsity", 1), ("at least 0 and below 1",)),
        ("prune", ("--sparsity", -0.5), ("at least 0 and below 1",)),
        ("prune", (), ("either a sparsity",)),
        ("prune", ("--sparsity", 0.5, "--pattern", "2:4"), ("either a sparsity",)),
        ("prune", ("--pattern", "4:2"), ("not a valid pattern",)),
        ("prune", ("--pattern", "3:7"), ("does not divide", "32")),
        ("prune", ("--sparsity", 0.5, "--method", "loudness"), ("unknown mask method", "wanda")),
        ("prune", ("--sparsity", 0.5, "--group", "row"), ("unknown group", "output")),
        ("prune", ("--sparsity", 0.5, "--plan", "missing.json"), ("missing.json", "does not exist")),
        ("trim", (), ("nothing to prune",)),
        ("trim", ("--heads", 3), ("KV group",)),
        ("trim", ("--heads", 9), ("9 of 4 heads cannot be kept",)),
        ("trim", ("--channels", 30), ("does not support", "attention heads")),
        ("trim", ("--neurons", 24, "--score", "loudness"), ("unknown score", "minitron")),
        ("trim", ("--heads", 2, "--score", "maw"), ("the score maw does not apply to heads",)),
        ("trim", ("--params", "lots"), ("'lots' is not a number of parameters",)),
        ("trim", ("--params", "1K"), ("cannot be reached by pruning neurons",)),
        ("trim", ("--params", "45K", "--neurons", 24), ("not both",)),
        ("trim", ("--channels", 28, "--bias"), ("a bias compensates for pruned heads or neurons",)),
        ("shapes", ("--params", "1B"), ("no smaller shape",)),
        ("importance", ("--axis", "layers"), ("unknown axis", "neurons")),
        ("importance", ("--axis", "heads", "--score", "wanda"), ("unknown score",)),
        ("importance", ("--axis", "weights", "--score", "obs"), ("the score obs does not apply to weights", "wanda")),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(
    verb: str, arguments: tuple[object, ...], words: tuple[str, ...], on_practice: Any, inside: Inside
) -> None:
    assert_refused(inside(verb, *on_practice, "--tokens", 700, *arguments), *words)


def test_text_shorter_than_a_sequence_is_refused(tiny_folder: Path, files: Path, inside: Inside) -> None:
    for verb in (("prune", "--sparsity", 0.5), ("trim", "--neurons", 24), ("importance", "--axis", "heads")):
        assert_refused(inside(*verb, "--model", tiny_folder, "--text", files / "few.txt"), "fewer than one sequence")
