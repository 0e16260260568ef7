"""A tiny random model of a family as a GGUF file, written with the GGUF library alone."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFValueType, GGUFWriter, TokenType, get_tensor_name_map, quantize

from tests.families import tiny_network, tiny_tokenizer

ARCHES = {
    "llama": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "gemma3_text": MODEL_ARCH.GEMMA3,
    "phi3": MODEL_ARCH.PHI3,
    "gpt2": MODEL_ARCH.GPT2,
}
SIZES: dict[str, Any] = {"intermediate_size": 64, "num_hidden_layers": 6}  # rows of 32s, as Q8_0 wants them
CHANGES: dict[str, dict[str, Any]] = {
    "llama": {**SIZES, "tie_word_embeddings": False},
    "qwen2": {**SIZES, "use_sliding_window": False},
    "gemma3_text": {**SIZES, "num_hidden_layers": 12, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2},
    "phi3": SIZES,
    "gpt2": {"n_positions": 1024},  # what transformers takes it to be, whatever the file says
}


def save_gguf(file: Path, family: str, name: str | None = None, alignment: int | None = None, **more: Any) -> Path:
    """Write a tiny model: norms and biases in F32, attention in F16, the rest in Q8_0. `more` are further keys, "." written "__"
    and "llama" as it is; a value is what it is, or (value, type, type of its items)."""
    network = tiny_network(family, **CHANGES[family])
    arch = ARCHES[family]
    writer = GGUFWriter(file, name or {"gemma3_text": "gemma3"}.get(family, family))
    if alignment:
        writer.add_custom_alignment(alignment)
    _add_config(writer, network.config)
    _add_tokenizer(writer)
    for key, (value, *types) in more.items():
        writer.add_key_value(key.replace("__", "."), value, *types)
    names = get_tensor_name_map(arch, 12)
    for key, parameter in network.named_parameters():
        values = parameter.detach().numpy()
        if family == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
            values = _permuted(values, values.shape[0] // (32 // 4))
        if family == "gemma3_text" and "norm" in key:
            values = values + 1
        if family == "gpt2" and ".h." in key and values.ndim == 2:
            values = values.T
        _add(writer, names.get_name(key, try_suffixes=(".weight", ".bias")), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_config(writer: GGUFWriter, config: Any) -> None:
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", 128))
    writer.add_head_count(4)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters.get("rope_theta", 1e6))
    writer.add_rope_dimension_count(getattr(config, "head_dim", None) or 8)
    if config.model_type == "gemma3_text":
        writer.add_key_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)


def _add_tokenizer(writer: GGUFWriter) -> None:
    tokens = [token for token, _ in sorted(tiny_tokenizer().get_vocab().items(), key=lambda item: item[1])]
    tokens += ["th", "he"]
    tokens += [f"<unused{place}>" for place in range(300 - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in ("<s>", "</s>") else TokenType.NORMAL for token in tokens])
    writer.add_token_merges(["t h", "h e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{% for message in messages %}{{ message.content }}\n{% endfor %}")


def _permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q and k as llama.cpp wants them for its rotary embedding."""
    return values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _add(writer: GGUFWriter, name: str, values: np.ndarray) -> None:
    if values.ndim == 1:
        writer.add_tensor(name, values.astype(np.float32))
    elif "attn" in name or values.shape[-1] % 32:
        writer.add_tensor(name, values.astype(np.float16))
    else:
        kind = GGMLQuantizationType.Q8_0
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)


def array(values: list[Any], kind: GGUFValueType) -> tuple[Any, GGUFValueType, GGUFValueType]:
    """Return a metadata array of a type of its items."""
    return values, GGUFValueType.ARRAY, kind
