"""A tiny random model of a family as a GGUF file, written with the GGUF library alone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFValueType, GGUFWriter, TokenType, get_tensor_name_map, quantize

from engine.errors import SourceError
from engine.jobs import drain
from engine.models.gguf.convert import convert
from tests.families import tiny_network, tiny_tokenizer

ARCHES = {
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
    "gemma3_text": MODEL_ARCH.GEMMA3,
    "phi3": MODEL_ARCH.PHI3,
    "gpt2": MODEL_ARCH.GPT2,
}
NAMES = {"gemma3_text": "gemma3", "mistral": "llama"}  # GGUF's, where they are not transformers'
SIZES: dict[str, Any] = {"intermediate_size": 64, "num_hidden_layers": 6}  # rows of 32s, as Q8_0 wants them
CHANGES: dict[str, dict[str, Any]] = {
    "llama": {**SIZES, "tie_word_embeddings": False},
    "qwen2": {**SIZES, "use_sliding_window": False},
    "gemma3_text": {**SIZES, "num_hidden_layers": 12, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2},
    "phi3": SIZES,
    "gpt2": {"n_positions": 1024},  # what stock transformers takes it to be, whatever the file says
}


def save_gguf(file: Path, family: str, name: str | None = None, alignment: int | None = None, **more: Any) -> Path:
    """Write a tiny model: norms and biases in F32, attention in F16, the rest in Q8_0. `more` are further keys, "." written "__"
    and "llama" as it is; a value is what it is, or (value, type, type of its items)."""
    network = tiny_network(family, **CHANGES[family])
    keys = {key.replace("__", "."): value for key, value in more.items()}
    return write_gguf(file, network, keys, name=name, alignment=alignment, add=_add)


def write_gguf(
    file: Path,
    network: Any,
    keys: Mapping[str, Any] = {},
    tensors: Mapping[str, np.ndarray | None] = {},
    *,
    name: str | None = None,
    alignment: int | None = None,
    add: Callable[[GGUFWriter, str, np.ndarray], None] = GGUFWriter.add_tensor,
) -> Path:
    """Write a network as llama.cpp's converter does: `keys` are further ones or instead of its own (None leaves one out), `tensors` too."""
    config = network.config
    writer = GGUFWriter(file, name or NAMES.get(config.model_type, config.model_type))
    if alignment:
        writer.add_custom_alignment(alignment)
    _add_config(writer, config)
    _add_tokenizer(writer)
    held = writer.kv_data[0]
    for key, value in keys.items():
        held.pop(key, None)
        if value is not None:
            value, *types = value if isinstance(value, tuple) else (value, _type_of(value))
            writer.add_key_value(key, value, *types)
    own = {**tensors_of(network), **tensors}
    for tensor, values in own.items():
        if values is not None:
            add(writer, tensor, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _type_of(value: Any) -> GGUFValueType:
    kinds = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING"}
    return GGUFValueType[kinds[type(value)]]


def tensors_of(network: Any) -> dict[str, np.ndarray]:
    """Return a network's weights under GGUF's names, as llama.cpp's converter changes them."""
    config, found = network.config, {}
    names = get_tensor_name_map(ARCHES[config.model_type], config.num_hidden_layers)
    groups = getattr(config, "num_key_value_heads", config.num_attention_heads)
    for key, parameter in network.named_parameters():
        values = parameter.detach().numpy()
        if config.model_type in ("llama", "mistral") and ("q_proj" in key or "k_proj" in key):
            values = _permuted(values, config.num_attention_heads if "q_proj" in key else groups)
        if config.model_type == "gemma3_text" and key.endswith("norm.weight"):
            values = values + 1
        if config.model_type == "gpt2" and ".h." in key and values.ndim == 2:
            values = values.T
        found[names.get_name(key, try_suffixes=(".weight", ".bias"))] = values
    return found


def _add_config(writer: GGUFWriter, config: Any) -> None:
    heads = config.num_attention_heads
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
    writer.add_head_count(heads)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1.0)))
    if head * heads != config.hidden_size or config.model_type == "gemma3_text":
        writer.add_key_length(head)
        writer.add_value_length(head)
    if config.model_type in ("gemma3_text", "phi3"):
        writer.add_sliding_window(config.sliding_window or 0)


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


def whole(family: str, keys: dict[str, Any]) -> dict[str, Any]:
    """Return keys with the architecture's name before those that begin with it in a file."""
    others = ("general.", "tokenizer.", "adapter.", "split.")
    return {key if key.startswith(others) else f"{NAMES.get(family, family)}.{key}": value for key, value in keys.items()}


def refused(file: Path) -> str:
    """Return the message that refuses to convert a file, of which nothing is left."""
    with pytest.raises(SourceError) as told:
        drain(convert({"gguf": str(file), "target": str(file.parent / "converted" / "name")}))
    assert [path.name for path in (file.parent / "converted").iterdir()] == [".lock"]
    return str(told.value)
