"""Make checkpoints readable by older versions of transformers: version 4's keys alongside version 5's.

Version 5 keeps all rotary settings in `rope_parameters`, which version 4 ignores: it would silently use theta 10000 and no scaling. Version
5 also reads version 4's keys, with the same result: `rope_scaling` takes precedence over `rope_parameters`, and settings missing from it
(theta, the rotary share of a head) are read from the top-level keys.
"""

from typing import Any

Values = dict[str, Any]

# The oldest release from which all tested releases gave the logits of 5.23 (to 1e-5 of the largest, on 50 and on 200 tokens, beyond the
# context). Tiny exports of every family, scaling and cut were read with 4.43.4, 4.45.2, 4.48.3, 4.50.3, 4.51.3, 4.52.4, 4.53.3, 4.54.1,
# 4.55.4, 4.56.2, 4.57.1, 4.57.6, 5.0.0 and 5.23.0. Token ids, texts and chats were compared only in 4.43.4, 4.45.2, 4.48.3, 4.51.3, 4.53.3,
# 4.56.2 and 4.57.6.
_OLDEST = "4.48.3"  # 4.45.2 does not read chat_template.jinja; 4.43.4 decodes spaces differently
_FAMILIES = {
    "gemma3_text": "4.50.3",  # 4.48.3 has no such model
    "qwen3": "4.51.3",  # 4.50.3 has no such model
}
_FEATURES = {
    "partial": "4.49.0",  # tested there with Phi-3 only; 4.48.3 rotates whole heads of Phi-3 and fails
    "longrope": "4.51.3",  # outside Phi-3, 4.50.3 never uses the long factors
    "mscale": "4.51.3",  # YaRN's; 4.50.3 does not read it
    "layer_types": "4.53.3",  # 4.52.4 uses a number instead, with another meaning for Qwen
    "truncate": "4.55.4",  # YaRN's; 4.54.1 always rounds the range
    "factor": "4.56.2",  # 4.55.4 computes YaRN's factor from the lengths and ignores the written one
    "bidirectional": "4.57.1",  # 4.56.2 gives other logits
    "version 5": "5.0.0",  # version 4 has no keys for it
    "yarn in some layers": "5.23.0",  # 4.57.6 reads it; 5.0.0, 5.1.0, 5.3.0 and 5.6.2 raise a KeyError
}

_PADS_LEFT = ("LlamaTokenizer", "GemmaTokenizer")  # version 5 classes that pad left by default


def legacy_config(values: Values) -> Values:
    """Return config.json with version 4's keys added to version 5's, wherever version 4 can express them."""
    added = {"torch_dtype": values["dtype"]} if values.get("dtype") else {}
    kept = {key: value for key, value in values.items() if key != "sliding_window_pattern"}
    return {**kept, **added, **_rotary_keys(values), **_layer_keys(values)}


def _rotary_keys(values: Values) -> Values:
    """Return theta and scaling in version 4's keys; if layer types differ, those of full attention."""
    rope, local = _rope_of(values)
    if rope is None:
        return {}
    keys = {"rope_theta": rope.get("rope_theta"), "partial_rotary_factor": rope.get("partial_rotary_factor")}
    if local is not None:
        keys["rope_local_base_freq"] = local.get("rope_theta")
    if rope.get("rope_type", "default") != "default":
        keys["rope_scaling"] = _scaling(values, rope)
        keys["original_max_position_embeddings"] = _original_length(values, rope)
    return {key: value for key, value in keys.items() if value is not None}


def _rope_of(values: Values) -> tuple[Values | None, Values | None]:
    """Return the rotary settings of all layers and None, or those of full attention and of sliding attention."""
    rope = values.get("rope_parameters") or None
    if rope is None or "full_attention" not in rope:
        return rope, None
    return rope["full_attention"], rope.get("sliding_attention")


