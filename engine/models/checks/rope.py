"""Check a config's rotary settings against those transformers reads.

transformers only logs a rotary setting that it ignores, and logs nothing where two forms of a setting disagree. In both cases the model
would run with other positions than its files specify. So what a class kept is compared with every statement in the file.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engine.errors import SourceError
from engine.models.checks.kinds import BASE, FACTORS, FLAG, POSITIVE, SHARE, WHOLE, is_number, require_kind
from engine.models.families import architecture_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

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
_KINDS = {
    **dict.fromkeys(("factor", "attention_factor", "beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor"), POSITIVE),
    **dict.fromkeys(("mscale", "mscale_all_dim"), POSITIVE),
    **dict.fromkeys(("short_factor", "long_factor"), FACTORS),
    "rope_theta": BASE,
    "partial_rotary_factor": SHARE,
    "original_max_position_embeddings": WHOLE,
    "truncate": FLAG,
}
_ORDERED = (("low_freq_factor", "high_freq_factor", None, None), ("beta_slow", "beta_fast", 1, 32))  # with transformers' defaults
_FULL, _SLIDING = "full_attention", "sliding_attention"


def require_rope_read(values: Mapping[str, Any]) -> None:
    """Raise SourceError where a config (plain JSON) has a rotary setting that no class reads, or that is out of its range."""
    for where, rope in _settings(values):
        kind = _kind(where, rope)
        unread = [key for key, value in rope.items() if value is not None and key not in _READ[kind] | _ALWAYS | _WITHOUT_EFFECT]
        if unread:
            raise SourceError(
                "{where} sets {unread} = {rope}, which rotary scaling of type {kind} does not use",
                where=where,
                unread=unread[0],
                rope=json.dumps(rope[unread[0]])[:60],
                kind=kind,
            )
        if lacking := sorted(key for key in _NEEDED.get(kind, ()) if rope.get(key) is None):
            raise SourceError(
                "{where} has no {lacking}, which rotary scaling of type {kind} needs", where=where, lacking=lacking[0], kind=kind
            )
        for key, value in rope.items():
            if key in _KINDS and (value is not None or key == "rope_theta"):
                require_kind(_KINDS[key], f"{where}.{key}", value)
        _require_order(where, rope, kind)
        _require_length(where, rope, values)


def require_rope_kept(values: Mapping[str, Any], config: "PretrainedConfig", network: "PreTrainedModel") -> None:
    """Raise SourceError where a rotary setting of a config (plain JSON) is not among those from which its network computes.

    A network's buffers of frequencies tell whether it reads one group of settings, or one for each type of layer.
    """
    kept, read = getattr(network.config, "rope_parameters", None), _groups_read(network)
    if not isinstance(kept, dict) or not read:
        return
    _require_share(kept, read, config, network)
    for where, groups, key, value in _statements(values, read):
        unused = {_FULL, _SLIDING} - read if "" not in read else set()  # layer types that this model does not have
        for group in set(groups) - unused if value is not None else ():
            rope = kept if group == "" else kept.get(group)
            if group not in read or not isinstance(rope, dict) or not _holds(key, value, rope, config):
                raise SourceError(
                    "the configuration says {where} = {value}, but {name} uses {kept}; remove the wrong one",
                    where=where,
                    value=json.dumps(value)[:60],
                    name=type(network).__name__,
                    kept=json.dumps(kept)[:200],
                )


def _groups_read(network: "PreTrainedModel") -> set[str]:
    """Return the groups of rotary settings that a network reads: "" for a single one, or types of layers."""
    names = {name.rpartition(".")[2] for name, _ in network.named_buffers() if name.endswith("inv_freq")}
    return {name.removesuffix("inv_freq").rstrip("_") for name in names if "original" not in name}


def _statements(values: Mapping[str, Any], read: set[str]) -> Iterator[tuple[str, tuple[str, ...], str, Any]]:
    """Yield each rotary statement of a config: where it stands, the groups it is about, its key and its value.

    Version 4's settings are those of full attention where a network reads several groups.
    """
    main = ("",) if "" in read else (_FULL,)
    for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
        yield key, main, key, values.get(key)
    yield "rope_local_base_freq", (_SLIDING,), "rope_theta", values.get("rope_local_base_freq")
    for where, rope in _settings(values):
        form, _, part = where.partition(".")
        groups = (part,) if part else main if form == "rope_scaling" else tuple(sorted(read))
        yield f"{where}.rope_type", groups, "rope_type", _kind(where, rope)
        yield from ((f"{where}.{key}", groups, key, value) for key, value in rope.items() if key not in ("type", "rope_type"))


def _holds(key: str, value: Any, rope: Mapping[str, Any], config: "PretrainedConfig") -> bool:
    """Return whether a statement agrees with the settings that a class kept, or has no effect next to them."""
    kind = _kind("", rope)
    if key == "finetuned" or (key == "original_max_position_embeddings" and kind in ("default", "linear")):
        return True
    if key == "rope_type":
        return bool(value == kind)
    if key == "original_max_position_embeddings" and kind == "dynamic":  # it reads max_position_embeddings
        return bool(value == config.max_position_embeddings)
    return bool(rope.get(key, 1.0 if key == "partial_rotary_factor" else None) == value)


def _require_share(kept: Mapping[str, Any], read: set[str], config: "PretrainedConfig", network: "PreTrainedModel") -> None:
    """Raise SourceError if the stock class ignores the config's partial_rotary_factor, or computes from another one."""
    partial = "partial_rotary_factor" in architecture_of(config).read
    sizes = {buffer.shape[-1] for name, buffer in network.named_buffers() if name.endswith("inv_freq")}
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for group in read:
        share = ((kept.get(group) or {}) if group else kept).get("partial_rotary_factor")
        if share is not None and (int(head * share) // 2 not in sizes or not (partial or share == 1)):
            raise SourceError(
                "the configuration says partial_rotary_factor = {share}, which {name} does not use",
                share=share,
                name=type(network).__name__,
            )


def _settings(values: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each group of rotary settings with its key; a group may apply to one layer type only."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = values.get(key)
        if rope is None or rope == {}:
            continue
        if not isinstance(rope, dict):
            raise SourceError("{key} is {rope}; expected an object", key=key, rope=json.dumps(rope)[:60])
        nested = {name: part for name, part in rope.items() if isinstance(part, dict)}
        if plain := [name for name, part in rope.items() if nested and name not in nested and part is not None]:
            raise SourceError(
                "{key} contains both {plain} and {nested}; write either settings or one object for each layer type",
                key=key,
                plain=plain[0],
                nested=next(iter(nested)),
            )
        yield from ((f"{key}.{name}", part) for name, part in nested.items()) if nested else [(key, rope)]


def _kind(where: str, rope: Mapping[str, Any]) -> str:
    new, old = (str(rope[key]) if rope.get(key) is not None else None for key in ("rope_type", "type"))
    if new and old and new != old and where:
        raise SourceError("{where} says both rope_type = {new} and type = {old}; remove the wrong one", where=where, new=new, old=old)
    kind = new or old or "default"
    if kind == "yarn" and "short_factor" in rope:  # early Phi-3 checkpoints write "yarn" for longrope
        kind = "longrope"
    if kind == "su":
        raise SourceError("{where} has the type su, an old name of longrope in Phi-3; write longrope instead", where=where)
    if kind not in _READ:
        raise SourceError(
            "{where} asks for rotary scaling of unknown type '{kind}'; supported types: {choices}",
            where=where,
            kind=kind[:40],
            choices=", ".join(_READ),
        )
    return kind


def _require_order(where: str, rope: Mapping[str, Any], kind: str) -> None:
    for low, high, least, most in _ORDERED:
        one, other = rope.get(low) or least, rope.get(high) or most
        if one and other and {low, high} <= _READ[kind] and one >= other:
            raise SourceError(
                "{where} has {low} = {one} and {high} = {other}; {low} must be smaller",
                where=where,
                low=low,
                one=one,
                high=high,
                other=other,
            )


def _require_length(where: str, rope: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raise SourceError if a list of factors has another length than half the rotated part of a head."""
    heads, hidden = values.get("num_attention_heads"), values.get("hidden_size")
    head = values.get("head_dim") or (hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads else None)
    share = rope.get("partial_rotary_factor") or values.get("partial_rotary_factor") or 1.0
    if not isinstance(head, int) or not is_number(share):
        return
    for name in ("short_factor", "long_factor"):
        if name in rope and len(rope[name]) != int(head * share) // 2:
            raise SourceError(
                "{where}.{name} has {count} numbers; expected {expected}, half of a head's rotated channels",
                where=where,
                name=name,
                count=len(rope[name]),
                expected=int(head * share) // 2,
            )
