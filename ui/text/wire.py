"""Records to JSON, for the terminal's files and for the page's charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engine.cache import plain
from engine.methods.depth.laco import Proposal, Trial
from engine.plans.files import plan_to_json

if TYPE_CHECKING:  # torch comes with it, which reading a file can do without
    from engine.judge.cost import Cost
    from engine.judge.evaluation import Evaluation
    from engine.judge.objectives import Found
    from engine.methods.width.minitron import RemovalPerplexity
    from engine.passes.profiling import Profile, WeightDistance
    from engine.search.ablation_rows import Ablation, Row
    from engine.search.frontier import Frontier, Step
    from engine.search.shapes import Candidate
    from engine.search.sweep import SweepEntry
    from engine.types import Block


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """Return one trial of Algorithm 1."""
    return asdict(trial)


def proposal_to_json(proposal: Proposal) -> dict[str, Any]:
    """Return a proposal: settings, trials, depth, plan."""
    return {
        "settings": dict(proposal.plan.settings),
        "trials": [trial_to_json(trial) for trial in proposal.trials],
        "depth": proposal.plan.depth,
        "plan": plan_to_json(proposal.plan),
    }


def cost_to_json(cost: Cost | None) -> dict[str, Any] | None:
    """Return a quick cost; None where there is none or its ratio is no number, and null for each other figure that is none."""
    return None if cost is None or not math.isfinite(cost.ratio) else plain(asdict(cost))


def step_to_json(step: Step, costs: Mapping[tuple[Block, ...], Cost] | None = None) -> dict[str, Any]:
    """Return one step of a T map, with its cost where costs were measured; it is a plan file too."""
    plan = step.proposal.plan
    cost = {} if costs is None else {"cost": cost_to_json(costs.get(plan.blocks))}
    return {"t_from": step.t_from, "t_to": step.t_to, "depth": plan.depth, **cost, "plan": plan_to_json(plan)}


def frontier_to_json(frontier: Frontier, costs: Mapping[tuple[Block, ...], Cost] | None = None) -> dict[str, Any]:
    """Return a T map: the settings all its steps share, the steps from the highest T down, and whether those come down to t_min."""
    shared = {key: value for key, value in frontier.steps[0].proposal.plan.settings if key != "T"}
    steps = [step_to_json(step, costs) for step in frontier.steps]
    return {"settings": {**shared, "t_min": frontier.t_min}, "complete": frontier.complete, "steps": steps}


def sweep_to_json(entries: Sequence[SweepEntry]) -> dict[str, Any]:
    """Return a sweep's plans in their order, each with a setting that gives it; each is a plan file too."""
    return {"plans": [_entry_to_json(entry) for entry in entries]}


def _entry_to_json(entry: SweepEntry) -> dict[str, Any]:
    setting = {"rule": entry.rule, "C": entry.C, "I": entry.I, "T": entry.T}
    return {**setting, "depth": entry.plan.depth, "cost": cost_to_json(entry.cost), "plan": plan_to_json(entry.plan)}


def profile_to_json(profile: Profile, weights: WeightDistance | None, without: RemovalPerplexity | None) -> dict[str, Any]:
    """Return a profile, with the figures of each layer gathered under "layers"."""
    depth = len(profile.layers)
    layers = [asdict(layer) for layer in profile.layers]
    for index, layer in enumerate(layers):
        layer["angular_distance"] = {str(span): profile.angular[index][index + span] for span in range(1, depth - index + 1)}
        if without is not None:
            layer["perplexity_without"] = without.removed[index]
    return {
        "similarity": profile.similarity,
        "similarity_rest": profile.similarity_rest,
        "angular": profile.angular,
        "layers": layers,
        "norms": asdict(profile.norms),
        "tokens": profile.tokens,
        "texts": profile.texts,
        "weight_distance": asdict(weights) if weights else None,
        "perplexity": without.source if without else None,
    }


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return what a plan was judged to cost; "interval" bounds the ratio at 95 %."""
    return {
        "perplexity": {
            "source": evaluation.source_perplexity,
            "plan": evaluation.plan_perplexity,
            "ratio": evaluation.ratio,
            "interval": [evaluation.ratio_low, evaluation.ratio_high],
        },
        "kl": evaluation.kl,
        "top1_agreement": evaluation.top1_agreement,
        "cosine": evaluation.cosine,
        "protocol": asdict(evaluation.protocol),
        "texts": [asdict(score) for score in evaluation.texts],
    }


def search_to_json(found: Sequence[Found], others: Mapping[str, tuple[float, float]] | None = None) -> dict[str, Any]:
    """Return a search: the best plan and its score, every improvement on the way, and what others find for as many layers:
    their scores, and how many times the optimum those are."""
    best = found[-1]
    history = [{"score": f.score, "seconds": f.seconds, "forwards": f.forwards, "stage": f.stage} for f in found]
    answer = {"score": best.score, "depth": best.plan.depth, "plan": plan_to_json(best.plan), "history": history}
    if others is not None:
        answer["others"] = {name: {"score": score, "times": ratio} for name, (score, ratio) in others.items()}
    return answer


def ablation_to_json(ablation: Ablation) -> dict[str, Any]:
    """Return an ablation with each row's plan; figures that are NaN or infinite are left so."""
    return {
        "name": ablation.name,
        "question": ablation.question,
        "rows": [_row_to_json(row) for row in ablation.rows],
        **({"telling": [asdict(entry) for entry in ablation.telling]} if ablation.telling else {}),
    }


def _row_to_json(row: Row) -> dict[str, Any]:
    judged = row.evaluation
    return {
        "label": row.label,
        "settings": dict(row.settings.items()),
        "depth": row.depth,
        "folds": list(row.folds),
        "similarity": row.similarity,
        "ratio": judged.ratio,
        "interval": [judged.ratio_low, judged.ratio_high],
        "kl": judged.kl,
        "measures": dict(row.measures),
        "plan": plan_to_json(row.plan),
    }


def shapes_to_json(found: Sequence[Candidate]) -> dict[str, Any]:
    """Return what `shapes` writes: the candidates as they stand, the measured ones first; by their places which of those no other
    beats in parameters and cost (the front) and in decode speed and cost; how well rankings would have chosen; the best plan."""
    from engine.search.candidates import fastest, front, rankings, smallest

    order = sorted(found, key=lambda one: one.estimate)
    by_estimate = {one.shape: rank for rank, one in enumerate(order)}
    rows = [
        {
            "shape": asdict(one.shape),
            "parameters": one.parameters,
            "estimate": one.estimate,
            "by_estimate": by_estimate[one.shape],
            "by_size": one.by_size,
            "cost": cost_to_json(one.cost),
            "speed": None if one.speed is None else asdict(one.speed),
        }
        for one in found
    ]
    fronts = {"front": front(found, smallest), "fast_front": front(found, fastest)}
    best = {"plan": plan_to_json(found[0].plan)} if found and found[0].plan else {}
    return {"shapes": rows, **fronts, "rankings": [asdict(one) for one in rankings(found)], **best}
