"""What a checkpoint says of itself to older versions of transformers: keys of version 4 beside those of version 5.

Version 5 keeps all rotary settings in `rope_parameters`, which version 4 does not read: it would take theta 10000 and no scaling,
without a word. Version 5 reads the keys of version 4 too, and comes to the same settings: `rope_scaling` wins over
`rope_parameters`, and what is not in it (theta, the rotary share of a head) comes from the keys beside it.
"""

from typing import Any

Values = dict[str, Any]

# The oldest release from which on all that were tried gave the logits of 5.23 (to 1e-5 of the largest, on 50 and on 200 tokens, beyond
# the context). Tiny exports of every family, scaling and cut were read with 4.43.4, 4.45.2, 4.48.3, 4.50.3, 4.51.3, 4.52.4, 4.53.3,
# 4.54.1, 4.55.4, 4.56.2, 4.57.1, 4.57.6, 5.0.0 and 5.23.0. Token ids, texts and chats were compared in 4.43.4, 4.45.2, 4.48.3, 4.51.3,
# 4.53.3, 4.56.2 and 4.57.6 alone.
_OLDEST = "4.48.3"  # 4.45.2 does not read chat_template.jinja; 4.43.4 decodes other spaces
_FAMILIES = {
    "gemma3_text": "4.50.3",  # 4.48.3 has no such model
    "qwen3": "4.51.3",  # 4.50.3 has no such model
}
_FEATURES = {
    "partial": "4.49.0",  # where Phi-3 alone was read; 4.48.3 rotates whole heads of Phi-3, and fails
    "longrope": "4.51.3",  # outside Phi-3, 4.50.3 never takes the long factors
    "mscale": "4.51.3",  # YaRN's; 4.50.3 does not read it
    "layer_types": "4.53.3",  # 4.52.4 goes by a number, which it reads otherwise for Qwen
    "truncate": "4.55.4",  # YaRN's; 4.54.1 always rounds the range
    "factor": "4.56.2",  # 4.55.4 takes YaRN's factor from the lengths, whatever is written
    "bidirectional": "4.57.1",  # 4.56.2 gives other logits
    "version 5": "5.0.0",  # no version of 4 can be told
    "yarn in some layers": "5.23.0",  # 4.57.6 reads it, 5.0.0, 5.1.0, 5.3.0 and 5.6.2 stop with a KeyError
}

_PADS_LEFT = ("LlamaTokenizer", "GemmaTokenizer")  # classes of version 5 that pad left where nothing is written


def legacy_config(values: Values) -> Values:
    """Return a config.json's values with the keys of version 4 beside those of version 5, wherever version 4 can say the same."""
    added = {"torch_dtype": values["dtype"]} if values.get("dtype") else {}
    kept = {key: value for key, value in values.items() if key != "sliding_window_pattern"}
    return {**kept, **added, **_rotary_keys(values), **_layer_keys(values)}


def _rotary_keys(values: Values) -> Values:
    """Return theta and scaling as version 4 reads them; where layers of two types have their own, theirs in full attention."""
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
    """Return the rotary settings of all layers, or those in full attention, and then those in sliding attention too."""
    rope = values.get("rope_parameters") or None
    if rope is None or "full_attention" not in rope:
        return rope, None
    return rope["full_attention"], rope.get("sliding_attention")


def _scaling(values: Values, rope: Values) -> Values:
    """Return `rope_scaling`. Phi-3 of version 4 takes three keys there and no more; what needs others it refuses."""
    if values["model_type"] == "phi3" and _said_by_4(values):
        return {"type": "longrope", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
    apart = {"rope_theta", "partial_rotary_factor"}
    if rope["rope_type"] == "yarn" and _same_lengths(values, rope):
        apart.add("original_max_position_embeddings")  # both versions take it so; some of version 4 compute the factor from it
    return {key: value for key, value in rope.items() if key not in apart}


def _said_by_4(values: Values) -> bool:
    """Tell whether the keys of version 4 can say what the rotary settings say."""
    rope, local = _rope_of(values)
    kind = (rope or {}).get("rope_type", "default")
    if rope is None or kind == "default":
        return local is None or local.get("rope_type", "default") == "default"
    if local is not None and (local.get("rope_type", "default") != "default" or not rope.get("truncate", True)):
        return False  # of sliding layers it knows theta alone; version 5 does not read `truncate` where layers differ
    if values["model_type"] == "phi3":
        return kind == "longrope" and not {"factor", "attention_factor"} & rope.keys()
    return kind != "longrope" or _same_lengths(values, rope) or _factor_follows(values, rope)


def _same_lengths(values: Values, rope: Values) -> bool:
    return rope.get("original_max_position_embeddings") == values.get("max_position_embeddings")


def _factor_follows(values: Values, rope: Values) -> bool:
    """Tell whether version 4, where it takes a factor from the lengths, comes to the factor that version 5 has."""
    longest, original = values.get("max_position_embeddings") or 0, rope.get("original_max_position_embeddings") or 0
    return "factor" not in rope or rope.get("attention_factor") is not None or not original or rope["factor"] * original == longest


def _original_length(values: Values, rope: Values) -> int | None:
    """Return what version 4 needs beside a `rope_scaling` of LongRoPE; it then takes the factor from the ratio of the lengths, which
    is no use where they are the same and the factor is written out."""
    original = rope.get("original_max_position_embeddings")
    if rope["rope_type"] != "longrope" or ("factor" in rope and _same_lengths(values, rope)):
        return None
    return original


def _layer_keys(values: Values) -> Values:
    """Return the number that says which layers slide, for versions that know no `layer_types`; nothing where no number can say it."""
    slides = [kind == "sliding_attention" for kind in values.get("layer_types") or ()]
    if values.get("model_type") == "gemma3_text":
        patterns = range(1, len(slides) + 2)
        fitting = [p for p in patterns if slides == [bool((index + 1) % p) for index in range(len(slides))]]
        return {"sliding_window_pattern": fitting[0]} if slides and fitting else {}
    if values.get("use_sliding_window") and slides == sorted(slides):
        return {"max_window_layers": slides.count(False)}
    return {}


def legacy_tokenizer_config(values: Values) -> Values:
    """Return a tokenizer_config.json's values in words of version 4, where version 5 wrote them; what version 4 wrote is left as it is.

    The class that both know reads tokenizer.json as it stands; version 4's own class of a family would add a token before each text.
    Both pad on the family's side, and give a model the two inputs that it takes."""
    if values.get("backend") != "tokenizers" and values.get("tokenizer_class") != "TokenizersBackend":
        return dict(values)
    told = {"model_input_names": ["input_ids", "attention_mask"], **values, "tokenizer_class": "PreTrainedTokenizerFast"}
    if values.get("tokenizer_class") in _PADS_LEFT:
        told.setdefault("padding_side", "left")
    if isinstance(told.get("extra_special_tokens"), list):
        told["additional_special_tokens"] = told.pop("extra_special_tokens")
    if named := told.pop("model_specific_special_tokens", None):
        told["extra_special_tokens"] = named
    return told


def oldest_transformers(values: Values) -> str:
    """Return the oldest version of transformers that reads a checkpoint correctly, from its config.json's values in either form."""
    needs = [_FAMILIES.get(values.get("model_type", ""), _OLDEST), *(_FEATURES[feature] for feature in _features(values))]
    return max(needs, key=lambda version: tuple(map(int, version.split("."))))


def _features(values: Values) -> set[str]:
    """Return which of what came later than its family a checkpoint uses."""
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
