"""Which layers others would drop: every baseline is an ordinary plan that keeps some layers whole.

`bi`       ShortGPT (2403.03853): the layers of least block influence, all at once.
`angular`  The Unreasonable Ineffectiveness of the Deeper Layers (2403.17887): the run of layers that turns the last
           token's state least.
`sleb`     SLEB (2402.09025): again and again the layer whose removal costs least, measured (KL here, or perplexity).
`tail`     the last layers: the trivial baseline.
`random`   seeded; what a choice without any measurement gives.
"""

import math
import random
from collections.abc import Iterable

from engine.errors import SettingsError
from engine.jobs import Job, Progress
from engine.judge.objectives import Found, Objective
from engine.passes.profiling import profile
from engine.types import Block, DepthPlan

BASELINES = ("bi", "angular", "sleb", "tail", "random")


def plan_of_kept(depth: int, kept: Iterable[int], method: str, **settings: object) -> DepthPlan:
    """Return the plan that keeps these layers whole and drops the others."""
    return DepthPlan(depth, tuple(Block(layer, ((layer, 1.0),)) for layer in sorted(kept)), method, tuple(settings.items()))


def require_target(depth: int, keep: int) -> None:
    """Raise SettingsError unless between 1 and `depth` layers are to be kept."""
    if not 1 <= keep <= depth:
        raise SettingsError(f"{keep} layers cannot be kept of {depth}; the nearest that can is {min(max(keep, 1), depth)}")


def require_baseline(method: str) -> None:
    """Raise SettingsError unless a baseline has this name."""
    if method not in BASELINES:
        raise SettingsError(f"unknown baseline '{method}'; choose one of {', '.join(BASELINES)}")


def baseline(objective: Objective, method: str, keep: int, seed: int = 0) -> Job[DepthPlan]:
    """Return a baseline's plan for a number of layers to keep.

    Raises:
        SettingsError: the method is unknown, or the model does not have so many layers.
    """
    require_baseline(method)
    depth = objective.model.spec.depth
    require_target(depth, keep)
    if method == "sleb":
        return (yield from greedy(objective, keep)).plan
    drop = depth - keep
    if method == "tail":
        gone = list(range(keep, depth))
    elif method == "random":
        return plan_of_kept(depth, random.Random(seed).sample(range(depth), keep), method, keep=keep, seed=seed)
    else:
        found = yield from profile(objective.records)
        if method == "bi":
            gone = sorted(range(depth), key=lambda layer: found.layers[layer].block_influence)[:drop]
        else:
            first = min(range(depth - drop + 1), key=lambda start: found.angular[start][start + drop])
            gone = list(range(first, first + drop))
    return plan_of_kept(depth, set(range(depth)) - set(gone), method, keep=keep)


def greedy(objective: Objective, keep: int) -> Job[Found]:
    """Return SLEB's plan: in each round every layer left is tried, and the one goes without which the score is best."""
    depth = objective.model.spec.depth
    require_target(depth, keep)
    left = tuple(range(depth))
    score, tried, total = 0.0, 0, sum(range(keep + 1, depth + 1))
    began = objective.forwards
    watch = objective.watch()
    while len(left) > keep:
        best: tuple[float, int] | None = None
        for layer in left:
            yield Progress(f"Trying without layer {layer}, {len(left)} left", tried / max(total, 1))
            tried += 1
            rest = plan_of_kept(depth, (other for other in left if other != layer), "sleb")
            value = objective.score(rest)
            if best is None or _better(value, best[0]):
                best = (value, layer)
        assert best is not None
        score, left = best[0], tuple(other for other in left if other != best[1])
    plan = plan_of_kept(depth, left, "sleb", keep=keep, objective=objective.name)
    return Found(plan, score, watch(), objective.forwards - began, "greedy")


def _better(a: float, b: float) -> bool:
    return a < b or (math.isnan(b) and not math.isnan(a))
