"""An adapter's folder opens merged into its model on request, and explains where that is impossible."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.errors import LayerscopeError, SourceError
from engine.jobs import drain
from engine.models.loading import open_model
from engine.models.sources import base_of_adapter, merged_folder, parse_source
from engine.types import Model
from tests.families import save_tiny


def adapter_for(base: Path, folder: Path, wanted: Any = None) -> Path:
    """Write an adapter with random numbers in every tensor that is trained."""
    torch.manual_seed(0)
    wanted = wanted or LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    network = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), wanted)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn_like(parameter) * 0.2
            parameter.data = parameter.data + noise.abs() if "magnitude" in name else noise.to(parameter.dtype)
    network.save_pretrained(folder)
    return folder


def opened(adapter: Path) -> Model:
    return drain(open_model(parse_source(f"merged:{adapter}")))


def refused(adapter: Path) -> str:
    with pytest.raises(SourceError) as told:
        opened(adapter)
    assert "\n" not in str(told.value)
    return str(told.value)


def rewrite(adapter: Path, **settings: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_an_adapter_opens_merged_into_its_model(tmp_path: Path, in_this_process: None) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    adapter = adapter_for(base, tmp_path / "adapter")
    model = opened(adapter)
    ids = torch.arange(2, 60)[None]
    with torch.no_grad():
        expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()(ids).logits
        assert torch.allclose(model.network(ids).logits, expected, atol=1e-5)
        assert not torch.allclose(AutoModelForCausalLM.from_pretrained(base)(ids).logits, expected, atol=1e-2)
    assert str(model.source) == f"merged:{adapter}"
    assert model.tokenizer("ab")["input_ids"]


def test_an_adapter_of_another_model_is_refused(tmp_path: Path, in_this_process: None) -> None:
    adapter = adapter_for(save_tiny(tmp_path / "base", "llama"), tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    stray = {"base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(2, 32)}
    save_file({**tensors, **stray}, adapter / "adapter_model.safetensors")
    with pytest.raises(SourceError, match="does not fit its base model: 1 tensors differ"):
        drain(open_model(parse_source(f"merged:{adapter}")))


def test_an_adapter_whose_model_is_not_here_says_so(tmp_path: Path) -> None:
    adapter = adapter_for(save_tiny(tmp_path / "base", "llama"), tmp_path / "adapter")
    for named in ("somebody/model", "/nowhere/model", ""):
        rewrite(adapter, base_model_name_or_path=named)
        with pytest.raises(SourceError, match="which is not on this machine"):
            drain(open_model(parse_source(f"merged:{adapter}")))


def test_a_model_is_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(LayerscopeError, match="nothing to merge"):
        parse_source(f"merged:{save_tiny(tmp_path / 'base', 'llama')}")


QV = ["q_proj", "v_proj"]
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # family, its changes, the adapter
    "rank-stabilised, patterns": (
        "llama", {}, {"target_modules": QV, "use_rslora": True, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 5}},
    ),
    "DoRA": ("llama", {}, {"target_modules": QV, "use_dora": True}),
    "biases": ("qwen2", {}, {"target_modules": QV, "bias": "all"}),
    "transposed": ("gpt2", {}, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "some layers": ("llama", {}, {"target_modules": QV, "layers_to_transform": [1, 3]}),
    "by expression": ("llama", {}, {"target_modules": r".*layers\.[02]\..*(up|down)_proj"}),
    "orthogonal": ("llama", {}, {"target_modules": QV, "init_lora_weights": "orthogonal"}),
    "norms saved": ("llama", {}, {"target_modules": QV, "modules_to_save": ["norm"]}),
    "a head of its own": ("llama", {"tie_word_embeddings": False}, {"target_modules": ["lm_head", "embed_tokens", "q_proj"]}),
    "the head, tied": ("llama", {}, {"target_modules": ["lm_head", "q_proj"]}),
    "the embedding, tied": ("llama", {}, {"target_modules": ["embed_tokens", "q_proj"]}),
    "both, tied": ("llama", {}, {"target_modules": ["embed_tokens", "lm_head"]}),
    "a saved embedding, tied": ("llama", {}, {"target_modules": QV, "modules_to_save": ["embed_tokens"]}),
    "both saved, tied": ("llama", {}, {"target_modules": QV, "modules_to_save": ["embed_tokens", "lm_head"]}),
    "gemma's head": ("gemma3_text", {}, {"target_modules": ["lm_head", "q_proj"]}),
    "gpt2's embedding": ("gpt2", {}, {"target_modules": ["wte", "c_attn"]}),
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_a_merged_model_computes_what_peft_computes_beside_it(case: str, tmp_path: Path, in_this_process: None) -> None:
    family, changes, settings = KINDS[case]
    base = save_tiny(tmp_path / "base", family, **changes)
    adapter = adapter_for(base, tmp_path / "adapter", LoraConfig(r=2, **settings))
    ids = torch.arange(2, 60)[None]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(base)(ids).logits
        wanted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()(ids).logits
        assert float((opened(adapter).network(ids).logits - wanted).abs().max() / wanted.abs().max()) < 1e-5
        assert float((plain - wanted).abs().max() / wanted.abs().max()) > 1e-3


def test_each_weight_is_rounded_once(tmp_path: Path, in_this_process: None) -> None:
    """An adapter in float32 over a model in bfloat16: its own rounding would come before the sum's."""
    base = save_tiny(tmp_path / "base", "llama")
    AutoModelForCausalLM.from_pretrained(base).to(torch.bfloat16).save_pretrained(base)
    adapter = adapter_for(base, tmp_path / "adapter")
    below, above = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in above.values()} == {torch.float32}
    found = load_file(opened(adapter).folder / "model.safetensors")
    for name, weight in below.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in above:
            change = above[f"{stem}.lora_B.weight"].double() @ above[f"{stem}.lora_A.weight"].double()
            weight = (weight.double() + 4 * change).to(torch.bfloat16)  # lora_alpha / r
        assert torch.equal(found[name], weight)


