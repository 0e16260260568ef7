"""A checkpoint's description agrees with its files: dtype, tied head, sizes, what was left out, which programs can read it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.export.checkpoint.export import export
from engine.jobs import drain
from engine.models.inspection import inspect_folder
from engine.models.sources import parse_source
from engine.plans.rules import fold_spans
from engine.types import Plan
from tests.families import save_tiny

PLAN = fold_spans(6, [(2, 4)], "reference")
MEAN = fold_spans(6, [(2, 4)], "mean")


def changed(folder: Path, change: Any = lambda tensors: tensors, **settings: Any) -> Path:
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**json.loads((folder / "config.json").read_text()), **settings}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value != "drop"}))
    return folder


def exported(folder: Path, plan: Plan = PLAN, dtype: str = "auto") -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the config, record and card of a checked export, which lies beside the folder."""
    target = folder.parent / "out"
    report = drain(export(parse_source(str(folder)), folder, plan, target, dtype))
    assert report.passed, report.checks
    texts = [(target / name).read_text(encoding="utf-8") for name in ("config.json", "layerscope.json", "README.md")]
    return json.loads(texts[0]), json.loads(texts[1]), texts[2]


@pytest.fixture(autouse=True)
def _quick(in_this_process: None) -> None:
    pass


def test_a_mixed_sources_dtype_is_the_configs(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", "llama")
    changed(folder, lambda tensors: {name: t if "embed" in name else t.bfloat16() for name, t in tensors.items()}, dtype="bfloat16")
    config, record, card = exported(folder)
    assert (config["dtype"], record["dtype"]) == ("bfloat16", "bfloat16")
    held = load_file(tmp_path / "out" / "model.safetensors")
    assert held["model.embed_tokens.weight"].dtype == torch.float32
    assert record["bytes"] == sum(tensor.nbytes for tensor in held.values())
    assert record["parameters"] == sum(tensor.numel() for tensor in held.values())
    assert f"({record['parameters']:,} of " in card
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_dtype_that_was_asked_for_is_the_configs(dtype: str, tmp_path: Path) -> None:
    assert exported(save_tiny(tmp_path / "m", "llama"), dtype=dtype)[0]["dtype"] == dtype


@pytest.mark.parametrize("plan", [PLAN, MEAN], ids=["reference", "mean"])
def test_a_head_of_its_own_is_not_called_tied(plan: Plan, tmp_path: Path) -> None:
    folder = changed(save_tiny(tmp_path / "m", "qwen2", tie_word_embeddings=False), tie_word_embeddings=True)
    config, record, _ = exported(folder, plan)
    held = load_file(tmp_path / "out" / "model.safetensors")
    assert config["tie_word_embeddings"] is ("lm_head.weight" not in held) is False
    assert record["parameters"] == sum(tensor.numel() for tensor in held.values())


def test_a_tied_head_is_called_tied(tmp_path: Path) -> None:
    config, _, _ = exported(save_tiny(tmp_path / "m", "llama"))
    assert config["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")


def test_what_is_left_out_stands_in_the_card(tmp_path: Path) -> None:
    folder = changed(save_tiny(tmp_path / "m", "qwen3"), lambda tensors: {**tensors, "mtp.fc.weight": torch.zeros(4, 4)})
    _, record, card = exported(folder, MEAN)
    assert record["left_out"] == ["mtp.fc.weight"]
    assert "Omitted, because `qwen3` models do not use them: mtp.fc.weight." in card
    assert "mtp.fc.weight" not in load_file(tmp_path / "out" / "model.safetensors")


def test_an_adapter_beside_the_source_does_not_come_along(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder = save_tiny(tmp_path / "m", "llama")
    adapter = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), adapter).save_pretrained(folder)
    exported(folder, MEAN)
    assert not list((tmp_path / "out").glob("adapter*"))


@pytest.mark.parametrize("form", ["rope_parameters", "rope_scaling"])
def test_rotary_settings_stand_in_both_forms_whichever_the_source_has(form: str, tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    settings = {form: scaling, "rope_theta": 5e5} if form == "rope_scaling" else {form: {**scaling, "rope_theta": 5e5}}
    folder = changed(save_tiny(tmp_path / "m", "llama"), **{"rope_parameters": "drop", **settings})
    config, _, card = exported(folder)
    assert config["rope_parameters"] == {**scaling, "rope_theta": 5e5}
    assert (config["rope_theta"], config["rope_scaling"]) == (5e5, scaling)
    again, _ = inspect_folder(tmp_path / "out", parse_source(str(tmp_path / "out")))
    assert again.rope_parameters == {**scaling, "rope_theta": 5e5}
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "loads with plain `transformers` 4." in card


def test_an_export_of_an_export_is_described_the_same(tmp_path: Path) -> None:
    first, _, _ = exported(save_tiny(tmp_path / "a" / "m", "gemma3_text"))
    folder = (tmp_path / "a" / "out").rename(tmp_path / "b")
    second, _, _ = exported(folder, fold_spans(4, [(0, 1)], "reference"))
    depth = {"num_hidden_layers", "layer_types", "sliding_window_pattern"}
    assert {key: value for key, value in first.items() if key not in depth} == {key: v for key, v in second.items() if key not in depth}
