"""Baselines: published rules for dropping layers. Each returns an ordinary plan of whole layers and is a file in this package."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from engine.errors import SettingsError
from engine.jobs import Job
from engine.settings import Registry
from engine.types import Block, Plan

if TYPE_CHECKING:  # imports torch, which the terminal's help does not need
    from engine.judge.objectives import Objective

BASELINES: Registry[Callable[..., Job[Plan]]] = Registry("baseline", __package__)


def plan_of_kept(depth: int, kept: Iterable[int], method: str, **settings: object) -> Plan:
    """Return the plan that keeps these layers whole and drops the others."""
    return Plan(depth, tuple(Block(layer, ((layer, 1.0),)) for layer in sorted(kept)), method, tuple(settings.items()))


def plan_without(depth: int, gone: Iterable[int], method: str, **settings: object) -> Plan:
    """Return the plan that drops these layers and keeps the others whole."""
    return plan_of_kept(depth, set(range(depth)) - set(gone), method, **settings)


def require_target(depth: int, keep: int) -> None:
    """Raise SettingsError unless `keep` is between 1 and `depth` layers."""
    if not 1 <= keep <= depth:
        raise SettingsError(
            "{keep} of {depth} layers cannot be kept; the nearest possible number is {min}",
            keep=keep,
            depth=depth,
            min=min(max(keep, 1), depth),
        )


def baseline(objective: Objective, method: str, keep: int, **settings: Any) -> Job[Plan]:
    """Return a baseline's plan that keeps `keep` layers; `settings` that the baseline does not have are ignored.

    Raises:
        SettingsError: the method is unknown, or the model has fewer layers.
    """
    chosen = BASELINES.require(method)
    require_target(objective.model.spec.depth, keep)
    return (yield from chosen.run(objective, keep, chosen.asked(settings)))
