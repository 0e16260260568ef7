"""Checkpoints readable by older transformers: the keys of version 4, which this version reads to the same model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.export.checkpoint.compatibility import legacy_config, legacy_tokenizer_config, oldest_transformers
from tests.families import FAMILIES, tiny_network, tiny_tokenizer

HALVES = [1.0, 1.5, 2.0, 3.0]  # of a head of 8 channels
LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": HALVES, "original_max_position_embeddings": 64}
THETA = {"rope_theta": 5e5}
SHAPE = {"max_position_embeddings": 128, "dtype": "bfloat16"}

FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing rotary": ({"model_type": "gpt2"}, {}),
    "no scaling": ({"model_type": "llama", "rope_parameters": {"rope_type": "default", **THETA}}, THETA),
    "linear": ({"model_type": "llama", "rope_parameters": {**LINEAR, **THETA}}, {**THETA, "rope_scaling": LINEAR}),
    "yarn": ({"model_type": "qwen3", "rope_parameters": {**YARN, **THETA}}, {**THETA, "rope_scaling": YARN}),
    "yarn without a shorter context": (
        {"model_type": "qwen2", "rope_parameters": {**YARN, **THETA, "original_max_position_embeddings": 128}},
        {**THETA, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
    ),
    "llama3": ({"model_type": "llama", "rope_parameters": {**LLAMA3, **THETA}}, {**THETA, "rope_scaling": LLAMA3}),
    "longrope": (
        {"model_type": "llama", "rope_parameters": {**LONG, **THETA}},
        {**THETA, "rope_scaling": LONG, "original_max_position_embeddings": 64},
    ),
    "phi3": (
        {
            "model_type": "phi3",
            "original_max_position_embeddings": 64,
            "rope_parameters": {**LONG, **THETA, "partial_rotary_factor": 1.0},
        },
        {
            **THETA,
            "partial_rotary_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": HALVES},
        },
    ),
    "gemma3": (
        {
            "model_type": "gemma3_text",
            "sliding_window_pattern": 6,  # of the source, before layers were left out
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {**LINEAR, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": LINEAR, "sliding_window_pattern": 2},
    ),
    "qwen2, cut before the layers that slide": (
        {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 3, "layer_types": ["full_attention", "sliding_attention"]},
        {"max_window_layers": 1},
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_keys_of_version_4_stand_beside_those_of_version_5(name: str) -> None:
    values, added = FORMS[name]
    assert legacy_config({**SHAPE, **values}) == {**SHAPE, **values, "torch_dtype": "bfloat16", **added}
    assert legacy_config(legacy_config({**SHAPE, **values})) == legacy_config({**SHAPE, **values})


def test_a_number_that_cannot_say_which_layers_slide_is_left_out() -> None:
    values = {"model_type": "gemma3_text", "layer_types": ["sliding_attention", "full_attention", "full_attention"]}
    assert legacy_config({**values, "sliding_window_pattern": 6}) == values


FEW_LAYERS: dict[str, dict[str, Any]] = {family: {"num_hidden_layers": 2} for family in FAMILIES} | {
    "gpt2": {"n_layer": 2},
    "qwen2": {"num_hidden_layers": 2, "max_window_layers": 1},
    "gemma3_text": {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
}


def test_gemma3_alone_has_two_thetas() -> None:
    assert "rope_local_base_freq" not in legacy_config({"model_type": "llama", "rope_parameters": {"rope_type": "default", **THETA}})


def scaled(family: str) -> list[dict[str, Any]]:
    """The settings of a family that are tried: in Gemma 3 those of full attention, of heads of 16."""
    if family == "gpt2":
        return [{}]
    width = FAMILIES[family].get("head_dim", 8) // 2
    long = {**LONG, "short_factor": [1.0] * width, "long_factor": [2.0] * width}
    kinds: list[dict[str, Any]] = [{"rope_type": "default"}, long]
    if family != "phi3":
        kinds += [LINEAR, {**LINEAR, "rope_type": "dynamic"}, YARN, {**YARN, "original_max_position_embeddings": 128}, LLAMA3]
    if family == "gemma3_text":
        return [{"rope_parameters": {"full_attention": {**kind, **THETA}, "sliding_attention": {"rope_type": "default"}}} for kind in kinds]
    return [
        {"rope_parameters": {**kind, **THETA}, **({"original_max_position_embeddings": 64} if family == "phi3" else {})} for kind in kinds
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_this_version_reads_both_forms_to_the_same_model(family: str) -> None:
    ids = torch.arange(2, 102)[None]
    for changes in scaled(family):
        network = tiny_network(family, **{**FEW_LAYERS[family], **changes})
        values = json.loads(network.config.to_json_string())
        before, after = (type(network.config).from_dict(json.loads(json.dumps(form))) for form in (values, legacy_config(values)))
        if family != "gpt2":
            assert {**after.rope_parameters, "type": None} == {**before.rope_parameters, "type": None}  # Phi-3 says its type twice
        assert after.dtype == before.dtype
        assert getattr(after, "layer_types", None) == getattr(before, "layer_types", None)
        logits = []
        for config in (before, after):
            told = AutoModelForCausalLM.from_config(config).eval()
            told.load_state_dict(network.state_dict())
            with torch.no_grad():
                logits.append(told(ids).logits)
        assert torch.equal(*logits)


def test_a_tokenizer_of_version_5_is_told_in_words_of_version_4() -> None:
    values = {"backend": "tokenizers", "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "extra_special_tokens": ["<a>"]}
    assert legacy_tokenizer_config({**values, "model_specific_special_tokens": {"image_token": "<i>"}}) == {
        "backend": "tokenizers",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "additional_special_tokens": ["<a>"],
        "extra_special_tokens": {"image_token": "<i>"},
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
    }


def test_a_tokenizer_of_version_4_is_left_as_it_is() -> None:
    values = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "additional_special_tokens": ["<a>"]}
    assert legacy_tokenizer_config(values) == values


def test_a_tokenizer_reads_texts_as_before(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|a|>", "<|b|>"]})
    tokenizer.save_pretrained(tmp_path)
    before = AutoTokenizer.from_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(legacy_tokenizer_config(json.loads(file.read_text()))))
    after = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("A text.", "<|a|>two  lines\n<|b|></s>"):
        ids = before(text).input_ids
        assert after(text).input_ids == ids
        assert after.decode(ids) == before.decode(ids)
        assert after.decode(ids, skip_special_tokens=True) == before.decode(ids, skip_special_tokens=True)
    assert after.all_special_ids == before.all_special_ids
    assert after.extra_special_tokens == before.extra_special_tokens == ["<|a|>", "<|b|>"]
    assert after.padding_side == before.padding_side


ROPE = {"rope_type": "default", **THETA}
TWO = {"full_attention": ROPE, "sliding_attention": ROPE}
SLIDES = ["sliding_attention", "full_attention", "full_attention"]
OLDEST: list[tuple[str, dict[str, Any]]] = [
    ("4.48.3", {"model_type": "gpt2"}),
    ("4.48.3", {"model_type": "llama", "rope_parameters": {**LLAMA3, **THETA}, "head_dim": 12, "attention_bias": True, "mlp_bias": True}),
    ("4.48.3", {"model_type": "mistral", "rope_parameters": {**YARN, **THETA}, "sliding_window": 6}),
    ("4.48.3", {"model_type": "qwen2", "rope_parameters": ROPE, "use_sliding_window": False, "layer_types": ["full_attention"] * 3}),
    ("4.53.3", {"model_type": "qwen2", "rope_parameters": ROPE, "use_sliding_window": True, "layer_types": SLIDES}),
    ("4.48.3", {"model_type": "phi3", "rope_parameters": {**LONG, **THETA, "partial_rotary_factor": 1.0}}),
    ("4.49.0", {"model_type": "phi3", "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}}),
    ("4.51.3", {"model_type": "llama", "rope_parameters": {**LONG, **THETA}}),
    ("4.51.3", {"model_type": "qwen3", "rope_parameters": ROPE}),
    ("4.51.3", {"model_type": "llama", "rope_parameters": {**YARN, **THETA, "mscale": 1.5}}),
    ("4.55.4", {"model_type": "llama", "rope_parameters": {**YARN, **THETA, "truncate": False}}),
    ("4.56.2", {"model_type": "llama", "rope_parameters": {**YARN, **THETA, "factor": 5.0}}),
    ("4.48.3", {"model_type": "llama", "rope_parameters": {**YARN, **THETA, "factor": 5.0, "original_max_position_embeddings": 128}}),
    ("4.50.3", {"model_type": "gemma3_text", "rope_parameters": TWO, "layer_types": SLIDES[:2]}),
    ("4.53.3", {"model_type": "gemma3_text", "rope_parameters": TWO, "layer_types": SLIDES}),
    ("4.57.1", {"model_type": "gemma3_text", "rope_parameters": TWO, "use_bidirectional_attention": True}),
    ("5.0.0", {"model_type": "gemma3_text", "rope_parameters": {**TWO, "sliding_attention": {**LINEAR, **THETA}}}),
    ("5.23.0", {"model_type": "gemma3_text", "rope_parameters": {**TWO, "full_attention": {**YARN, **THETA}}}),
    ("5.0.0", {"model_type": "llama", "rope_parameters": {**LONG, **THETA, "factor": 5.0}}),  # version 4 would take 128 / 64
    ("4.51.3", {"model_type": "llama", "rope_parameters": {**LONG, **THETA, "factor": 2.0}}),
    ("5.0.0", {"model_type": "phi3", "rope_parameters": {**LONG, **THETA, "attention_factor": 1.2}}),
]


@pytest.mark.parametrize(("version", "values"), OLDEST)
def test_the_oldest_version_is_the_one_that_was_measured(version: str, values: dict[str, Any]) -> None:
    assert oldest_transformers({**SHAPE, **values}) == version
    assert oldest_transformers(legacy_config({**SHAPE, **values})) == version
