"""The Unreasonable Ineffectiveness of the Deeper Layers (Gromov et al. 2024, 2403.17887): drop one run of consecutive layers."""

from engine.jobs import Job
from engine.judge.objectives import Objective
from engine.methods.depth.baselines import BASELINES, plan_without
from engine.passes.profiling import profile
from engine.settings import NoSettings
from engine.types import Plan


@BASELINES.register("angular", "drops the run of layers that changes the angle of the last token's state least", reference="2403.17887")
def contiguous(objective: Objective, keep: int, settings: NoSettings) -> Job[Plan]:
    """Return the plan that drops the run of layers with the least angular distance between its input and its output."""
    depth = objective.model.spec.depth
    drop = depth - keep
    found = yield from profile(objective.records)
    first = min(range(keep + 1), key=lambda start: found.angular[start][start + drop])
    return plan_without(depth, range(first, first + drop), "angular", keep=keep, **dict(objective.recorded))