@pytest.mark.parametrize("kind", ["pissa", "pissa_niter_4", "olora", "corda", "lora_ga", "loftq", "mica"])
def test_an_adapter_that_began_by_changing_its_model_is_refused(kind: str, tmp_path: Path, in_this_process: None) -> None:
    adapter = adapter_for(save_tiny(tmp_path / "base", "llama"), tmp_path / "adapter")
    rewrite(adapter, init_lora_weights=kind)
    assert f"init_lora_weights = {kind} cannot be merged here" in refused(adapter)


OTHERS = {
    "LOHA": LoHaConfig(r=2, target_modules=QV),
    "IA3": IA3Config(target_modules=QV, feedforward_modules=[]),
    "PROMPT_TUNING": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_an_adapter_of_another_type_is_refused(kind: str, tmp_path: Path, in_this_process: None) -> None:
    adapter = adapter_for(save_tiny(tmp_path / "base", "llama"), tmp_path / "adapter", OTHERS[kind])
    assert f"adapters of type {kind} cannot be merged here" in refused(adapter)


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "replicated layers": ({"layer_replication": [[0, 3], [2, 6]]}, r"layer_replication = [[0, 3], [2, 6]] cannot be merged here"),
    "biases of its own": ({"lora_bias": True}, "lora_bias = True cannot be merged here"),
    "activated": ({"alora_invocation_tokens": [3, 4]}, "alora_invocation_tokens = [3, 4] cannot be merged here"),
    "tokens": ({"trainable_token_indices": [3]}, "trainable_token_indices = [3] cannot be merged here"),
    "parameters": ({"target_parameters": ["mlp"]}, "target_parameters = ['mlp'] cannot be merged here"),
    "tying": ({"ensure_weight_tying": True}, "ensure_weight_tying = True cannot be merged here"),
    "a setting of tomorrow": ({"some_new_switch": 1}, "some_new_switch = 1 cannot be merged here: this setting is not supported"),
    "another task": ({"task_type": "SEQ_CLS"}, "task_type = SEQ_CLS cannot be merged here: only causal"),
    "a rank beyond the file": ({"r": 10**9}, "the rank 1000000000 (r) is out of range"),
    "another rank": ({"r": 3}, "does not fit its base model"),
    "a rank of none": ({"r": 0}, "the rank 0 (r) is out of range"),
    "a word for a rank": ({"r": "2"}, "r = 2 cannot be merged here: the value does not have the type"),
    "a pattern of words": ({"rank_pattern": {"q_proj": "x"}}, "rank_pattern"),
    "biases that are not there": ({"target_modules": ["c_attn"]}, "cannot be read"),
    "fewer modules": ({"target_modules": ["q_proj"]}, "does not fit its base model: 12 tensors differ"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting_that_is_not_merged_is_refused_by_its_name(case: str, tmp_path: Path, in_this_process: None) -> None:
    settings, words = SETTINGS[case]
    adapter = adapter_for(save_tiny(tmp_path / "base", "llama"), tmp_path / "adapter")
    rewrite(adapter, **settings)
    with pytest.raises(SourceError) as told:
        opened(adapter)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_a_tensor_that_is_missing_or_broken_is_named(tmp_path: Path, in_this_process: None) -> None:
    base = save_tiny(tmp_path / "base", "qwen2")
    adapter = adapter_for(base, tmp_path / "adapter", LoraConfig(r=2, target_modules=QV, bias="all"))
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    assert any(name.endswith(".bias") for name in tensors)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    for changed, words in (
        ({key: tensor for key, tensor in tensors.items() if not key.endswith(".bias")}, "18 tensors differ, such as"),
        ({**tensors, name: tensors[name] * float("nan")}, f"{name} contains numbers that are not finite"),
        ({**tensors, name: tensors[name].to(torch.int8)}, f"{name} in"),
        ({key: tensor for key, tensor in tensors.items() if key != name}, f"1 tensors differ, such as {name}"),
    ):
        save_file(changed, file)
        assert words in refused(adapter)


def test_a_copy_of_the_embedding_must_be_its_models(tmp_path: Path, in_this_process: None) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    adapter = adapter_for(base, tmp_path / "adapter", LoraConfig(r=2, target_modules=["embed_tokens"]))
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    (name,) = [name for name in tensors if name.endswith("base_layer.weight")]
    save_file({**tensors, name: tensors[name] * 2}, file)
    assert f"has its own {name}, which differs from the base model's" in refused(adapter)


def test_a_pickle_is_not_opened(tmp_path: Path, in_this_process: None) -> None:
    adapter = adapter_for(save_tiny(tmp_path / "base", "llama"), tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(SourceError, match=r"does not contain adapter_model\.safetensors"):
        opened(adapter)


def test_the_revision_of_a_hub_model_is_the_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def found(name: str, **how: Any) -> str:
        asked.append((name, how["revision"]))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", found)
    adapter = adapter_for(save_tiny(tmp_path / "base", "llama"), tmp_path / "adapter")
    for revision in ("v1", None):
        rewrite(adapter, base_model_name_or_path="a/b", revision=revision)
        assert base_of_adapter(adapter) == tmp_path
    assert asked == [("a/b", "v1"), ("a/b", None)]


def test_another_tokenizer_or_version_is_another_merged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    adapter = adapter_for(base, tmp_path / "adapter")
    found = {merged_folder(adapter, base)}
    for folder in (base, adapter):
        (folder / "chat_template.jinja").write_text(f"{{{{ '{folder.name}' }}}}")
        found.add(merged_folder(adapter, base))
    monkeypatch.setattr("engine.models.sources.MERGING", -1)
    assert len({*found, merged_folder(adapter, base)}) == 4


def test_an_adapters_chat_template_replaces_its_models(tmp_path: Path, in_this_process: None) -> None:
    adapter = adapter_for(save_tiny(tmp_path / "base", "llama"), tmp_path / "adapter")
    (adapter / "chat_template.jinja").write_text("{{ 'mine' }}")
    assert opened(adapter).tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "mine"


def test_what_is_left_out_of_the_model_below_is_still_said(tmp_path: Path, in_this_process: None) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    adapter = adapter_for(base, tmp_path / "adapter")
    file = base / "model.safetensors"
    save_file({**load_file(file), "mtp.weight": torch.ones(2)}, file, metadata={"format": "pt"})
    spec = opened(adapter).spec
    assert "mtp.weight" in spec.left_out
    assert any("mtp.weight" in note for note in spec.notes)
