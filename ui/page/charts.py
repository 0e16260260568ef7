"""Convert records to chart data: JSON strings that the scripts in assets/js draw. Pure functions."""

import json
import math
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from engine.export.checkpoint.export import ExportReport
from engine.judge.similarity import blocks_key
from engine.methods.depth.laco import LacoSettings
from engine.methods.width.minitron import RemovalPerplexity
from engine.models.library import typed
from engine.models.shapes import shape_of
from engine.passes.profiling import Profile
from engine.plans.description import done_beside, type_conflicts, weigh
from engine.plans.files import plan_to_json
from engine.plans.parts import AXES, block_to_json
from engine.plans.trimming import trimmed_shape
from engine.search.frontier import Frontier
from engine.types import Model, ModelSource, ModelSpec, Plan, TextSet
from ui.page.bench.shared import suggested_name


def encode(value: Any) -> str:
    """Return compact JSON, floats rounded to six digits, NaN and infinity as null."""
    return json.dumps(_rounded(value), separators=(",", ":"), allow_nan=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item if key in ("blocks", "parts") else _rounded(item) for key, item in value.items()}  # plans keep all digits
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def similarity_data(profile: Profile, removal: RemovalPerplexity | None) -> str:
    """Return the chart data of the similarity view."""
    return encode({**asdict(profile), "removal": asdict(removal) if removal else None})


def plan_parts(model: Model, plan: Plan) -> dict[str, Any]:
    """Return the chart data of a plan that all views share: its blocks, parameters and bytes."""
    parameters, size = weigh(model.spec, plan)
    return {
        "name": blocks_key(plan.blocks),  # the key of its cost
        "folder": suggested_name(model, plan),  # default export folder
        "depth": plan.depth,
        "blocks": [block_to_json(block) for block in plan.blocks],
        **({"repairs": [asdict(repair) for repair in plan.repairs]} if plan.repairs else {}),
        **_parts(model, plan),
        **({"tensors": len(plan.tensors)} if plan.tensors else {}),  # saved with the plan
        "parameters": parameters,
        "bytes": size,
        "conflicts": list(type_conflicts(plan, model.spec.layer_types)),
    }


def _parts(model: Model, plan: Plan) -> dict[str, Any]:
    """Return a plan's width and masks: a summary for the page, and both parts as the plan file stores them."""
    found: dict[str, Any] = {}
    if plan.width is not None:
        shape = trimmed_shape(shape_of(model.config), plan.blocks[0].trim)
        widths = {axis: getattr(shape, axis) for axis in AXES}
        found["width"] = {**widths, "done": done_beside(plan), "method": plan.width.method}
    if plan.masks is not None:
        facts = dict(plan.masks.settings)
        found["masks"] = {"sparsity": facts.get("sparsity", 0.0), "pattern": facts.get("pattern", ""), "method": plan.masks.method}
    if found:
        found["parts"] = {name: part for name, part in plan_to_json(plan).items() if name in ("width", "masks")}
    return found


def plan_data(model: Model, plan: Plan, similarity: float) -> str:
    """Return the chart data of the fold view for a plan that is not from the T map."""
    return encode({**plan_parts(model, plan), "similarity": similarity, "method": plan.method, "settings": dict(plan.settings)})


def map_data(model: Model, texts: TextSet, settings: LacoSettings, frontier: Frontier, filling: bool = False, stopped: bool = False) -> str:
    """Return the chart data of the fold view: every step with its plan and trials. While the map is still `filling` that is one step; a
    `stopped` map has the steps found so far. Thresholds keep all their digits."""
    steps = []
    for step in frontier.steps:
        proposal = step.proposal
        accepted = [trial.similarity for trial in proposal.trials if trial.accepted]
        steps.append(
            {
                **plan_parts(model, proposal.plan),
                "trials": [asdict(trial) for trial in proposal.trials],
                "similarity": accepted[-1] if accepted else 1.0,
            }
        )
    depths = [step["depth"] for step in steps]
    data = _rounded(
        {
            "depth": model.spec.depth,
            "t_min": frontier.t_min,
            "rule": settings.rule,
            "definition": settings.similarity,
            "settings": {**dict(settings.items()), "calibration": texts.fingerprint},
            "model": model.spec.name,
            "fingerprint": model.fingerprint,
            "dtype": model.spec.dtype,
            "parameters": model.spec.parameters,
            "texts": len(texts.texts),
            "calibration": texts.name,
            "filling": filling,
            "stopped": stopped,
            "monotone": all(a >= b for a, b in pairwise(depths)),
            "steps": steps,
        }
    )
    for shown, step in zip(data["steps"], frontier.steps, strict=True):
        shown["t_from"], shown["t_to"] = step.t_from, step.t_to
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def spec_card(spec: ModelSpec, source: ModelSource, fingerprint: str = "", terminal: dict[str, Any] | None = None) -> str:
    """Return the side bar's data of a model. The fingerprint is known once the weights have been read.

    `terminal` fills the command templates on the tabs, see `ui.text.commands.facts_of`.
    """
    return encode(
        {
            "name": spec.name,
            "source": typed(source),
            "type": spec.model_type,
            "depth": spec.depth,
            "hidden": spec.hidden_size,
            "parameters": spec.parameters,
            "bytes": spec.bytes,
            "dtype": spec.dtype,
            "device": source.device,
            "available": spec.available_bytes,
            "fingerprint": fingerprint[:12] or "…",
            **({"terminal": terminal} if terminal else {}),
        }
    )


def report_data(report: ExportReport) -> str:
    """Return what the Export tab shows of a written checkpoint."""
    return encode({**asdict(report), "passed": report.passed})
