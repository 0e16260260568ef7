"""Build the transformers config of a GGUF model from the file header, checking each number of the metadata against the tensors."""

from typing import Any

from transformers import AutoConfig

from engine.errors import SourceError
from engine.messages import Message
from engine.models.gguf.file import FAMILIES, GgufFile
from engine.models.gguf.keys import head_size
from engine.models.gguf.rope import rope_parameters, sliding_parameters
from engine.models.gguf.sizes import needed, require_bounded, require_depth, require_widths

READING = 3  # version of the conversion; raising it makes cached conversions obsolete
_LATER_SCALED = 62  # at exactly this depth llama.cpp assumes gemma3 27B, which scales attention differently
_PERIOD = 6  # gemma3's default: every sixth layer has full attention
_NO_HEADS = Message("the stock class does not support this head size with this number of channels")
_NEEDED = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")
_ATTENTION_BIAS = ("attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias")
_MLP_BIAS = ("ffn_gate.bias", "ffn_up.bias", "ffn_down.bias")


def gguf_config(gguf: GgufFile) -> Any:
    """Return the config of a file's model.

    Raises:
        SourceError: a number is missing, or contradicts the tensors.
        UnsupportedModelError: no stock class has such a setting.
    """
    numbers = {name: needed(gguf, name) for name in _NEEDED}
    require_depth(gguf, numbers["block_count"])
    require_bounded(gguf)
    require_widths(gguf)
    values = _gpt2(gguf, numbers) if gguf.architecture == "gpt2" else _rotary(gguf, numbers)
    values |= _special(gguf, values["vocab_size"])
    values["tie_word_embeddings"] = "output.weight" not in gguf.tensors
    family = "mistral" if gguf.architecture == "llama" and window_of(gguf) else FAMILIES.get(gguf.architecture, gguf.architecture)
    try:
        config = AutoConfig.for_model(family, **values)
    except Exception as error:  # each config class validates in its own way
        last = str(error).strip().splitlines()[-1].strip()
        raise SourceError(
            "{path}: transformers cannot build a {family} model from the metadata: {last}", path=gguf.path, family=family, last=last
        ) from error
    config.architectures = None
    return config


def _special(gguf: GgufFile, known: int) -> dict[str, int | None]:
    """Return the ids of the begin, end and padding tokens."""
    found = {}
    for name, ours in (("bos", "bos"), ("eos", "eos"), ("padding", "pad"), ("unknown", "")):
        token = gguf.token(name)
        if token is not None and not 0 <= token < known:
            raise gguf.unread(f"tokenizer.ggml.{name}_token_id", token, Message("the model has {known} tokens", known=known))
        found[f"{ours}_token_id"] = token
    return {name: token for name, token in found.items() if name != "_token_id"}


def _gpt2(gguf: GgufFile, numbers: dict[str, int]) -> dict[str, Any]:
    if head_size(gguf) * numbers["attention.head_count"] != numbers["embedding_length"]:
        raise gguf.unread("{arch}.attention.key_length", head_size(gguf), _NO_HEADS)
    return {
        "n_layer": numbers["block_count"],
        "n_positions": numbers["context_length"],
        "n_embd": numbers["embedding_length"],
        "n_inner": numbers["feed_forward_length"],
        "n_head": numbers["attention.head_count"],
        "layer_norm_epsilon": gguf.above("{arch}.attention.layer_norm_epsilon", 0) or 1e-5,
        "vocab_size": vocabulary(gguf),
    }


def _rotary(gguf: GgufFile, numbers: dict[str, int]) -> dict[str, Any]:
    """Return the settings shared by all families with rotary positions."""
    size = head_size(gguf)
    values: dict[str, Any] = {
        "num_hidden_layers": numbers["block_count"],
        "max_position_embeddings": numbers["context_length"],
        "hidden_size": numbers["embedding_length"],
        "intermediate_size": numbers["feed_forward_length"],
        "num_attention_heads": numbers["attention.head_count"],
        "num_key_value_heads": gguf.whole("{arch}.attention.head_count_kv") or numbers["attention.head_count"],
        "rms_norm_eps": gguf.above("{arch}.attention.layer_norm_rms_epsilon", 0) or 1e-6,
        "vocab_size": vocabulary(gguf),
    }
    if gguf.architecture not in ("qwen2", "phi3") or size * numbers["attention.head_count"] != numbers["embedding_length"]:
        values["head_dim"] = size
    return values | {"llama": _llama, "qwen2": _qwen2, "qwen3": _qwen3, "gemma3": _gemma3, "phi3": _phi3}[gguf.architecture](gguf, size)


def _llama(gguf: GgufFile, size: int) -> dict[str, Any]:
    """Return the settings of Llama or Mistral, which share llama.cpp's "llama". A sliding window makes it Mistral, whose class has no
    biases."""
    values: dict[str, Any] = {"rope_parameters": rope_parameters(gguf, turning(gguf, size))}
    switches = {"attention_bias": has_any(gguf, _ATTENTION_BIAS), "mlp_bias": has_any(gguf, _MLP_BIAS)}
    if not (window := window_of(gguf)):
        return values | switches
    if any(switches.values()):
        raise gguf.unread("{arch}.attention.sliding_window", window, Message("no stock class has both a window and biases"))
    return values | {"sliding_window": window}


