"""SLEB (Song et al. 2024, 2402.09025): repeatedly drop the layer whose removal costs least, measured each time.

The published code never removes the first or the last remaining layer (its two barriers are 1), and measures the loss of the texts. Here
any layer may be dropped, and the default objective is KL to the source; `perplexity` is the published one.
"""

import math

from engine.jobs import Job, Progress
from engine.judge.objectives import Found, Objective
from engine.messages import Message
from engine.methods.depth.baselines import BASELINES, plan_of_kept, require_target
from engine.settings import NoSettings
from engine.types import Plan


@BASELINES.register("sleb", "greedy: repeatedly drops the layer with the lowest measured cost", reference="2402.09025")
def sleb(objective: Objective, keep: int, settings: NoSettings) -> Job[Plan]:
    """Return the plan of `greedy`."""
    return (yield from greedy(objective, keep)).plan


def greedy(objective: Objective, keep: int) -> Job[Found]:
    """Return SLEB's plan: each round tries every remaining layer and drops the one without which the score is best."""
    depth = objective.model.spec.depth
    require_target(depth, keep)
    left = tuple(range(depth))
    score, tried, total = 0.0, 0, sum(range(keep + 1, depth + 1))
    began = objective.forwards
    watch = objective.watch()
    while len(left) > keep:
        best: tuple[float, int] | None = None
        for layer in left:
            yield Progress(
                Message("Trying to remove layer {layer}, {count} layers left", layer=layer, count=len(left)), tried / max(total, 1)
            )
            tried += 1
            rest = plan_of_kept(depth, (other for other in left if other != layer), "sleb")
            value = objective.score(rest)
            if best is None or _better(value, best[0]):
                best = (value, layer)
        assert best is not None
        score, left = best[0], tuple(other for other in left if other != best[1])
    plan = plan_of_kept(depth, left, "sleb", keep=keep, objective=objective.name, **dict(objective.recorded))
    return Found(plan, score, watch(), objective.forwards - began, "greedy")


def _better(a: float, b: float) -> bool:
    return a < b or (math.isnan(b) and not math.isnan(a))
