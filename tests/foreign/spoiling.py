"""Corrupt foreign files: their bytes, JSON values and file types, each corruption described by plain numbers and text."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

DEEP = "a list in a list, and so on"  # stands for lists so deep that json cannot write them
_DEPTHS = (90, 600, 100_000)

# What somebody once found in such a file, or thought of; each in place of any value.
NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 10**5, 10**9, 2**30, 2**31, 2**63, -(2**63), 10**400, 0.0, 0.5, -0.5, 1e308, -1e308,
    float("nan"), float("inf"), float("-inf"), "", " ", "0", "auto", "float32", "float8_e4m3fn", "bfloat16", "x" * 300, "\ud800", "\0",
    "../../etc/passwd", "/etc/passwd", "https://example.com/x", "{{ 7 * 7 }}", "<script>alert(1)</script>", "__import__('os')", "안녕",
    [], [0], [[]], [None], [-1], [10**9], ["a", "b"], list(range(3000)), {}, {"a": 1}, {"a": {"a": {}}}, {"type": "x"}, {"0": "x"},
)  # fmt: skip
# What a stranger may add: by the file's name, keys that drive transformers, tokenizers or us.
ADDED: dict[str, dict[str, tuple[Any, ...]]] = {
    "config.json": {
        "num_labels": (10**9, -1, "x"),
        "id2label": ({"0": 1}, {str(i): "x" for i in range(2000)}, []),
        "output_hidden_states": ([1], True, "x"),
        "output_attentions": (True, [1]),
        "output_router_logits": (True, "x"),
        "tie_last_hidden_states": (False, "x"),
        "per_layer_config": ({"1": {"intermediate_size": 8}}, {"x": {}}, [], {"7": {}}),
        "use_cache": (False, "x"),
        "attention_bias": (True, "x"),
        "pretraining_tp": (2, "x"),
        "add_cross_attention": (True,),
        "is_decoder": (False,),
        "sliding_window": (0, -1, 2, "x"),
        "use_sliding_window": (True,),
        "return_dict": (False, 0),
        "is_encoder_decoder": (True,),
        "auto_map": ({"AutoConfig": "x.Y"}, {"AutoModelForCausalLM": "a/b--c.D"}, "x"),
        "quantization_config": ({}, {"quant_method": "gptq", "bits": 4}, {"quant_method": "x"}, 3),
        "rope_scaling": ({"type": "yarn", "factor": 1e300}, {"rope_type": "dynamic", "factor": 0}, {"rope_type": "longrope"}, "x"),
        "rope_parameters": ({"rope_type": "linear", "rope_theta": 0}, {"rope_theta": -1.0}, {"rope_type": "llama3"}, 3),
        "layer_types": (["full_attention"] * 3, ["x"] * 6, ["full_attention"] * 100_000),
        "attn_implementation": ("flash_attention_2", "x"),
        "_attn_implementation": ("flex_attention", "x"),
        "torch_dtype": ("float8_e4m3fn", "int8", "x", 3),
        "dtype": ("float8_e4m3fn", "complex64", "x"),
        "head_dim": (0, -8, 3, 10**6),
        "num_hidden_layers": (0, 1, 5, 7, 10**5, 3 * 10**7, "6"),
        "vocab_size": (0, 1, 299, 301, 10**9),
        "max_position_embeddings": (0, -1, 1, 2, 10**12),
        "tie_word_embeddings": (True, False, "x"),
        "hidden_act": ("x", "gelu", 3),
        "model_type": ("x", "gpt2", "bert", "mistral", 3),
        "pruned_heads": ({"0": [0]}, {"x": 1}),
        "chunk_size_feed_forward": (10**9, -1),
        "transformers_version": (3, "x"),
    },
    "generation_config.json": {
        "repetition_penalty": (0, -1, "x", 1e300),
        "stop_strings": (["x"], 3),
        "bad_words_ids": ([[]], [[10**6]], "x"),
        "prompt_lookup_num_tokens": (3,),
        "num_beams": (10**5, -1),
        "cache_implementation": ("x", "static"),
        "eos_token_id": (10**9, "x", [], [10**9]),
        "assistant_model": ("x",),
        "sequence_bias": ({"x": 1}, [[[1], 2.0]]),
    },
    "tokenizer_config.json": {
        "model_max_length": ("x", -1, 0, 1e400, None),
        "tokenizer_class": ("x", "BertTokenizer", "LlamaTokenizer", 3),
        "chat_template": ("{% for x in range(10**9) %}{% endfor %}", "{{ ''.__class__ }}", "{% x", 3, ["x"]),
        "add_bos_token": (True, "x"),
        "added_tokens_decoder": ({"5": {"content": "the", "special": True}}, {"x": {}}, {"100000": {"content": "a"}}),
        "auto_map": ({"AutoTokenizer": ["x.Y", None]}, "x"),
        "extra_special_tokens": ({"x": "y"}, 3),
        "padding_side": ("x",),
        "truncation_side": ("left", "x"),
    },
}


class Spoilt(NamedTuple):
    """What is done to a file: how, where (a share of it, or the number of a value), and with what."""

    how: str
    where: float
    what: Any


_VALUES = st.one_of(
    st.sampled_from(NASTY),
    st.sampled_from([DEEP + str(depth) for depth in _DEPTHS]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=8,
    ),
)
_PLACES = st.floats(0, 1)
IN_BYTES = st.one_of(
    st.builds(Spoilt, st.just("cut"), _PLACES, st.none()),
    st.builds(Spoilt, st.sampled_from(["over", "into"]), _PLACES, st.binary(min_size=1, max_size=12)),
)
KINDS = ("gone", "empty", "folder", "fifo", "circle", "device", "null")
OF_KIND = st.builds(Spoilt, st.just("kind"), st.just(0.0), st.sampled_from(KINDS))
IN_JSON = st.one_of(
    st.builds(Spoilt, st.sampled_from(["value", "key"]), _PLACES, _VALUES),
    st.builds(Spoilt, st.sampled_from(["without", "twice"]), _PLACES, st.none()),
)


def added_to(name: str) -> st.SearchStrategy[Spoilt]:
    """Return what may be added to a file of this name."""
    pairs = [(key, value) for key, values in ADDED.get(name, {}).items() for value in values]
    return st.builds(Spoilt, st.just("add"), st.just(0.0), st.sampled_from(pairs)) if pairs else st.nothing()


def spoil(path: Path, spoilt: Spoilt) -> None:
    """Spoil a file where it lies."""
    if spoilt.how == "kind":
        _become(path, spoilt.what)
    elif spoilt.how in ("cut", "over", "into"):
        _break(path, spoilt)
    elif path.is_file():
        try:
            _write(path, _changed(json.loads(path.read_text(encoding="utf-8")), spoilt))
        except (ValueError, RecursionError):  # was spoilt before
            return


def _break(path: Path, spoilt: Spoilt) -> None:
    if not path.is_file():
        return
    content = path.read_bytes()
    at = int(spoilt.where * len(content))
    if spoilt.how == "cut":
        path.write_bytes(content[:at])
    else:
        path.write_bytes(content[:at] + spoilt.what + content[at + (len(spoilt.what) if spoilt.how == "over" else 0) :])


def _become(path: Path, kind: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind in ("circle", "device", "null"):
        path.symlink_to({"circle": path.name, "device": "/dev/zero", "null": "/dev/null"}[kind])


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to each value in a JSON value; of long lists, to the first."""
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    for key, inner in items[:400]:
        yield (*before, key)
        yield from places(inner, (*before, key))


def _changed(content: Any, spoilt: Spoilt) -> Any:
    if spoilt.how == "add":
        key, value = spoilt.what
        return {**content, key: value} if isinstance(content, dict) else value
    found = list(places(content))
    if not found:
        return spoilt.what
    *before, last = found[min(int(spoilt.where * len(found)), len(found) - 1)]
    holder = content
    for key in before:
        holder = holder[key]
    if spoilt.how == "value":
        holder[last] = spoilt.what
    elif spoilt.how == "without":
        del holder[last]
    elif isinstance(holder, list):
        holder.insert(last, holder[last] if spoilt.how == "twice" else spoilt.what)
    elif spoilt.how == "key":
        holder[str(spoilt.what)[:1000]] = holder.pop(last)
    return content


def _write(path: Path, content: Any) -> None:
    text = json.dumps(content)
    for depth in _DEPTHS:
        text = text.replace(json.dumps(DEEP + str(depth)), "[" * depth + "]" * depth)
    path.write_text(text, encoding="utf-8")
