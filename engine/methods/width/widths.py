"""Width: select the query heads, neurons and channels of a plan to keep, by a score (see engine/methods/width/scores.py).

Heads are ranked within their KV group, neurons within their layer, channels by the sum over layers; every layer keeps equally many.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from engine.errors import SettingsError
from engine.jobs import Job, scaled
from engine.methods.width.compensation import compensate, require_biases
from engine.methods.width.redistribution import redistribute
from engine.methods.width.refit import refit
from engine.methods.width.scores import AXES, SCORES, require_score, scores
from engine.methods.width.settings import COMPENSATIONS, TrimSettings
from engine.models.shapes import parameters_at, shape_of, shaped_config
from engine.models.texts import Pack, read_in
from engine.plans.trimming import trimmed_shape
from engine.types import Block, Model, Part, Plan, Shape, Trim


def require_width(model: Model, plan: Plan, kept: TrimSettings) -> Shape:
    """Return a plan's shape after a trim.

    Raises:
        SettingsError: nothing would be pruned, or a number is out of range.
        PlanError: the stock class does not support the shape.
    """
    now = trimmed_shape(shape_of(model.config), plan.blocks[0].trim)
    shape = narrowed(now, kept)
    if shape == now:
        raise SettingsError("nothing to prune: keep fewer heads, neurons or channels than the model has")
    shaped_config(model.config, shape)
    return shape


def narrowed(now: Shape, kept: TrimSettings) -> Shape:
    """Return a shape reduced to the kept numbers.

    Raises:
        SettingsError: a number is out of range for its axis.
    """
    for axis in AXES:
        wanted, there = getattr(kept, axis), getattr(now, axis)
        if wanted is not None and not 1 <= wanted <= there:
            raise SettingsError(
                "{wanted} of {there} {axis} cannot be kept; keep between 1 and {there}", wanted=wanted, axis=axis, there=there
            )
    heads = now.heads if kept.heads is None else kept.heads
    if heads % now.sharing:
        raise SettingsError(
            "{heads} query heads cannot be kept; choose a multiple of {groups}, since every KV group keeps the same number",
            heads=heads,
            groups=now.groups,
        )
    return replace(now.with_heads(heads), neurons=kept.neurons or now.neurons, channels=kept.channels or now.channels)


def kept_for_parameters(model: Model, plan: Plan, kept: TrimSettings, parameters: float) -> TrimSettings:
    """Return `kept` with the most neurons for which a plan has at most `parameters` parameters.

    Raises:
        SettingsError: `kept` already names neurons, or even one per layer is too many.
    """
    if kept.neurons is not None:
        raise SettingsError("give neurons or parameters, not both: a number of parameters is reached by pruning neurons")
    now = trimmed_shape(shape_of(model.config), plan.blocks[0].trim)
    shape = replace(now.with_heads(kept.heads or now.heads), depth=plan.depth, channels=kept.channels or now.channels)
    for neurons in range(now.neurons, 0, -1):
        if parameters_at(model.spec, replace(shape, neurons=neurons)) <= parameters:
            return replace(kept, neurons=neurons if neurons < now.neurons else None)
    raise SettingsError(
        "{parameters:.4g} million parameters cannot be reached by pruning neurons alone; prune heads, channels or layers too",
        parameters=parameters / 1e6,
    )


def trim(
    model: Model,
    plan: Plan,
    packs: Sequence[Pack],
    kept: TrimSettings,
    settings: Mapping[str, Any] | None = None,
) -> Job[Plan]:
    """Return a narrower plan, without its masks and earlier refits. `settings` are the score's own.

    Raises:
        SettingsError: the score is unknown or not defined for a cut axis, or the width, the bias or the compensation is not available.
        PlanError: the family's stock class does not support the shape.
    """
    require_width(model, plan, kept.checked())
    now = trimmed_shape(shape_of(model.config), plan.blocks[0].trim)
    asked = {axis: count for axis in AXES if (count := getattr(kept, axis)) not in (None, getattr(now, axis))}
    for axis in asked:
        require_score(kept.score, axis)
    score, compensation = kept.score, kept.compensation
    redistributed = kept.redistribute and "heads" in asked
    if compensation == "bias":
        require_biases(model, asked)
    begun = replace(plan.dense, blocks=tuple(_without_refits(block) for block in plan.dense.blocks))
    share = COMPENSATIONS[compensation]
    found = yield from scaled(scores(model, begun, packs, tuple(asked), score, settings), 0.0, share)
    picked = {axis: _kept_indices(axis, found[axis], count, now) for axis, count in asked.items()}
    blocks = [
        replace(block, trim=_trim(block.trim, {axis: one[place] for axis, one in picked.items()}, kept.plain))
        for place, block in enumerate(begun.blocks)
    ]
    done = {
        "refit": compensation == "refit",
        **({"bias": True} if compensation == "bias" else {}),
        **({"redistributed": True} if redistributed else {}),
    }
    facts = (*asked.items(), *asdict(SCORES[score].asked(settings or {})).items(), *done.items(), *read_in(packs))
    trimmed = replace(begun, blocks=tuple(blocks), width=Part(score, facts))
    if redistributed:
        trimmed = redistribute(model, begun, trimmed, found["heads"])
    if compensation == "bias":
        return (yield from scaled(compensate(model, begun, trimmed, packs, asked), share, 1.0))
    return (yield from scaled(refit(model, trimmed, packs), share, 1.0)) if compensation == "refit" else trimmed


def _without_refits(block: Block) -> Block:
    return replace(block, trim=block.trim and replace(block.trim, refits=()))


def _kept_indices(axis: str, found: Sequence[torch.Tensor], count: int, shape: Shape) -> list[tuple[int, ...]]:
    """Return the kept indices of an axis for each layer: the highest scores, the first of equal ones, in order."""
    if axis == "channels":
        found = [torch.stack(tuple(found)).sum(0)] * len(found)
    groups, kept = shape.sharing if axis == "heads" else 1, []
    for one in (layer.reshape(groups, -1) for layer in found):
        best = one.argsort(dim=1, descending=True, stable=True)[:, : count // groups].sort(1).values
        kept.append(tuple((best + torch.arange(len(one))[:, None] * one.shape[1]).flatten().tolist()))
    return kept


def _trim(before: Trim | None, picked: Mapping[str, tuple[int, ...]], plain: bool) -> Trim:
    """Return a block's trim: the picked subset of what it kept before."""
    before = before or Trim()

    def kept(axis: str, there: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if axis not in picked:
            return there
        return picked[axis] if there is None else tuple(there[index] for index in picked[axis])

    heads, neurons, channels = kept("heads", before.heads), kept("neurons", before.neurons), kept("channels", before.channels)
    return Trim(heads, neurons, channels, plain or before.plain)
