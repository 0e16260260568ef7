"""Every setting of a config is read as it stands, without effect, noted, or refused in one line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import LayerscopeError
from engine.models.inspection import inspect_folder
from engine.models.sources import parse_source
from tests.families import save_tiny
from tests.models.test_accounting import LLAMA3, drop_config, inspected, opened, refusal, rewrite, set_config

LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
SHORT = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("llama", {"transformers_weights": "other.safetensors"}, "names other files"),
        ("llama", {"configuration_files": ["config.4.0.0.json"]}, "names other files"),
        ("llama", {"is_causal": False}, "is_causal = false"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention = true"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
        ("llama", {"attention_chunk_size": 8}, "attention_chunk_size = 8"),
        ("llama", {"sliding_window": 6}, "sliding_window = 6"),
        ("llama", {"layer_types": ["sliding_attention"] * 6}, "layer_types"),
        ("mistral", {"use_sliding_window": False}, "use_sliding_window = false"),
        ("mistral", {"layer_types": ["full_attention"] * 6}, "layer_types"),
        ("qwen2", {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 6}, "use_sliding_window = false"),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 3, "layer_types": ["full_attention"] * 6}, "use_sliding_window = true"),
        ("qwen2", {"sliding_window": None, "layer_types": ["full_attention"] * 6}, "sliding_window = null"),
        ("gemma3_text", {"sliding_window": None}, "sliding_window = null"),
        ("gemma3_text", {"sliding_window_pattern": 2}, "sliding_window_pattern = 2"),
    ],
)
def test_what_the_stock_class_does_not_compute_is_refused(family: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in refusal(set_config(save_tiny(tmp_path / "m", family), **changes))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gemma3_text", {"rope_parameters": LINEAR}),
        ("llama", {"rope_parameters": {"full_attention": LINEAR}}),
        ("llama", {"rope_parameters": {**LINEAR, "alpha": 1000, "extra": {}}}),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0, "rope_theta": 5e5}, "rope_theta": 1e4}),
        ("llama", {"rope_scaling": LLAMA3, "original_max_position_embeddings": 16}),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 4}, "rope_parameters": {"type": "yarn", "factor": 4, "attention_factor": 2}}),
        ("phi3", {"rope_scaling": {**SHORT, "original_max_position_embeddings": 64}, "original_max_position_embeddings": 16}),
    ],
)
def test_rotary_settings_that_are_not_those_computed_are_refused(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    folder = set_config(drop_config(save_tiny(tmp_path / "m", family), "rope_parameters"), **changes)
    assert "rope" in refusal(folder) or "original_max" in refusal(folder)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"rope_theta": 0}),
        ("llama", {"rope_theta": "1e4"}),
        ("llama", {"rope_theta": None}),
        ("llama", {"rms_norm_eps": -1.0}),
        ("llama", {"rms_norm_eps": None}),
        ("llama", {"hidden_act": "swiglu"}),
        ("llama", {"dtype": {"": "float32"}}),
        ("llama", {"dtype": "bogus"}),
        ("phi3", {"rope_scaling": {"type": "su", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}}),
        ("llama", {"hidden_size": "32"}),
        ("llama", {"num_hidden_layers": 6.0}),
        ("llama", {"tie_word_embeddings": "true"}),
        ("llama", {"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 32}}),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": 0}}),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 4.0, "truncate": "false"}}),
        ("llama", {"rope_scaling": {**SHORT, "short_factor": [0.0] * 4}}),
        ("llama", {"rope_scaling": {**SHORT, "long_factor": [2.0] * 3}}),
        ("llama", {"rope_scaling": {**SHORT, "long_factor": 2.0}}),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}}),
        ("mistral", {"sliding_window": 0}),
        ("mistral", {"sliding_window": True}),
        ("phi3", {"partial_rotary_factor": 2.0}),
        ("phi3", {"original_max_position_embeddings": 0}),
        ("qwen3", {"layer_types": ["linear_attention"] * 6}),
        ("qwen3", {"layer_types": 3}),
        ("gemma3_text", {"query_pre_attn_scalar": -4}),
    ],
)
def test_a_value_out_of_its_range_is_refused_in_plain_words(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    words = refusal(set_config(drop_config(save_tiny(tmp_path / "m", family), "rope_parameters"), **changes))
    assert next(iter(changes)).partition("_")[0] in words or "partial_rotary_factor" in words
    assert not any(word in words for word in ("Error", "validator", "unsupported operand"))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"use_qk_norm": True}),
        ("llama", {"use_alibi": True}),
        ("llama", {"residual_multiplier": 0}),
        ("llama", {"use_rope": False}),
        ("llama", {"output_multiplier_scale": 0.25}),
        ("llama", {"top_scale": 3.0}),
        ("llama", {"_embedding_scale": 12.0}),
        ("llama", {"is_encoder_decoder": True}),
        ("mistral", {"max_window_layers": 3}),
        ("gpt2", {"attention_bias": True}),
        ("gpt2", {"rope_theta": 5000}),
        ("gpt2", {"n_ctx": 64}),
        ("gemma3_text", {"hidden_act": "silu"}),
    ],
)
def test_a_setting_that_the_class_has_no_field_for_is_noted(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    (note,) = inspected(set_config(save_tiny(tmp_path / "m", family), **changes)).notes
    assert f"ignores: {next(iter(changes))} = " in note


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {"n_ctx": 128, "use_bfloat16": False, "output_past": True, "pruned_heads": {}, "is_decoder": False}),
        ("llama", {"max_sequence_length": 2048, "is_llama_config": True, "use_mrope": False, "quantization_config": {}}),
        ("llama", {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 21, "pad_token_id": -1}),
        ("llama", {"temperature": 0.6, "top_p": 0.9, "rope_theta": 10000}),
        ("gemma3_text", {"cache_implementation": "hybrid", "hidden_act": "gelu_pytorch_tanh", "_sliding_window_pattern": 6}),
        ("phi3", {"attention_bias": False, "rope_scaling": SHORT, "original_max_position_embeddings": 64}),
    ],
)
def test_what_real_configs_hold_needs_no_note(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    dropped = ("rope_parameters",) if "rope_scaling" in changes else ()
    model = opened(set_config(drop_config(save_tiny(tmp_path / "m", family), *dropped), **changes))
    assert model.spec.notes == ()
    assert torch.isfinite(model.network(torch.ones(1, 4, dtype=torch.long)).logits).all()


def test_a_gemma_of_one_type_of_layer_is_read(tmp_path: Path) -> None:
    for kind in ("full_attention", "sliding_attention"):
        folder = save_tiny(tmp_path / kind, "gemma3_text", layer_types=[kind] * 6)
        assert inspected(folder).notes == ()
        assert inspected(set_config(folder, rope_theta=1e6, rope_local_base_freq=1e4)).notes == ()


def test_what_is_not_read_does_not_reach_the_config(tmp_path: Path) -> None:
    folder = set_config(save_tiny(tmp_path / "m", "llama"), kv_sharing_modes=["x"], fusion_config={"a": 1})
    config, spec = inspect_folder(folder, parse_source(str(folder)))
    assert not hasattr(config, "kv_sharing_modes")
    assert not hasattr(config, "fusion_config")
    assert "kv_sharing_modes" in spec.notes[0]


def test_float64_opens_as_float32(tmp_path: Path) -> None:
    assert inspected(set_config(save_tiny(tmp_path / "m", "llama"), dtype="float64")).dtype == "float32"


# --- Names of tensors ---


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("llama", {"layers.0.mlp.up_proj.weight": "model.layers.0.mlp.up_proj.weight"}),
        ("llama", {"norm.weight": "model.norm.weight"}),
        ("llama", {"model.model.norm.weight": "model.norm.weight"}),
        ("llama", {"model.lm_head.weight": "model.embed_tokens.weight"}),
        ("llama", {"base_model.model.model.norm.weight": "model.norm.weight"}),
        ("gpt2", {"h.0.ln_1.weight": "transformer.h.0.ln_1.weight"}),
    ],
)
def test_two_names_of_one_parameter_are_refused(family: str, names: dict[str, str], tmp_path: Path) -> None:
    def doubled(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**tensors, **{new: tensors[old] + 1 for new, old in names.items()}}

    assert next(iter(names)) in refusal(rewrite(save_tiny(tmp_path / "m", family), doubled))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model."])
def test_a_prefix_of_a_wrapper_is_named(prefix: str, tmp_path: Path) -> None:
    folder = rewrite(save_tiny(tmp_path / "m", "llama"), lambda tensors: {prefix + name: value for name, value in tensors.items()})
    assert f"has the prefix {prefix}, which" in refusal(folder)


def test_names_without_the_base_prefix_are_read(tmp_path: Path) -> None:
    def bare(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name.removeprefix("model."): value for name, value in tensors.items()}

    folder = rewrite(save_tiny(tmp_path / "m", "llama"), bare)
    assert inspected(folder).left_out == ()
    rewrite(folder, lambda tensors: {**tensors, "embed_layernorm.weight": torch.ones(32)})
    assert "embed_layernorm.weight" in refusal(folder)


# --- Values of tensors ---


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    name = "model.layers.2.mlp.up_proj.weight"
    folder = rewrite(save_tiny(tmp_path / "m", "llama"), lambda tensors: {**tensors, name: tensors[name] * float("nan")})
    with pytest.raises(LayerscopeError, match=name):
        opened(folder)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32])
def test_masks_of_any_type_are_left_out_without_a_note(kind: torch.dtype, tmp_path: Path) -> None:
    masks = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 128, 128).tril().to(kind),
        "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
    }
    spec = opened(rewrite(save_tiny(tmp_path / "m", "gpt2"), lambda tensors: {**tensors, **masks})).spec
    assert (spec.left_out, spec.notes) == (tuple(masks), ())


def test_a_mask_that_is_not_causal_is_refused(tmp_path: Path) -> None:
    mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 128, 128)}
    folder = rewrite(save_tiny(tmp_path / "m", "gpt2"), lambda tensors: {**tensors, **mask})
    with pytest.raises(LayerscopeError, match="not causal"):
        opened(folder)


def test_a_head_equal_to_the_embedding_stays_tied(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", "llama")
    rewrite(folder, lambda tensors: {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    model = opened(folder)
    assert model.config.tie_word_embeddings is True
    assert (model.spec.left_out, model.spec.notes) == (("lm_head.weight",), ())
    assert model.spec.parameters == sum(parameter.numel() for parameter in model.network.parameters())
    assert model.network.lm_head.weight is model.network.model.embed_tokens.weight


def test_a_tied_head_without_its_embedding_is_refused(tmp_path: Path) -> None:
    def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"lm_head.weight" if "embed" in name else name: value for name, value in tensors.items()}

    assert "only lm_head.weight; rename it to model.embed_tokens.weight" in refusal(rewrite(save_tiny(tmp_path / "m", "llama"), renamed))


def test_an_adapters_weights_without_its_config_are_noted(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", "llama")
    save_file({"a": torch.ones(2)}, folder / "adapter_model.safetensors")
    assert inspected(folder).notes == ("weight files that are ignored: adapter_model.safetensors",)
