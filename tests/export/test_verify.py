"""The checks of an export, shown to fail where they should."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.export.checkpoint import verify
from engine.export.checkpoint.verify import check
from engine.jobs import drain
from engine.models import devices
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.plans.files import plan_to_json
from engine.plans.rules import fold_spans
from engine.types import Model
from tests.exporting import write
from tests.families import tiny_network, tiny_tokenizer

PLAN = fold_spans(6, [(1, 3)], "mean")
EVERY = {"loads", "keys", "depth", "logits", "generation"}


def failed(model: Model, target: Path) -> set[str]:
    """Return the names of the checks that fail, after seeing that each was made (or that it does not even load)."""
    request = {"source": str(model.folder), "plan": plan_to_json(PLAN), "target": str(target)}
    checks = drain(check(request))["checks"]
    assert all(entry.get("ran", True) for entry in checks)
    names = {entry["name"] for entry in checks}
    failing = {entry["name"] for entry in checks if not entry["passed"]}
    missing = any(entry["name"] == "keys" and not entry["detail"].startswith("0 missing") for entry in checks)
    assert names == ({"loads"} if "loads" in failing else {"loads", "keys", "depth"} if missing else EVERY)
    return failing


def edit_tensors(target: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(target / "model.safetensors")
    edit(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def edit_config(target: Path, **changes: Any) -> None:
    config = json.loads((target / "config.json").read_text())
    assert changes.keys() <= config.keys()
    (target / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.fixture
def target(tiny: Callable[..., Model], tmp_path: Path) -> Path:
    return write(tiny("llama"), PLAN, tmp_path / "out")


def test_a_sound_checkpoint_passes(tiny: Callable[..., Model], target: Path) -> None:
    assert failed(tiny("llama"), target) == set()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_sound_checkpoint_in_half_precision_passes(dtype: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    assert failed(tiny("llama"), write(tiny("llama"), PLAN, tmp_path / "out", dtype=dtype)) == set()


def test_the_smallest_change_of_one_weight_shows_in_the_logits(tiny: Callable[..., Model], target: Path) -> None:
    edit_tensors(target, lambda tensors: tensors["model.layers.2.mlp.up_proj.weight"][0].mul_(1.001))
    assert failed(tiny("llama"), target) == {"logits"}


def test_two_layers_in_the_wrong_order_show_in_the_logits(tiny: Callable[..., Model], target: Path) -> None:
    def swap(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".layers.2." in name]:
            other = name.replace(".2.", ".3.")
            tensors[name], tensors[other] = tensors[other], tensors[name]

    edit_tensors(target, swap)
    assert failed(tiny("llama"), target) == {"logits"}


def test_a_tensor_too_few_or_too_many_shows_in_the_keys(tiny: Callable[..., Model], target: Path) -> None:
    edit_tensors(target, lambda tensors: tensors.update({"model.layers.9.mlp.up_proj.weight": torch.zeros(2, 2)}))
    assert failed(tiny("llama"), target) == {"keys"}
    edit_tensors(target, lambda tensors: [tensors.pop(f"model.layers.{layer}.mlp.up_proj.weight") for layer in (3, 9)])
    assert failed(tiny("llama"), target) == {"keys"}


def test_a_wrong_depth_shows(tiny: Callable[..., Model], target: Path) -> None:
    edit_config(target, num_hidden_layers=3)
    assert failed(tiny("llama"), target) >= {"keys", "depth", "logits"}


def test_layer_types_cut_off_instead_of_taken_along_show_in_the_logits(tiny: Callable[..., Model], tmp_path: Path) -> None:
    target = write(tiny("gemma3_text"), PLAN, tmp_path / "out")
    assert failed(tiny("gemma3_text"), target) == set()
    edit_config(target, layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"])
    assert failed(tiny("gemma3_text"), target) == {"logits"}


def test_states_that_overflow_in_the_exported_dtype_are_a_finding(tmp_path: Path) -> None:
    network = tiny_network("llama")
    with torch.no_grad():
        for name in ("gate_proj", "up_proj", "down_proj"):
            network.model.layers[4].mlp.get_submodule(name).weight.fill_(1e3)  # float32 bears it, float16 does not
    network.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    model = drain(open_model(parse_source(str(tmp_path / "model"))))
    assert failed(model, write(model, PLAN, tmp_path / "whole")) == set()
    assert "logits" in failed(model, write(model, PLAN, tmp_path / "half", dtype="float16"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_broken_file_shows_in_the_loading(name: str, tiny: Callable[..., Model], target: Path) -> None:
    (target / name).write_bytes((target / name).read_bytes()[:50])
    assert failed(tiny("llama"), target) == {"loads"}


def test_a_tokenizer_that_only_breaks_at_work_shows_in_the_loading(tiny: Callable[..., Model], target: Path) -> None:
    path = target / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": "x"}))
    assert failed(tiny("llama"), target) == {"loads"}


def test_what_keeps_a_checkpoint_from_running_is_a_finding(tiny: Callable[..., Model], target: Path) -> None:
    edit_config(target, vocab_size=299)
    assert failed(tiny("llama"), target) == {"logits", "generation"}


def test_a_generation_config_does_not_drive_the_check(tiny: Callable[..., Model], target: Path) -> None:
    request = {"source": str(tiny("llama").folder), "plan": plan_to_json(PLAN), "target": str(target)}
    plain = drain(check(request))
    settings = {"num_beams": 100_000, "no_repeat_ngram_size": 1, "suppress_tokens": list(range(2, 200)), "max_time": 0.0}
    (target / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, **settings}))
    assert drain(check(request)) == plain


def test_a_source_that_is_larger_than_memory_is_checked_a_module_at_a_time(
    tiny: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "IN_MEMORY", 0)
    for family, changes in (("llama", {}), ("gemma3_text", {"layer_types": ["full_attention"] * 6}), ("gpt2", {})):
        for dtype in ("auto", "bfloat16"):
            target = write(tiny(family, **changes), PLAN, tmp_path / f"{family}-{dtype}", dtype=dtype)
            assert failed(tiny(family, **changes), target) == set()
    edit_tensors(target, lambda tensors: tensors["transformer.h.2.mlp.c_fc.weight"][0].mul_(1.1))
    assert failed(tiny("gpt2"), target) == {"logits"}


def test_where_there_is_no_room_to_check_that_is_told(tiny: Callable[..., Model], target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "free_bytes", lambda device: 700_000_000)
    request = {"source": str(tiny("llama").folder), "plan": plan_to_json(PLAN), "target": str(target)}
    (told,) = drain(check(request))["checks"]
    assert (told["name"], told["passed"], told["ran"]) == ("loads", False, False)
    assert told["detail"] == "not run: 0.9 GB are needed and 0.7 GB are free"