def _scaling(values: Values, rope: Values) -> Values:
    """Return `rope_scaling`. Phi-3 in version 4 accepts exactly three keys there and refuses any others."""
    if values["model_type"] == "phi3" and _said_by_4(values):
        return {"type": "longrope", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
    apart = {"rope_theta", "partial_rotary_factor"}
    if rope["rope_type"] == "yarn" and _same_lengths(values, rope):
        # both versions use this value by default; some of version 4 compute the factor from it
        apart.add("original_max_position_embeddings")
    return {key: value for key, value in rope.items() if key not in apart}


def _said_by_4(values: Values) -> bool:
    """Return whether version 4's keys can express the rotary settings."""
    rope, local = _rope_of(values)
    kind = (rope or {}).get("rope_type", "default")
    if rope is None or kind == "default":
        return local is None or local.get("rope_type", "default") == "default"
    if local is not None and (local.get("rope_type", "default") != "default" or not rope.get("truncate", True)):
        return False  # version 4 has only theta for sliding layers; version 5 ignores `truncate` where layer types differ
    if values["model_type"] == "phi3":
        return kind == "longrope" and not {"factor", "attention_factor"} & rope.keys()
    return kind != "longrope" or _same_lengths(values, rope) or _factor_follows(values, rope)


def _same_lengths(values: Values, rope: Values) -> bool:
    return rope.get("original_max_position_embeddings") == values.get("max_position_embeddings")


def _factor_follows(values: Values, rope: Values) -> bool:
    """Return whether version 4, where it computes a factor from the lengths, gets version 5's factor."""
    longest, original = values.get("max_position_embeddings") or 0, rope.get("original_max_position_embeddings") or 0
    return "factor" not in rope or rope.get("attention_factor") is not None or not original or rope["factor"] * original == longest


def _original_length(values: Values, rope: Values) -> int | None:
    """Return the original context length, which version 4 needs besides a LongRoPE `rope_scaling`. It then computes the factor from the
    ratio of the lengths, so the key is left out if the lengths are equal and the factor is given."""
    original = rope.get("original_max_position_embeddings")
    if rope["rope_type"] != "longrope" or ("factor" in rope and _same_lengths(values, rope)):
        return None
    return original


def _layer_keys(values: Values) -> Values:
    """Return the number that describes which layers slide, for versions without `layer_types`; {} if no number fits."""
    slides = [kind == "sliding_attention" for kind in values.get("layer_types") or ()]
    if values.get("model_type") == "gemma3_text":
        patterns = range(1, len(slides) + 2)
        fitting = [p for p in patterns if slides == [bool((index + 1) % p) for index in range(len(slides))]]
        return {"sliding_window_pattern": fitting[0]} if slides and fitting else {}
    if values.get("use_sliding_window") and slides == sorted(slides):
        return {"max_window_layers": slides.count(False)}
    return {}


def legacy_tokenizer_config(values: Values) -> Values:
    """Return a tokenizer_config.json in version 4's terms if version 5 wrote it; one written by version 4 is not changed.

    PreTrainedTokenizerFast exists in both versions and reads tokenizer.json unchanged; version 4's class for the family would prepend a
    token to each text. The result keeps the family's padding side and names the two model inputs.
    """
    if values.get("backend") != "tokenizers" and values.get("tokenizer_class") != "TokenizersBackend":
        return dict(values)
    facts = {"model_input_names": ["input_ids", "attention_mask"], **values, "tokenizer_class": "PreTrainedTokenizerFast"}
    if values.get("tokenizer_class") in _PADS_LEFT:
        facts.setdefault("padding_side", "left")
    if isinstance(facts.get("extra_special_tokens"), list):
        facts["additional_special_tokens"] = facts.pop("extra_special_tokens")
    if named := facts.pop("model_specific_special_tokens", None):
        facts["extra_special_tokens"] = named
    return facts


def oldest_transformers(values: Values) -> str:
    """Return the oldest version of transformers that reads a checkpoint correctly, from its config.json in either form."""
    needs = [_FAMILIES.get(values.get("model_type", ""), _OLDEST), *(_FEATURES[feature] for feature in _features(values))]
    return max(needs, key=lambda version: tuple(map(int, version.split("."))))


def _features(values: Values) -> set[str]:
    """Return the features of a checkpoint that older transformers versions lack."""
    rope, local = _rope_of(values)
    rope = rope or {}
    kind, family = rope.get("rope_type", "default"), values.get("model_type")
    yarn = kind == "yarn"
    sliding = "sliding_attention" in (values.get("layer_types") or ())
    found = {
        "version 5": not _said_by_4(values),
        "yarn in some layers": yarn and local is not None,
        "longrope": kind == "longrope" and family != "phi3",
        "mscale": yarn and "mscale" in rope,
        "truncate": yarn and "truncate" in rope,
        "factor": yarn and not _same_lengths(values, rope) and rope["factor"] != _ratio(values, rope),
        "partial": rope.get("partial_rotary_factor", 1.0) != 1.0,
        "layer_types": sliding and (family != "gemma3_text" or "sliding_window_pattern" not in _layer_keys(values)),
        "bidirectional": bool(values.get("use_bidirectional_attention")),
    }
    return {feature for feature, used in found.items() if used}


def _ratio(values: Values, rope: Values) -> float:
    return float(values["max_position_embeddings"] / rope["original_max_position_embeddings"])
