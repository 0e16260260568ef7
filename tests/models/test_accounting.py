"""Every file and key of a model is used, or named in a refusal or a note; see the cases of public bug reports."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.errors import LayerscopeError
from engine.jobs import drain
from engine.models.inspection import inspect_folder
from engine.models.library import library
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.types import Model, ModelSpec
from tests.families import FAMILIES, save_tiny

Tensors = dict[str, torch.Tensor]
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def set_config(folder: Path, **values: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return folder


def drop_config(folder: Path, *names: str) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key not in names}))
    return folder


def inspected(folder: Path) -> ModelSpec:
    return inspect_folder(folder, parse_source(str(folder)))[1]


def opened(folder: Path) -> Model:
    return drain(open_model(parse_source(str(folder))))


def refusal(folder: Path) -> str:
    """What opening says, before any weight is read."""
    with pytest.raises(LayerscopeError) as caught:
        inspected(folder)
    return str(caught.value)


# --- Tensors ---


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_model_has_nothing_to_note(family: str, tmp_path: Path) -> None:
    spec = inspected(save_tiny(tmp_path / "m", family))
    assert (spec.notes, spec.left_out) == ((), ())
    held = load_file(tmp_path / "m" / "model.safetensors").values()
    assert spec.parameters == sum(tensor.numel() for tensor in held)


def test_biases_that_the_config_denies_are_named_with_its_switches(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", "llama", attention_bias=True, mlp_bias=True)
    words = refusal(set_config(folder, attention_bias=False, mlp_bias=False))
    assert "42 tensors that LlamaForCausalLM does not use" in words
    assert "model.layers.*.self_attn.q_proj.bias (6)" in words
    assert "attention_bias is false" in words
    assert "mlp_bias is false" in words


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("mistral", "model.layers.0.self_attn.q_proj.bias"),
        ("llama", "model.layers.3.self_attn.q_norm.weight"),
        ("llama", "model.layers.2.mlp.experts.0.up_proj.weight"),
        ("llama", "model.norm.bias"),
        ("llama", "model.embed_layernorm.weight"),
        ("qwen2", "lm_head.bias"),
        ("llama", "final_logits_bias"),
        ("gpt2", "transformer.h.0.attn.c_attn.scale"),
        ("phi3", "model.layers.0.mlp.gate_up_proj.lora_A.weight"),
    ],
)
def test_a_tensor_of_the_network_that_is_not_read_is_refused_by_name(family: str, name: str, tmp_path: Path) -> None:
    folder = rewrite(save_tiny(tmp_path / "m", family), lambda tensors: {**tensors, name: torch.ones(32)})
    assert name in refusal(folder)


@pytest.mark.parametrize("name", ["mtp.fc.weight", "score.weight", "v_head.summary.weight", "visual.blocks.0.attn.qkv.weight"])
def test_a_module_beside_the_network_is_noted_and_left_out(name: str, tmp_path: Path) -> None:
    folder = rewrite(save_tiny(tmp_path / "m", "qwen3"), lambda tensors: {**tensors, name: torch.ones(32)})
    model = opened(folder)
    assert model.spec.left_out == (name,)
    assert "exports omit" in model.spec.notes[0]
    assert name.partition(".")[0] in model.spec.notes[0]
    assert model.spec.parameters == sum(parameter.numel() for parameter in model.network.parameters())


def test_masks_that_old_gpt2_checkpoints_hold_are_left_out(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", "gpt2")
    mask = torch.ones(1, 1, 128, 128).tril()
    spec = inspected(rewrite(folder, lambda tensors: {**tensors, "transformer.h.0.attn.bias": mask}))
    assert spec.left_out == ("transformer.h.0.attn.bias",)


@pytest.mark.parametrize(("scale", "opens"), [(1.0, True), (0.25, False)])
def test_stored_rotary_frequencies_are_those_of_the_config(scale: float, opens: bool, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", "llama")
    frequencies = AutoModelForCausalLM.from_pretrained(folder).model.rotary_emb.inv_freq * scale
    rewrite(folder, lambda tensors: {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": frequencies})
    if opens:
        assert opened(folder).spec.left_out == ("model.layers.0.self_attn.rotary_emb.inv_freq",)
    else:
        with pytest.raises(LayerscopeError, match="contradict the configuration; correct its rope settings"):
            opened(folder)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_that_are_no_floats_are_refused_by_name(kind: torch.dtype, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    words = refusal(rewrite(save_tiny(tmp_path / "m", "llama"), lambda tensors: {**tensors, name: tensors[name].to(kind)}))
    assert name in words
    assert "which is not supported" in words


def test_a_tensor_that_two_files_hold_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", "llama")
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names}, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    save_file({names[0]: tensors[names[0]] + 1}, folder / "model-00002-of-00002.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = dict.fromkeys(names[1:], "model-00001-of-00002.safetensors") | {names[0]: "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert f"the tensor {names[0]} is in both" in refusal(folder)


# --- Depth and width ---


@pytest.mark.parametrize("says", [5, 8])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_another_depth_than_the_tensors_is_refused_with_both_numbers(says: int, family: str, tmp_path: Path) -> None:
    key = "n_layer" if family == "gpt2" else "num_hidden_layers"
    assert f"{key} = {says}, but the weights contain 6 layers" in refusal(set_config(save_tiny(tmp_path / "m", family), **{key: says}))


@pytest.mark.parametrize(
    ("family", "changes", "numbers"),
    [
        ("llama", {"intermediate_size": 40}, ("48", "40")),
        ("llama", {"hidden_size": 28}, ("32", "28")),
        ("qwen3", {"head_dim": 8}, ("(16,)", "(8,)")),
        ("llama", {"num_key_value_heads": 4}, ("(16, 32)", "(32, 32)")),
        ("phi3", {"num_key_value_heads": 4}, ("(64, 32)", "(96, 32)")),
        ("gpt2", {"n_positions": 64}, ("128", "64")),
        ("llama", {"vocab_size": 280}, ("300", "280")),
    ],
)
def test_another_width_than_the_tensors_is_refused_with_both_shapes(
    family: str, changes: dict[str, Any], numbers: tuple[str, str], tmp_path: Path
) -> None:
    words = refusal(set_config(save_tiny(tmp_path / "m", family), **changes))
    assert "contradict the configuration" in words
    assert all(number in words for number in numbers)


def test_a_layer_of_another_width_is_named(tmp_path: Path) -> None:
    def narrower(tensors: Tensors) -> Tensors:
        stem = "model.layers.2.mlp."
        cut = {f"{stem}{name}.weight": tensors[f"{stem}{name}.weight"][:40].clone() for name in ("gate_proj", "up_proj")}
        return {**tensors, **cut, f"{stem}down_proj.weight": tensors[f"{stem}down_proj.weight"][:, :40].clone()}

    words = refusal(rewrite(save_tiny(tmp_path / "m", "llama"), narrower))
    assert "the layers differ in width (layers 2: " in words
    assert "(32, 40)" in words
    assert "(32, 48)" in words


def test_a_list_of_another_length_than_the_depth_is_named(tmp_path: Path) -> None:
    folder = set_config(save_tiny(tmp_path / "m", "gemma3_text"), num_hidden_layers=5)
    assert "num_hidden_layers = 5, but layer_types lists 6 layers" in refusal(folder)


# --- Head and dtype ---


def test_a_head_of_its_own_counts_whatever_the_config_says(tmp_path: Path) -> None:
    folder = set_config(save_tiny(tmp_path / "m", "llama", tie_word_embeddings=False), tie_word_embeddings=True)
    model = opened(folder)
    held = load_file(folder / "model.safetensors")
    assert model.spec.parameters == sum(tensor.numel() for tensor in held.values())
    assert model.config.tie_word_embeddings is False
    assert torch.equal(model.network.lm_head.weight, held["lm_head.weight"])


def test_a_head_that_the_config_wants_and_the_files_lack_is_missing(tmp_path: Path) -> None:
    folder = set_config(save_tiny(tmp_path / "m", "llama"), tie_word_embeddings=False)
    assert "missing or of the wrong shape: 1," in refusal(folder)
    assert "lm_head.weight" in refusal(folder)


def test_without_a_dtype_in_the_config_it_is_that_of_most_numbers(tmp_path: Path) -> None:
    folder = drop_config(save_tiny(tmp_path / "m", "llama"), "dtype", "torch_dtype")
    rewrite(folder, lambda tensors: {name: value if "embed" in name else value.bfloat16() for name, value in tensors.items()})
    assert inspected(folder).dtype == "bfloat16"


# --- Settings ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_scaling": {"type": "ntk", "factor": 4.0}}, "rotary scaling of unknown type 'ntk'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0, "attention_factor": 2.0}}, "attention_factor = 2.0"),
        ({"rope_scaling": {"factor": 8.0}}, "factor = 8.0, which rotary scaling of type default does not use"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "alpha": 1000}}, "alpha = 1000"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0}}, "has no low_freq_factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "8"}}, "expected a number above 0"),
        ({"rope_scaling": {"rope_type": "linear", "type": "dynamic", "factor": 8}}, "both rope_type = linear and type = dynamic"),
        ({"rope_theta": 1e6, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "rope_theta = 1000000.0"),
        ({"rope_scaling": LLAMA3, "rope_parameters": {**LLAMA3, "factor": 32.0, "rope_theta": 1e4}}, "rope_parameters.factor = 32.0"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
        ({"rope_scaling": "linear"}, "expected an object"),
    ],
)
def test_a_rotary_setting_that_is_not_read_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = drop_config(save_tiny(tmp_path / "m", "llama"), "rope_parameters")
    assert words in refusal(set_config(folder, **changes))


@pytest.mark.parametrize(
    "rope",
    [
        {"type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 128},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16, "finetuned": True},
        LLAMA3,
    ],
)
def test_a_rotary_setting_of_either_form_is_read(rope: dict[str, Any], tmp_path: Path) -> None:
    folder = set_config(drop_config(save_tiny(tmp_path / "m", "llama"), "rope_parameters"), rope_scaling=rope, rope_theta=5e5)
    config, _ = inspect_folder(folder, parse_source(str(folder)))
    assert config.rope_parameters["rope_theta"] == 5e5
    assert config.rope_parameters["rope_type"] == (rope.get("rope_type") or rope["type"])
    assert config.rope_parameters["factor"] == rope["factor"]


def test_a_setting_of_another_family_is_noted(tmp_path: Path) -> None:
    folder = set_config(save_tiny(tmp_path / "m", "llama"), embedding_multiplier=12.0, rotary_dim=64, logits_scaling=1.0)
    assert inspected(folder).notes == ("settings that LlamaConfig ignores: embedding_multiplier = 12.0, rotary_dim = 64",)


def test_a_config_without_a_family_says_what_to_add(tmp_path: Path) -> None:
    assert "has no model_type; add" in refusal(drop_config(save_tiny(tmp_path / "m", "llama"), "model_type"))


def test_a_multimodal_model_names_its_text_model(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", "gemma3_text")
    inner = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": inner, "vision_config": {}}))
    assert "a multimodal model of type 'gemma3' with a text model of type 'gemma3_text'" in refusal(folder)


# --- Which files are the model ---


def adapter_beside(folder: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    network = AutoModelForCausalLM.from_pretrained(folder)
    get_peft_model(network, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)).save_pretrained(folder)
    return folder


def test_an_adapter_beside_a_model_is_noted_and_never_attached(tmp_path: Path) -> None:
    folder = adapter_beside(save_tiny(tmp_path / "m", "llama"))
    model = opened(folder)
    assert any("this folder also contains an adapter" in note for note in model.spec.notes)
    held = load_file(folder / "model.safetensors")
    assert {name for name, _ in model.network.named_parameters()} == set(held)
    assert all(torch.equal(parameter, held[name]) for name, parameter in model.network.named_parameters())


def test_a_folder_with_an_adapter_alone_is_known_as_one(tmp_path: Path) -> None:
    folder = adapter_beside(save_tiny(tmp_path / "exports" / "lone", "llama"))
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    assert "contains only an adapter for " in refusal(folder)
    (folder / "layerscope.json").write_text("{}")
    listed = next(entry for entry in library(tmp_path / "exports") if entry.name == "lone")
    assert "contains only an adapter for " in listed.reason


def test_shards_without_their_index_are_known(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", "llama")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    assert "neither model.safetensors nor the index model.safetensors.index.json" in refusal(folder)


def test_a_file_of_weights_that_is_not_read_is_noted(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", "llama")
    save_file({"a": torch.ones(2)}, folder / "consolidated.safetensors")
    assert inspected(folder).notes == ("weight files that are ignored: consolidated.safetensors",)