def _qwen2(gguf: GgufFile, size: int) -> dict[str, Any]:
    return {"rope_parameters": rope_parameters(gguf, turning(gguf, size)), "use_sliding_window": False}


def _qwen3(gguf: GgufFile, size: int) -> dict[str, Any]:
    return _qwen2(gguf, size) | {"attention_bias": has_any(gguf, _ATTENTION_BIAS)}


def _phi3(gguf: GgufFile, size: int) -> dict[str, Any]:
    turns = turning(gguf, size, part=True)
    rope = rope_parameters(gguf, turns)
    if turns != size:
        rope["partial_rotary_factor"] = turns / size
    if int(size * (turns / size)) != turns or size * needed(gguf, "attention.head_count") != needed(gguf, "embedding_length"):
        raise gguf.unread("{arch}.attention.key_length", size, _NO_HEADS)
    trained = gguf.whole("{arch}.rope.scaling.original_context_length") or needed(gguf, "context_length")
    return {"rope_parameters": rope, "original_max_position_embeddings": trained, "sliding_window": window_of(gguf)}


def _gemma3(gguf: GgufFile, size: int) -> dict[str, Any]:
    depth, turns = needed(gguf, "block_count"), turning(gguf, size)
    window, full = window_of(gguf), rope_parameters(gguf, turns)
    period = _period(gguf, depth) if window else 1
    slides = [period == 0 or place % period < period - 1 for place in range(depth)]
    wide = size if depth != _LATER_SCALED else needed(gguf, "embedding_length") // needed(gguf, "attention.head_count")
    return {
        "layer_types": ["sliding_attention" if one else "full_attention" for one in slides],
        "sliding_window": window or needed(gguf, "context_length"),
        "rope_parameters": {"full_attention": full, "sliding_attention": sliding_parameters(gguf, turns)},
        "query_pre_attn_scalar": wide,
        "final_logit_softcapping": _cap(gguf),
        "attention_bias": has_any(gguf, _ATTENTION_BIAS),
    }


def _period(gguf: GgufFile, depth: int) -> int:
    """Return the period of full-attention layers; 0 means no such layer."""
    written = gguf.value("{arch}.attention.sliding_window_pattern")
    if isinstance(written, list):  # llama.cpp ignores a list, so only its default pattern is accepted
        if [bool(one) for one in written] != [place % _PERIOD < _PERIOD - 1 for place in range(depth)]:
            raise gguf.unread("{arch}.attention.sliding_window_pattern", written, Message("llama.cpp accepts only a single number"))
        return _PERIOD
    found = gguf.whole("{arch}.attention.sliding_window_pattern")
    if found is not None and found < 0:
        raise gguf.unread("{arch}.attention.sliding_window_pattern", found, Message("the period of layer types must not be negative"))
    return _PERIOD if found is None else found


def _cap(gguf: GgufFile) -> float | None:
    """Return the cap of the logits; 0 means none."""
    name = "{arch}.final_logit_softcapping"
    return gguf.above(name, 0) if gguf.real(name) else None


def window_of(gguf: GgufFile) -> int | None:
    """Return the width of a file's sliding window, or None; 0 means none."""
    window = gguf.whole("{arch}.attention.sliding_window") or None
    if window is not None and window < 0:
        raise gguf.unread("{arch}.attention.sliding_window", window, Message("a window cannot be negative"))
    return window


def has_any(gguf: GgufFile, tensors: tuple[str, ...]) -> bool:
    """Return whether any block has one of these tensors."""
    return any(name.startswith("blk.") and name.split(".", 2)[-1] in tensors for name in gguf.tensors)


def turning(gguf: GgufFile, size: int, part: bool = False) -> int:
    """Return how many channels of a head are rotated by the position.

    Raises:
        UnsupportedModelError: only some are, and the class rotates all.
    """
    count = gguf.whole("{arch}.rope.dimension_count")
    count = size if count is None else count
    if not 2 <= count <= size or count % 2 or (count != size and not part):
        raise gguf.unread(
            "{arch}.rope.dimension_count", count, Message("a head has {size} channels, and the stock class rotates all of them", size=size)
        )
    return count


def vocabulary(gguf: GgufFile) -> int:
    """Return the vocabulary size of a file's model: the rows of its embedding."""
    shape, said = gguf.shape("token_embd.weight"), gguf.whole("{arch}.vocab_size")
    if shape is None:
        return said or _tokens(gguf)
    for what, count in ((f"{gguf.architecture}.vocab_size", said), ("tokenizer.ggml.tokens", _tokens(gguf))):
        if count is not None and (count > shape[0] if what.startswith("tok") else count != shape[0]):
            raise SourceError(
                "{path}: {what} says {count} tokens, but token_embd.weight has {shape}",
                path=gguf.path,
                what=what,
                count=count,
                shape=shape[0],
            )
    return shape[0]


def _tokens(gguf: GgufFile) -> int:
    field = gguf.reader.get_field("tokenizer.ggml.tokens")
    return len(field.data) if field else 0
