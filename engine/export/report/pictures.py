"""The drawings of a report: the layer strip as shapes, and the data of its charts."""

import math
from collections.abc import Sequence
from typing import Any

from engine.cache import plain
from engine.judge.cost import LEVELS
from engine.judge.evaluation import Evaluation
from engine.passes.profiling import Profile
from engine.plans.description import Say, in_english, runs, weigh
from engine.search.frontier import Frontier
from engine.types import Block, ModelSpec, Plan

# another plan evaluated with the same protocol: label, depth, parameters, ratio, low, high
Other = tuple[str, int, int, float, float, float]

KINDS = {
    "kept": ("kept", "kept unchanged"),
    "home": ("folded", "other layers fold into it; it keeps its position and its norms"),
    "donor": ("absorbed", "absorbed: its projections become part of the layer it folds into"),
    "gone": ("dropped", "dropped: removed entirely"),
}


def strip(plan: Plan, upright: bool, say: Say = in_english) -> dict[str, Any]:
    """Return the strip's shapes: source layers in one row, the plan's blocks in the next, and links between them.

    Lengths are SVG units. `upright` turns rows into columns, for narrow screens, with room for a word in each cell.
    """
    depth = plan.source_depth
    cell, high, between = (22.0, 128.0, 64.0) if upright else (max(min(960 / depth, 56.0), 8.0), 34.0, 48.0)
    gap = 3.0 if cell > 14 else 1.5
    homes, donors = {block.home: block for block in plan.blocks}, {layer for block in plan.blocks for layer, _ in block.mix}
    shift = (depth - plan.depth) * cell / 2  # centres the plan's row

    def cell_of(along: float, row: int, kind: str, layer: int, **more: Any) -> dict[str, Any]:
        a, b = along + gap / 2, row * (high + between) + 2
        box = (b, a, high, cell - gap) if upright else (a, b, cell - gap, high)
        return {"box": tuple(round(value, 2) for value in box), "kind": kind, "layer": layer, "row": row, "repaired": False, **more}

    cells, links = [], []
    for layer in range(depth):
        block = homes.get(layer)
        kind = ("home" if folded(block) else "kept") if block else "donor" if layer in donors else "gone"
        cells.append(
            cell_of(layer * cell, 0, kind, layer, title=say("Source layer {layer}: {meaning}", layer=layer, meaning=say(KINDS[kind][1])))
        )
    for place, block in enumerate(plan.blocks):
        layers, left = [block.home, *(layer for layer, _ in block.mix)], shift + place * cell
        ends = [min(layers) * cell + gap / 2, (max(layers) + 1) * cell - gap / 2, left + cell - gap / 2, left + gap / 2]
        points = [(along, 2 + high + (between if corner > 1 else 0)) for corner, along in enumerate(ends)]
        outline = " ".join(f"{y:.2f},{x:.2f}" if upright else f"{x:.2f},{y:.2f}" for x, y in points)
        links.append({"points": outline, "folded": folded(block)})
        mix = " + ".join(f"{layer}" if weight == 1 else f"{weight:.3g}·{layer}" for layer, weight in block.mix)
        facts = {"place": place, "home": block.home, "mix": mix}
        if block.repair:
            title = say("Block {place} replaces layer {home}, projections of {mix}, repaired", **facts)
        else:
            title = say("Block {place} replaces layer {home}, projections of {mix}", **facts)
        kind = "home" if folded(block) else "kept"
        cells.append(cell_of(left, 1, kind, block.home, title=title, place=place, mix=mix, repaired=bool(block.repair)))
    width, height = (2 * high + between + 4, depth * cell + 2) if upright else (depth * cell + 2, 2 * high + between + 4)
    words = {kind: tuple(map(say, facts)) for kind, facts in KINDS.items()}
    return {"cells": cells, "links": links, "width": width, "height": height, "cell": cell, "upright": upright, "words": words}


def folded(block: Block) -> bool:
    """Return whether a block's projections differ from its home layer's."""
    return block.mix != ((block.home, 1.0),)


def charts(profile: Profile, plan: Plan, evaluation: Evaluation | None, frontier: Frontier | None) -> dict[str, Any]:
    """Return the data for the page's script: plain JSON, floats to six digits, NaN and infinity as null."""
    touched = sorted(set(range(plan.source_depth)) - {b.home for b in plan.blocks} | {b.home for b in plan.blocks if folded(b)})
    shown: dict[str, Any] = {
        "similarity": profile.similarity,
        "influence": [layer.block_influence for layer in profile.layers],
        "touched": touched,
        "runs": runs(touched),
        "depth": plan.depth,
    }
    if evaluation is not None:
        rises = [((text.plan_nll - text.source_nll) / text.tokens, text.tokens) for text in evaluation.texts]
        shown["texts"] = [{"ratio": math.exp(min(rise, 700.0)), "tokens": tokens} for rise, tokens in rises]
        shown |= {"ratio": evaluation.perplexity.ratio, "low": evaluation.perplexity.interval[0], "high": evaluation.perplexity.interval[1]}
    if frontier is not None:
        shown["steps"] = [{"from": step.t_from, "to": step.t_to, "depth": step.proposal.plan.depth} for step in frontier.steps]
        shown["chosen"] = next((i for i, step in enumerate(frontier.steps) if step.proposal.plan.blocks == plan.blocks), None)
    rounded: dict[str, Any] = plain(shown, 6)
    return rounded


def cost_against_size(
    spec: ModelSpec, plan: Plan, evaluation: Evaluation | None, others: Sequence[Other], say: Say = in_english
) -> dict[str, Any]:
    """Return the points of the chart of cost against size: the plan and the other plans, as far as their cost is known.

    `axis` is the unit of the sizes; `limits` are the ratios between cost levels.
    """
    units = ((1e9, say("billions of parameters")), (1e6, say("millions of parameters")), (1.0, say("parameters")))
    unit, axis = next(known for known in units if spec.parameters >= known[0])
    own = (
        None if evaluation is None else (evaluation.perplexity.ratio, evaluation.perplexity.interval[0], evaluation.perplexity.interval[1])
    )
    points = [(None, plan.depth, weigh(spec, plan)[0], *own)] if own else []
    shown = [
        {"label": label, "depth": depth, "size": parameters / unit, "ratio": ratio, "low": low, "high": high}
        for label, depth, parameters, ratio, low, high in (*points, *others)
        if math.isfinite(ratio)
    ]
    limits = [limit for limit, _, _ in LEVELS if math.isfinite(limit)]
    drawn: dict[str, Any] = plain({"points": shown, "axis": axis, "source": spec.parameters / unit, "limits": limits}, 6)
    return drawn
