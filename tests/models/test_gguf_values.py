"""A number that is none, a list of the wrong length and a value of the wrong type are refused by their key; quantised weights are exact."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, dequantize, quantize
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from engine.jobs import drain
from engine.models.gguf.convert import convert
from engine.models.inspection import inspect_gguf
from engine.models.sources import parse_source
from tests.families import tiny_network
from tests.ggufs import array, refused, whole, write_gguf

F32, NAN, INT32, FLOAT32 = np.float32, float("nan"), GGUFValueType.INT32, GGUFValueType.FLOAT32
REFUSALS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {  # family, keys, tensors, words
    "an epsilon of zero": ("llama", {"attention.layer_norm_rms_epsilon": 0.0}, {}, r"norm_rms_epsilon = 0\.0 is not .* above 0"),
    "an epsilon below zero": ("llama", {"attention.layer_norm_rms_epsilon": -1.0}, {}, r"norm_rms_epsilon = -1\.0 is not supported"),
    "no number": ("llama", {"attention.layer_norm_rms_epsilon": NAN}, {}, r"layer_norm_rms_epsilon is 'nan'; expected a number"),
    "no number, of gpt2": ("gpt2", {"attention.layer_norm_epsilon": NAN}, {}, r"gpt2\.attention\.layer_norm_epsilon is 'nan'"),
    "a cap that is no number": ("gemma3_text", {"final_logit_softcapping": NAN}, {}, r"final_logit_softcapping is 'nan'"),
    "a cap below zero": ("gemma3_text", {"final_logit_softcapping": -5.0}, {}, r"final_logit_softcapping = -5\.0 is not supported"),
    "a window below zero": ("llama", {"attention.sliding_window": (-1, INT32)}, {}, r"llama\.attention\.sliding_window = -1 is not"),
    "a period below zero": ("gemma3_text", {"attention.sliding_window_pattern": (-2, INT32)}, {}, r"sliding_window_pattern = -2 is not"),
    "a factor of no number": ("llama", {"rope.scaling.attn_factor": NAN}, {}, r"llama\.rope\.scaling\.attn_factor is 'nan'; expected"),
    "a factor of zero": ("llama", {"rope.scaling.attn_factor": 0.0}, {}, r"rope\.scaling\.attn_factor = 0\.0 is not supported"),
    "yarn's factor of zero": (
        "llama", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.yarn_attn_factor": 0.0}, {},
        r"llama\.rope\.scaling\.yarn_attn_factor = 0\.0 is not supported: it must be a number above 0",
    ),
    "a negative factor": ("llama", {"rope.scale_linear": -2.0}, {}, r"llama\.rope\.scale_linear = -2\.0 is not supported"),
    "a scaling without a name": ("llama", {"rope.scaling.type": ""}, {}, r"rope\.scaling\.type =  is not supported: supported types: none"),
    "a base that is no number": ("llama", {"rope.freq_base": float("inf")}, {}, r"llama\.rope\.freq_base is 'inf'"),
    "too few layers": (
        "llama", {"attention.head_count_kv": array([2] * 3, INT32)}, {}, r"attention\.head_count_kv has 3 numbers, but the model has 6",
    ),
    "a list for the context": ("llama", {"context_length": array([128] * 6, INT32)}, {}, r"llama\.context_length is '\[128, "),
    "a norm of no numbers": ("llama", {}, {"output_norm.weight": np.full(32, NAN, F32)}, r"output_norm\.weight contains numbers that are"),
    "infinite weights": ("llama", {}, {"blk.0.ffn_up.weight": np.full((48, 32), np.inf, F32)}, r"blk\.0\.ffn_up\.weight contains numbers"),
    "a switch of letters": ("llama", {"tokenizer.ggml.add_bos_token": "false"}, {}, r"add_bos_token is 'false'; .*BOOL"),
    "a switch of a number": ("llama", {"tokenizer.ggml.add_eos_token": 1}, {}, r"add_eos_token is '1'; expected a value of type BOOL"),
    "a space of letters": ("llama", {"tokenizer.ggml.add_space_prefix": "no"}, {}, r"add_space_prefix is 'no'; expected a"),
    "no token to begin with": (
        "llama", {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": None}, {},
        r"adds a token to every text, but tokenizer\.ggml\.bos_token_id does not name one",
    ),
    "no token to end with": (
        "llama", {"tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.eos_token_id": 2**32 - 1}, {},
        r"adds a token to every text, but tokenizer\.ggml\.eos_token_id does not name one",
    ),
    "too few types": ("llama", {"tokenizer.ggml.token_type": array([1] * 10, INT32)}, {}, r"token_type has 10 items, but there are 300"),
    "too few scores": ("llama", {"tokenizer.ggml.scores": array([1.0] * 10, FLOAT32)}, {}, r"scores has 10 items, but there are 300 tok"),
    "scores of no number": ("llama", {"tokenizer.ggml.scores": array([NAN] * 300, FLOAT32)}, {}, r"ggml\.scores contains numbers that"),
    "a template of a number": ("llama", {"tokenizer.chat_template": 5}, {}, r"tokenizer\.chat_template is '5'; .*STRING"),
    "no tokens": ("llama", {"tokenizer.ggml.tokens": None}, {}, r"required key tokenizer\.ggml\.tokens is missing"),
    "no merges": ("llama", {"tokenizer.ggml.merges": None}, {}, r"required key tokenizer\.ggml\.merges is missing"),
    "no merges and no scores": (
        "llama", {"tokenizer.ggml.model": "llama", "tokenizer.ggml.merges": None}, {}, r"tokenizer\.ggml\.scores is missing",
    ),
    "tokens of numbers": ("llama", {"tokenizer.ggml.tokens": array([1] * 300, INT32)}, {}, r"ggml\.tokens is '\[1, .*ARRAY STRING"),
    "a token below all": ("llama", {"tokenizer.ggml.bos_token_id": (-2, INT32)}, {}, r"bos_token_id = -2 .* the model has 300"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_value_that_cannot_be_is_refused_by_its_key(case: str, tmp_path: Path) -> None:
    family, keys, tensors, words = REFUSALS[case]
    plain: dict[str, Any] = {"layer_types": None} if family == "gemma3_text" else {}
    file = write_gguf(tmp_path / "tiny.gguf", tiny_network(family, **plain), whole(family, keys), tensors)
    told = refused(file)
    assert re.search(words, told), told
    assert "tiny.gguf" in told
    assert "truncated" not in told
    assert "\n" not in told


@pytest.mark.parametrize("none", [2**32 - 1, (-1, INT32)])
def test_the_id_of_no_token_is_none(none: Any, tmp_path: Path) -> None:
    keys = {f"tokenizer.ggml.{name}_token_id": none for name in ("padding", "bos", "unknown")}
    file = write_gguf(tmp_path / "tiny.gguf", tiny_network("llama"), keys)
    folder = tmp_path / "converted" / "name"
    drain(convert({"gguf": str(file), "target": str(folder)}))
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (None, None, 1)
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.unk_token, tokenizer.eos_token) == (None, None, None, "</s>")


@pytest.mark.parametrize("alignment", [1024, 8192])
def test_a_file_of_another_alignment_than_it_says_is_refused_by_its_value(alignment: int, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tiny_network("llama"), {"general.alignment": alignment})
    told = refused(file)
    assert "tiny.gguf" in told
    assert f"general.alignment = {alignment}" in told
    assert inspect_gguf(write_gguf(tmp_path / "said.gguf", tiny_network("llama"), alignment=alignment), parse_source(str(file)))


KINDS = {  # where the half-precision scales of a block are, for types that the library does not quantise to
    "Q4_0": None, "Q4_1": None, "Q5_0": None, "Q5_1": None, "Q8_0": None, "BF16": None, "F16": None,
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_XS": (0,),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_quantised_weights_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    kind, places = GGMLQuantizationType[name], KINDS[name]
    block, width = GGML_QUANT_SIZES[kind]
    raw: dict[str, np.ndarray] = {}

    def stored(writer: Any, tensor: str, values: np.ndarray) -> None:
        if values.ndim == 2:
            raw[tensor] = quantize(values, kind) if places is None else random_blocks(values.shape, block, width, places)
            writer.add_tensor(tensor, raw[tensor], raw_dtype=kind)
        else:
            writer.add_tensor(tensor, values)

    sizes: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 1,
        "use_sliding_window": False,
        "layer_types": None,
    }
    file = write_gguf(tmp_path / "tiny.gguf", tiny_network("qwen2", **sizes), add=stored)
    drain(convert({"gguf": str(file), "target": str(tmp_path / "converted" / "name")}))
    found = load_file(tmp_path / "converted" / "name" / "model.safetensors")
    for ours, theirs in (("self_attn.q_proj", "attn_q"), ("self_attn.v_proj", "attn_v"), ("mlp.down_proj", "ffn_down")):
        wanted = dequantize(raw[f"blk.0.{theirs}.weight"], kind)
        assert len(np.unique(wanted)) > 8
        assert np.array_equal(found[f"model.layers.0.{ours}.weight"].numpy(), wanted)


def random_blocks(shape: tuple[int, ...], block: int, width: int, places: tuple[int, ...]) -> np.ndarray:
    """Return rows of random bytes as quantised blocks, with small finite scales."""
    made = np.random.default_rng(0).integers(0, 256, size=(shape[0], shape[1] // block, width), dtype=np.uint8)
    for place in places:
        made[..., place : place + 2] = np.frombuffer(np.float16(0.001).tobytes(), np.uint8)
    return made.reshape(shape[0], -1)
