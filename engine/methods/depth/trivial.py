"""Baselines without any measurement: drop the last layers, or random layers."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.jobs import Job, Progress
from engine.messages import Message
from engine.methods.depth.baselines import BASELINES, plan_of_kept, plan_without
from engine.settings import NoSettings, control
from engine.types import Plan

if TYPE_CHECKING:
    from engine.judge.objectives import Objective


@dataclass(frozen=True, slots=True)
class RandomSettings:
    """Settings of the random choice."""

    seed: int = field(default=0, metadata=control("random seed of the choice", 0, None, 1))


@BASELINES.register("tail", "drops the last layers")
def tail(objective: Objective, keep: int, settings: NoSettings) -> Job[Plan]:
    """Return the plan that keeps the first layers."""
    yield Progress(Message("Choosing layers"))
    depth = objective.model.spec.depth
    return plan_without(depth, range(keep, depth), "tail", keep=keep)


@BASELINES.register("random", "drops random layers", RandomSettings)
def at_random(objective: Objective, keep: int, settings: RandomSettings) -> Job[Plan]:
    """Return the plan that keeps a seeded sample of the layers."""
    yield Progress(Message("Choosing layers"))
    depth = objective.model.spec.depth
    kept = random.Random(settings.seed).sample(range(depth), keep)
    return plan_of_kept(depth, kept, "random", keep=keep, seed=settings.seed)
