"""A converted model has the logits of the model that the GGUF file was made from.

Every file is written as llama.cpp's converter writes it, with a case's keys and tensors by hand.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFValueType
from transformers import AutoModelForCausalLM

from engine.jobs import drain
from engine.models.gguf.convert import convert
from tests.families import tiny_network
from tests.ggufs import array, tensors_of, write_gguf

LENGTHS = (200, 2000)
PAIRS = np.arange(1, 5, dtype=np.float32)  # factors of the four pairs of a head of eight
SCALING = "rope.scaling."
HEAD = {"head_dim": 16}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 6, "layer_types": None, "sliding_window": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}


def sharp(family: str, **changes: Any) -> Any:
    """Return a tiny network whose attention is so sharp that positions matter."""
    place = "n_positions" if family == "gpt2" else "max_position_embeddings"
    depth = "n_layer" if family == "gpt2" else "num_hidden_layers"
    network = tiny_network(family, **{place: 4096, depth: 2, **changes})
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("q_proj.weight", "qkv_proj.weight", "c_attn.weight")):
                parameter.mul_(4)
            if name.endswith(".bias"):
                parameter.normal_(std=0.5)
    return network


def logits(network: Any) -> list[torch.Tensor]:
    ids = torch.randint(2, 250, (1, max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return [network(ids[:, :length]).logits for length in LENGTHS]


def reopened(file: Path) -> Any:
    """Convert a file, and open what comes of it with stock transformers."""
    folder = file.parent / "converted" / file.stem
    drain(convert({"gguf": str(file), "target": str(folder)}))
    network, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return network.eval()


def differences(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> list[float]:
    return [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True)]


def rope(kind: str, theta: float = 10000.0, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


def llama3(low: float = 1.0, trained: int = 64) -> tuple[dict[str, Any], np.ndarray]:
    """Return Llama 3.x's parameters at a base of 500000 and the factors of the four pairs, worked out one by one."""
    factors = []
    for pair in range(4):
        length = 2 * math.pi * 500000 ** (pair / 4)
        way = (trained / length - low) / (4 - low)
        factors.append(1.0 if length < trained / 4 else 32.0 if length > trained / low else 1 / ((1 - way) / 32 + way))
    parameters = rope("llama3", 5e5, factor=32.0, low_freq_factor=low, high_freq_factor=4.0, original_max_position_embeddings=trained)
    return parameters, np.array(factors, np.float32)


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {  # family, settings, keys, tensors
    "llama": ("llama", {}, {}, {}),
    "llama, no scaling by name": ("llama", {}, {SCALING + "type": "none", SCALING + "factor": 8.0}, {}),
    "llama, linear": ("llama", rope("linear", factor=4.0), {SCALING + "type": "linear", SCALING + "factor": 4.0}, {}),
    "llama, linear by default": ("llama", rope("linear", factor=4.0), {SCALING + "factor": 4.0}, {}),
    "llama, linear by its old key": ("llama", rope("linear", factor=4.0), {"rope.scale_linear": 4.0}, {}),
    "llama, yarn": (
        "llama", {"rope_parameters": {**YARN, "rope_theta": 1e4}},
        {SCALING + "type": "yarn", SCALING + "factor": 4.0, SCALING + "original_context_length": 1024}, {},
    ),
    "llama, yarn with its own bounds and factor": (
        "llama", rope("yarn", factor=8.0, original_max_position_embeddings=512, beta_fast=16.0, beta_slow=2.0, attention_factor=1.5),
        {SCALING + "type": "yarn", SCALING + "factor": 8.0, SCALING + "original_context_length": 512, SCALING + "yarn_beta_fast": 16.0,
         SCALING + "yarn_beta_slow": 2.0, SCALING + "yarn_attn_factor": 1.5}, {},
    ),
    "phi3, linear": ("phi3", rope("longrope", short_factor=[4.0] * 4, long_factor=[4.0] * 4, attention_factor=1.0),
                     {SCALING + "type": "linear", SCALING + "factor": 4.0}, {}),
    "gemma3, yarn": (
        "gemma3_text", {**GEMMA, "rope_parameters": {"full_attention": {**YARN, "rope_theta": 1e6},
                                                     "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
        {SCALING + "type": "yarn", SCALING + "factor": 4.0, SCALING + "original_context_length": 1024}, {},
    ),
    "llama, yarn with an attention factor": (
        "llama", rope("yarn", factor=4.0, original_max_position_embeddings=1024, attention_factor=0.9 * (0.1 * math.log(4) + 1)),
        {SCALING + "type": "yarn", SCALING + "factor": 4.0, SCALING + "original_context_length": 1024, SCALING + "attn_factor": 0.9}, {},
    ),
    "llama 3": ("llama", llama3()[0], {"rope.freq_base": 5e5}, {"rope_freqs.weight": llama3()[1]}),
    "llama 3 of another slope": ("llama", llama3(2.0)[0], {}, {"rope_freqs.weight": llama3(2.0)[1]}),
    "llama, longrope": (
        "llama", rope("longrope", short_factor=PAIRS.tolist(), long_factor=(4 * PAIRS).tolist(), attention_factor=1.25, factor=4.0,
                      original_max_position_embeddings=1024),
        {SCALING + "type": "longrope", SCALING + "original_context_length": 1024, SCALING + "attn_factor": 1.25},
        {"rope_factors_short.weight": PAIRS, "rope_factors_long.weight": 4 * PAIRS},
    ),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}, {}, {}),
    "llama untied": ("llama", {"tie_word_embeddings": False}, {}, {}),
    "llama of wide heads": ("llama", HEAD, {}, {}),
    "llama, every head with its own key and value": ("llama", {"num_key_value_heads": 4}, {"attention.head_count_kv": None}, {}),
    "llama with the usual scale": ("llama", {}, {"attention.scale": 8**-0.5, "logit_scale": 1.0, "expert_count": 0}, {}),
    "llama with a number for every layer": ("llama", {}, {"attention.head_count_kv": array([2, 2], GGUFValueType.INT32)}, {}),
    "mistral": ("mistral", {"sliding_window": None}, {}, {}),
    "mistral with a window": ("mistral", {"sliding_window": 50}, {"attention.sliding_window": 50}, {}),
    "qwen2": ("qwen2", {"use_sliding_window": False}, {}, {}),
    "qwen2, yarn": (
        "qwen2", {"use_sliding_window": False, "rope_parameters": {**YARN, "rope_theta": 1e6}},
        {SCALING + "type": "yarn", SCALING + "factor": 4.0, SCALING + "original_context_length": 1024}, {},
    ),
    "qwen2 of wide heads": ("qwen2", {"use_sliding_window": False, **HEAD}, {}, {}),
    "qwen3": ("qwen3", {}, {}, {}),
    "qwen3 with biases, yarn": (
        "qwen3", {"attention_bias": True, "rope_parameters": {**YARN, "rope_theta": 1e6}},
        {SCALING + "type": "yarn", SCALING + "factor": 4.0, SCALING + "original_context_length": 1024}, {},
    ),
    "gemma3": ("gemma3_text", GEMMA, {}, {}),
    "gemma3, linear": (
        "gemma3_text", {**GEMMA, "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                                                     "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
        {SCALING + "type": "linear", SCALING + "factor": 8.0}, {},
    ),
    "gemma3, another base, period and cap": (
        "gemma3_text", {**GEMMA, "layer_types": ["sliding_attention", "full_attention"] * 3, "final_logit_softcapping": 2.0,
                        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6},
                                            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}},
        {"rope.freq_base_swa": 500.0, "attention.sliding_window_pattern": 2, "final_logit_softcapping": 2.0}, {},
    ),
    "gemma3 without a window": (
        "gemma3_text", {**GEMMA, "layer_types": ["full_attention"] * 6}, {"attention.sliding_window": 0}, {},
    ),
    "phi3": ("phi3", {}, {}, {}),
    "phi3 with a window": ("phi3", {"sliding_window": 50}, {}, {}),
    "phi3, part of a head turning": ("phi3", rope("default", partial_rotary_factor=0.5), {}, {}),
    "phi3, longrope": (
        "phi3", {"original_max_position_embeddings": 1024, **rope("longrope", short_factor=PAIRS.tolist(), long_factor=(4 * PAIRS).tolist(),
                 attention_factor=1.19)},
        {SCALING + "original_context_length": 1024, SCALING + "attn_factor": 1.19},
        {"rope_factors_short.weight": PAIRS, "rope_factors_long.weight": 4 * PAIRS},
    ),
    "gpt2": ("gpt2", {}, {}, {}),
    "gpt2 of narrow neurons": ("gpt2", {"n_inner": 48}, {"feed_forward_length": 48}, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_logits_are_those_of_the_model_itself(case: str, tmp_path: Path) -> None:
    family, settings, keys, tensors = CASES[case]
    network = sharp(family, **settings)
    arch = {"gemma3_text": "gemma3", "mistral": "llama"}.get(family, family)
    file = write_gguf(tmp_path / "tiny.gguf", network, {f"{arch}.{key}": value for key, value in keys.items()}, tensors)
    wanted = logits(network)
    assert max(differences(logits(reopened(file)), wanted)) <= 1e-5


@pytest.mark.parametrize("case", [case for case, (_, settings, *_) in CASES.items() if "rope_parameters" in settings])
def test_a_scaling_matters_at_those_lengths(case: str) -> None:
    """Else the test above could not fail: without it, the same weights compute something else."""
    family, settings, _, _ = CASES[case]
    theta = settings["rope_parameters"].get("full_attention", settings["rope_parameters"])["rope_theta"]
    plain = {"rope_type": "default", "rope_theta": theta}
    other = {"full_attention": plain, "sliding_attention": {**plain, "rope_theta": 10000.0}} if family == "gemma3_text" else plain
    scaled, unscaled = sharp(family, **settings), sharp(family, **{**settings, "rope_parameters": other, "final_logit_softcapping": None})
    assert max(differences(logits(unscaled), logits(scaled))) > 1e-2


@pytest.mark.parametrize("biases", [("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_down",)])
def test_biases_that_a_file_has_only_some_of_are_read_and_the_others_are_zero(biases: tuple[str, ...], tmp_path: Path) -> None:
    network = sharp("llama", attention_bias=True, mlp_bias=True)
    gone: dict[str, Any] = {name: None for name in tensors_of(network) if name.endswith(".bias") and name.split(".")[2] not in biases}
    file = write_gguf(tmp_path / "some.gguf", network, {}, gone)
    wanted = logits(network)
    names = {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj", "ffn_down": "down_proj"}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".bias") and name.split(".")[-2] not in [names[one] for one in biases]:
                parameter.zero_()
    assert max(differences(logits(network), wanted)) > 1e-2
    assert max(differences(logits(reopened(file)), logits(network))) <= 1e-5


def test_a_scaling_of_two_kinds_at_once_is_what_llama_cpp_makes_of_it(tmp_path: Path) -> None:
    """Yarn upon the factors of rope_freqs: transformers has no name for that; longrope's lists say it all the same."""
    network = sharp("llama")
    keys = {"type": "yarn", "factor": 4.0, "original_context_length": 1024}
    settings = {f"llama.rope.scaling.{key}": value for key, value in keys.items()}
    file = write_gguf(tmp_path / "two.gguf", network, settings, {"rope_freqs.weight": PAIRS})
    found = reopened(file)
    assert found.config.rope_parameters["rope_type"] == "longrope"
    low, high = (8 * math.log(1024 / (turns * 2 * math.pi)) / (2 * math.log(10000)) for turns in (32, 1))
    for pair in range(4):
        share = 1 - min(1, max(0, (pair - math.floor(low)) / (math.ceil(high) - math.floor(low))))
        angle = 10000 ** (-pair / 4) / PAIRS[pair] * ((1 - share) / 4 + share)
        assert float(found.model.rotary_emb.inv_freq[pair]) == pytest.approx(angle, rel=1e-6)
    assert found.model.rotary_emb.attention_scaling == pytest.approx(0.1 * math.log(4) + 1)
