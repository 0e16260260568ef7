"""A model's widths (heads, neurons, channels), the widths its stock class can load, and the parameter count at any of them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from math import prod
from typing import TYPE_CHECKING, Any

from engine.errors import PlanError
from engine.models.families import Architecture, architecture_of, depth_of
from engine.types import ModelSpec, Shape, Terms

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def shape_of(config: "PretrainedConfig") -> Shape:
    """Return the shape of the model that a transformers config describes."""
    heads = config.num_attention_heads
    neurons = config.n_inner or 4 * config.hidden_size if hasattr(config, "n_inner") else config.intermediate_size
    return Shape(
        depth=depth_of(config),
        heads=heads,
        groups=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        neurons=neurons,
        channels=config.hidden_size,
    )


def shaped_config(config: "PretrainedConfig", shape: Shape) -> Any:
    """Return a config with the widths of `shape` and its own depth; head_dim is written explicitly, and rms_norm_eps is scaled by the
    change in channels.

    Raises:
        PlanError: the family's stock class does not support the shape.
    """
    old = shape_of(config)
    for axis, same in (("heads", shape.heads == old.heads), ("channels", shape.channels == old.channels)):
        if not same and (reason := architecture_of(config).fixed.get(axis)):
            raise PlanError("the {axis} of {model_type} cannot be pruned: {reason}", axis=axis, model_type=config.model_type, reason=reason)
    if not 1 <= shape.groups <= shape.heads or shape.heads % shape.groups:
        raise PlanError("{heads} query heads cannot share {groups} KV groups evenly", heads=shape.heads, groups=shape.groups)
    values = config.to_dict()
    if "n_inner" in values:
        values["n_inner"] = shape.neurons
    else:
        values |= {"hidden_size": shape.channels, "intermediate_size": shape.neurons, "head_dim": shape.head_dim}
        values |= {"num_attention_heads": shape.heads, "num_key_value_heads": shape.groups}
        values["rms_norm_eps"] = config.rms_norm_eps * old.channels / shape.channels
    try:
        return type(config).from_dict(values)
    except Exception as error:  # each config class validates in its own way
        raise PlanError(
            "{model_type} does not support {heads} heads, {neurons} neurons and {channels} channels: {error}",
            model_type=config.model_type,
            heads=shape.heads,
            neurons=shape.neurons,
            channels=shape.channels,
            error=str(error).strip().splitlines()[-1].strip(),
        ) from error


def legal_heads(config: "PretrainedConfig") -> tuple[int, ...]:
    """Return the numbers of query heads that can be kept, ascending: equally many in every KV group (any number where each head has its own
    key and value), and only counts that the stock class loads at the model's own channels."""
    shape = shape_of(config)
    tried = [shape.with_heads(heads) for heads in range(shape.sharing, shape.heads + 1, shape.sharing)]
    return tuple(one.heads for one in tried if one == shape or _loads(config, one))


def legal_channels(config: "PretrainedConfig", heads: int | None = None, step: int = 1) -> tuple[int, ...]:
    """Return the numbers of channels that can be kept with `heads` query heads, ascending: multiples of `step`, and all channels."""
    shape = shape_of(config)
    if "channels" in architecture_of(config).fixed:
        return (shape.channels,)
    narrowed = shape.with_heads(heads or shape.heads)
    tried = [replace(narrowed, channels=count) for count in (*range(step, shape.channels, step), shape.channels)]
    return tuple(one.channels for one in tried if _loads(config, one))


def _loads(config: "PretrainedConfig", shape: Shape) -> bool:
    try:
        shaped_config(config, shape)
    except PlanError:
        return False
    return True


def block_terms(row: Architecture, parameters: Iterable[tuple[str, Any]]) -> Terms:
    """Return a block's parameter count as a sum of products of axes, from its named parameters."""
    found: Counter[tuple[str, ...]] = Counter()
    for name, tensor in parameters:
        module, _, kind = name.rpartition(".")
        if module in row.projections:
            writes, reads = row.projections[module]
            for part in writes.split("+"):
                found[(part, reads) if kind == "weight" else (part,)] += 1
        elif module in row.norms:
            found["channel",] += 1
        else:
            found[()] += tensor.numel()
    return tuple(sorted(found.items()))


def outer_terms(row: Architecture, parameters: Iterable[tuple[str, Any]], channels: int) -> Terms:
    """Return the parameter count outside the blocks as a sum of products of axes."""
    found: Counter[tuple[str, ...]] = Counter()
    for name, tensor in parameters:
        if not name.startswith(f"{row.blocks}."):
            cut = tensor.shape[-1] == channels
            found[("channel",) if cut else ()] += tensor.numel() // (channels if cut else 1)
    return tuple(sorted(found.items()))


def count(terms: Terms, shape: Shape) -> int:
    """Return the value of the terms at a shape: a number of parameters."""
    return sum(times * prod(shape.size(axis) for axis in axes) for axes, times in terms)


def parameters_at(spec: ModelSpec, shape: Shape) -> int:
    """Return a model's number of parameters at a shape, depth included."""
    return count(spec.outer_terms, shape) + shape.depth * count(spec.block_terms, shape)


def facts_of(config: "PretrainedConfig", spec: ModelSpec) -> dict[str, Any]:
    """Return, as JSON, what is needed to compute a model's size at any width: its shape, its parameter terms, the step of the query heads,
    whether channels must be a multiple of the heads, and the fixed axes with their reasons."""
    shape, row = shape_of(config), architecture_of(config)
    odd = replace(shape, channels=shape.channels - 1)
    return {
        "family": config.model_type,
        "shape": asdict(shape),
        "groups_of": shape.sharing,
        "divides": "channels" not in row.fixed and shape.heads > 1 and odd.channels % shape.heads > 0 and not _loads(config, odd),
        "fixed": dict(row.fixed),
        "block": [[list(axes), often] for axes, often in spec.block_terms],
        "outer": [[list(axes), often] for axes, often in spec.outer_terms],
        "parameters": spec.parameters,
        "unit": spec.bytes_per_parameter,
        "dtype": spec.dtype,
    }
