"""ShortGPT (Men et al. 2024, 2403.03853): drop the layers of least block influence, all at once."""

from engine.jobs import Job
from engine.judge.objectives import Objective
from engine.methods.depth.baselines import BASELINES, plan_without
from engine.passes.profiling import profile
from engine.settings import NoSettings
from engine.types import Plan


@BASELINES.register("bi", "ShortGPT: drops the layers of least block influence, all at once", reference="2403.03853")
def least_influence(objective: Objective, keep: int, settings: NoSettings) -> Job[Plan]:
    """Return the plan that drops the layers whose input and output are most alike (least 1 - mean cosine)."""
    depth = objective.model.spec.depth
    found = yield from profile(objective.records)
    ranked = sorted(range(depth), key=lambda layer: found.layers[layer].block_influence)
    return plan_without(depth, ranked[: depth - keep], "bi", keep=keep, **dict(objective.recorded))
