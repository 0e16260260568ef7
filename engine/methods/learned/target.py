"""The target shape of Sheared LLaMA (2310.06694), and the kinds of masks that lead there."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.errors import SettingsError
from engine.methods.depth.baselines import require_target
from engine.methods.learned.masks import MaskKind
from engine.methods.width.settings import TrimSettings
from engine.methods.width.widths import narrowed
from engine.models.shapes import shape_of, shaped_config
from engine.types import Shape

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TARGETS = ("layers", "heads", "groups", "neurons", "channels")


def wanted_shape(config: "PretrainedConfig", target: Mapping[str, Any]) -> Shape:
    """Return the target shape of a model: the given numbers of some of TARGETS, all of the others. Every KV group keeps equally many heads;
    `groups` are KV groups, each removed with all of its heads.

    Raises:
        SettingsError: a target is unknown, not an integer, or more than the model has.
        PlanError: the family's stock class does not support the shape.
    """
    now = shape_of(config)
    for name, value in target.items():
        if name not in TARGETS:
            raise SettingsError("'{name}' cannot be a shearing target; choose from {choices}", name=name[:40], choices=", ".join(TARGETS))
        if isinstance(value, bool) or not isinstance(value, int):
            raise SettingsError(
                "{name} is {value!r}; write a whole number, such as {example}",
                name=name,
                value=value,
                example=getattr(now, name, now.depth),
            )
    if {"heads", "groups"} <= target.keys():
        raise SettingsError("name heads or groups, not both: a KV group is removed with all of its query heads")
    require_target(now.depth, target.get("layers", now.depth))
    groups = target.get("groups", now.groups)
    if not 1 <= groups <= now.groups:
        raise SettingsError(
            "{groups} of {available} KV groups cannot be kept; keep between 1 and {available}", groups=groups, available=now.groups
        )
    shape = narrowed(now, TrimSettings(target.get("heads"), target.get("neurons"), target.get("channels")))
    if "groups" in target:
        shape = replace(shape, groups=groups, heads=groups * now.per_group)
    shaped_config(config, shape)
    return replace(shape, depth=target.get("layers", now.depth))


def kinds_between(now: Shape, wanted: Shape) -> tuple[MaskKind, ...]:
    """Return the kinds of masks needed between two shapes: only of the axes to be reduced."""
    if wanted.groups < now.groups and now.sharing > 1:
        heads = MaskKind("heads", now.depth, now.groups, wanted.groups, now.per_group)
    else:
        heads = MaskKind("heads", now.depth * now.sharing, now.heads // now.sharing, wanted.heads // now.sharing, now.sharing)
    neurons = MaskKind("neurons", now.depth, now.neurons, wanted.neurons)
    layers, channels = MaskKind("layers", 1, now.depth, wanted.depth), MaskKind("channels", 1, now.channels, wanted.channels)
    return tuple(kind for kind in (layers, heads, neurons, channels) if kind.kept < kind.units)
