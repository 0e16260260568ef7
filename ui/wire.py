"""Records to the JSON that leaves the program: the terminal's files and what the page hands to its charts."""

from dataclasses import asdict
from typing import Any

from engine.plans import plan_to_json
from engine.types import Frontier, Profile, Proposal, RemovalPerplexity, Step, Trial, WeightDistance


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


def step_to_json(step: Step) -> dict[str, Any]:
    """Return one step of a T map; it is a plan file too."""
    return {"t_from": step.t_from, "t_to": step.t_to, "depth": step.proposal.plan.depth, "plan": plan_to_json(step.proposal.plan)}


def frontier_to_json(frontier: Frontier) -> dict[str, Any]:
    """Return a T map: the settings all its steps share, and the steps from the highest T down."""
    shared = {key: value for key, value in frontier.steps[0].proposal.plan.settings if key != "T"}
    return {"settings": {**shared, "t_min": frontier.t_min}, "steps": [step_to_json(step) for step in frontier.steps]}


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
