"""An adapter's folder opens merged into its model on request, and explains where that is impossible."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.errors import LayerscopeError, SourceError
from engine.jobs import drain
from engine.models.loading import open_model
from engine.models.sources import parse_source
from tests.families import save_tiny


def adapter_for(base: Path, folder: Path) -> Path:
    torch.manual_seed(0)
    wanted = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), wanted).save_pretrained(folder)
    return folder


def test_an_adapter_opens_merged_into_its_model(tmp_path: Path, in_this_process: None) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    adapter = adapter_for(base, tmp_path / "adapter")
    model = drain(open_model(parse_source(f"merged:{adapter}")))
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
    with pytest.raises(SourceError, match="does not fit its model: 1 tensors differ"):
        drain(open_model(parse_source(f"merged:{adapter}")))


def test_an_adapter_whose_model_is_not_here_says_so(tmp_path: Path) -> None:
    adapter = adapter_for(save_tiny(tmp_path / "base", "llama"), tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    for named in ("somebody/model", "/nowhere/model", ""):
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": named}))
        with pytest.raises(SourceError, match="which is not on this machine"):
            drain(open_model(parse_source(f"merged:{adapter}")))


def test_a_model_is_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(LayerscopeError, match="nothing to merge"):
        parse_source(f"merged:{save_tiny(tmp_path / 'base', 'llama')}")
