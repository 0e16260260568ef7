"""The kinds and ranges of values that settings may have, checked before transformers parses a config.

transformers accepts many values that give NaN or no model at all, and refuses others in its own terms.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers.activations import ACT2FN
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from engine.errors import SourceError
from engine.messages import Message

LAYER_TYPES = ("full_attention", "sliding_attention")
_DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True, slots=True)
class ValueKind:
    """What a value must be: in words, and as a test."""

    expected: str
    holds: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return type(value) is int


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(is_number(one) and one > 0 for one in value)


WHOLE = ValueKind(Message("a whole number above 0"), lambda value: _whole(value) and value > 0)
POSITIVE = ValueKind(Message("a number above 0"), lambda value: is_number(value) and value > 0)
BASE = ValueKind(Message("a number above 1"), lambda value: is_number(value) and value > 1)
SHARE = ValueKind(Message("a number above 0 and at most 1"), lambda value: is_number(value) and 0 < value <= 1)
FACTORS = ValueKind(Message("a list of numbers above 0"), _numbers)
FLAG = ValueKind(Message("true or false"), lambda value: isinstance(value, bool))
_ACTIVATION = ValueKind(Message("an activation function of transformers"), lambda value: isinstance(value, str) and value in ACT2FN)
_DTYPE = ValueKind(
    Message("a float type such as float32 or bfloat16"),
    lambda value: isinstance(value, str) and value in _DTYPES,
)
_TYPES = ValueKind(
    Message("a list of full_attention and sliding_attention"),
    lambda value: isinstance(value, list) and all(one in LAYER_TYPES for one in value),
)
_EPSILON = ValueKind(Message("a number above 0, such as 1e-06"), lambda value: isinstance(value, float) and value > 0)
_RANGES: dict[str, ValueKind] = {
    **dict.fromkeys(
        (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "head_dim", "n_embd", "n_inner", "n_layer", "n_head", "n_positions", "max_position_embeddings",
            "original_max_position_embeddings", "sliding_window",
        ),
        WHOLE,
    ),
    **dict.fromkeys(("rms_norm_eps", "layer_norm_epsilon"), _EPSILON),
    **dict.fromkeys(("query_pre_attn_scalar", "final_logit_softcapping"), POSITIVE),
    **dict.fromkeys(("rope_theta", "rope_local_base_freq"), BASE),
    **dict.fromkeys(("hidden_act", "hidden_activation", "activation_function"), _ACTIVATION),
    **dict.fromkeys(("dtype", "torch_dtype"), _DTYPE),
    "partial_rotary_factor": SHARE,
    "layer_types": _TYPES,
}  # fmt: skip
_ANNOTATED: dict[str, ValueKind] = {
    "bool": FLAG,
    "int": ValueKind(Message("a whole number"), _whole),
    "float": ValueKind(Message("a number"), is_number),
    "str": ValueKind(Message("a string"), lambda value: isinstance(value, str)),
    "list[int]": ValueKind(Message("a list of whole numbers"), lambda value: isinstance(value, list) and all(map(_whole, value))),
    "list[str]": ValueKind(
        Message("a list of strings"), lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value)
    ),
}
_OF_A_RUN = {"return_dict", "output_hidden_states", "is_encoder_decoder", "chunk_size_feed_forward"}  # always overwritten
_NEVER_NULL = ("rope_theta", "rope_local_base_freq", "partial_rotary_factor")  # transformers replaces a missing one, and fails on null


def fields_of(model_type: str) -> dict[str, set[str]]:
    """Return the settings that a family's stock config class has a field for, with the names of the types they may have."""
    fields = dataclasses.fields(CONFIG_MAPPING[model_type])
    return {field.name: _names(field.type) for field in fields}


def require_kinds(values: Mapping[str, Any]) -> None:
    """Raise SourceError where a setting of a config (plain JSON) is of another kind, or in another range, than the family reads."""
    fields = fields_of(values["model_type"])
    for name, value in values.items():
        if name in _OF_A_RUN or (value is None and not _needed(name, fields)):
            continue
        if name in _RANGES:
            require_kind(_RANGES[name], name, value)
        kinds = [_ANNOTATED[one] for one in sorted(fields.get(name, ())) if one in _ANNOTATED]
        if name not in _RANGES and kinds and not _open(fields[name]) and not any(kind.holds(value) for kind in kinds):
            require_kind(kinds[0], name, value)


def require_kind(kind: ValueKind, name: str, value: Any) -> None:
    """Raise SourceError, with the value and what is expected, if a setting is not of a kind."""
    if not kind.holds(value):
        raise SourceError(
            "the configuration says {name} = {value}; expected {expected}",
            name=name,
            value=json.dumps(value)[:60],
            expected=kind.expected,
        )


def _needed(name: str, fields: Mapping[str, set[str]]) -> bool:
    return name in _NEVER_NULL or (name in fields and "None" not in fields[name])


def _open(names: set[str]) -> bool:
    """Return whether a field may have a type that is not checked here."""
    return bool(names - {*_ANNOTATED, "None"})


def _names(annotation: Any) -> set[str]:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return {part.strip() for part in text.split("|")}
