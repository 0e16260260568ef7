"""Check a config's rotary settings against those transformers reads.

transformers only logs a rotary setting that it ignores, and logs nothing where an old and a new form disagree. In both cases the model
would run with other positions than its files specify.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from engine.errors import SourceError

# The settings each scaling type reads, as in transformers/modeling_rope_utils.py; every type reads the base `rope_theta`.
_YARN = {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}
_READ: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "dynamic": {"factor"},
    "yarn": _YARN,
    "longrope": {"factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"},
    "llama3": {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
}
_NEEDED = {
    "linear": {"factor"},
    "dynamic": {"factor"},
    "yarn": {"factor"},
    "longrope": {"short_factor", "long_factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor"},
}
_ALWAYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_WITHOUT_EFFECT = {"finetuned", "original_max_position_embeddings"}  # the second only for types that do not read it
_OLD_NAMES = {"su": "longrope"}


def require_rope_read(values: Mapping[str, Any]) -> None:
    """Raise SourceError where a config (plain JSON) has a rotary setting that would be ignored, or contradicts itself."""
    for where, rope in _settings(values):
        kind = _kind(where, rope)
        unread = [key for key, value in rope.items() if value is not None and key not in _READ[kind] | _ALWAYS | _WITHOUT_EFFECT]
        if unread:
            raise SourceError(
                "{where} sets {unread} = {rope}, which rotary scaling of type {kind} does not read",
                where=where,
                unread=unread[0],
                rope=json.dumps(rope[unread[0]])[:60],
                kind=kind,
            )
        if lacking := sorted(key for key in _NEEDED.get(kind, ()) if rope.get(key) is None):
            raise SourceError(
                "{where} has no {lacking}, which rotary scaling of type {kind} needs", where=where, lacking=lacking[0], kind=kind
            )
        factor = rope.get("factor")
        if factor is not None and (isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0):
            raise SourceError(
                "{where} has the factor {factor}, and a number above 0 is needed", where=where, factor=json.dumps(factor)[:60]
            )
    _require_agreement(values)


def _settings(values: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each group of rotary settings with its key; a group may apply to one layer type only."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = values.get(key)
        if rope is None or rope == {}:
            continue
        if not isinstance(rope, dict):
            raise SourceError("{key} is {rope}, and an object is needed", key=key, rope=json.dumps(rope)[:60])
        nested = {name: part for name, part in rope.items() if isinstance(part, dict)}
        if nested:
            yield from ((f"{key}.{name}", part) for name, part in nested.items())
        else:
            yield key, rope


def _kind(where: str, rope: Mapping[str, Any]) -> str:
    new, old = (_OLD_NAMES.get(str(rope[key]), str(rope[key])) if rope.get(key) is not None else None for key in ("rope_type", "type"))
    if new and old and new != old:
        raise SourceError("{where} says both rope_type = {new} and type = {old}", where=where, new=new, old=old)
    kind = new or old or "default"
    if kind == "yarn" and "short_factor" in rope:  # early Phi-3 checkpoints write "yarn" for longrope
        kind = "longrope"
    if kind not in _READ:
        raise SourceError(
            "{where} asks for rotary scaling of type '{kind}', which is not known; known are {choices}",
            where=where,
            kind=kind[:40],
            choices=", ".join(_READ),
        )
    return kind


def _require_agreement(values: Mapping[str, Any]) -> None:
    """Raise SourceError if the rotary settings in transformers 4's form differ from those in transformers 5's form."""
    new = values.get("rope_parameters")
    if not isinstance(new, dict) or not new:
        return
    full, sliding = new.get("full_attention"), new.get("sliding_attention")
    main: dict[str, Any] = full if isinstance(full, dict) else new
    local: dict[str, Any] = sliding if isinstance(sliding, dict) else {}
    pairs = [(name, values.get(name), main.get(name)) for name in ("rope_theta", "partial_rotary_factor")]
    pairs.append(("rope_local_base_freq", values.get("rope_local_base_freq"), local.get("rope_theta")))
    old = values.get("rope_scaling")
    if isinstance(old, dict) and old:
        pairs += [(f"rope_scaling.{key}", value, main.get(key)) for key, value in old.items() if key not in ("type", "rope_type")]
        pairs.append(("rope_scaling.rope_type", _kind("rope_scaling", old), _kind("rope_parameters", main)))
    for name, one, other in pairs:
        if one is not None and other is not None and one != other:
            raise SourceError(
                "the configuration says {name} = {one}, and rope_parameters says {other}",
                name=name,
                one=json.dumps(one)[:60],
                other=json.dumps(other)[:60],
            )
