"""A checkpoint's history: a model, a plan of it, further training, a plan of that. Stored in layerscope.json, oldest first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.corpus.reading import name_of
from engine.export.report.figures import number
from engine.models.library import DEMO_BASE_MODEL, json_in
from engine.models.sources import lies_within
from engine.plans.description import Say, in_english
from engine.types import ModelSource, ModelSpec, Plan

RECORD = "layerscope.json"
Lineage = list[dict[str, Any]]


def lineage_of(source: ModelSource, folder: Path, spec: ModelSpec, fingerprint: str) -> Lineage:
    """Return an open model's history from its folder, or a single entry for a first source."""
    if kept := _kept(folder):
        return kept
    return [{"step": "source", "name": spec.name, "base_model": hub_id(source), "depth": spec.depth, "fingerprint": fingerprint}]


def pruned(plan: Plan) -> dict[str, Any]:
    """Return the history entry of a plan."""
    parts = {name: part.method for name, part in (("width", plan.width), ("masks", plan.masks)) if part}
    return {"step": "plan", "method": plan.method, "depth": plan.depth, "of": plan.source_depth, **parts}


def sentences_of(lineage: Sequence[Mapping[str, Any]], say: Say = in_english) -> tuple[str, ...]:
    """Return a history as sentences, one per step; unknown kinds of steps are left out."""
    return tuple(_SAID[one["step"]](one, say) for one in lineage if one["step"] in _SAID)


def before(lineage: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the history of a checkpoint's source: all steps before its own plan; () if that source is the first model."""
    plans = [place for place, one in enumerate(lineage) if one["step"] == "plan"]
    return lineage[: plans[-1]] if len(plans) > 1 else ()


def learned(lineage: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a step trained weights."""
    return any(one["step"] == "recovery" for one in lineage)


def _source_said(step: Mapping[str, Any], say: Say) -> str:
    return say(
        "The original model is {name}, with {depth} layers.", name=step.get("base_model") or step.get("name"), depth=step.get("depth")
    )


def _plan_said(step: Mapping[str, Any], say: Say) -> str:
    methods = ", ".join(str(step[part]) for part in ("method", "width", "masks") if step.get(part))
    return say("It was pruned to {depth} of {all} layers ({methods}).", depth=step.get("depth"), all=step.get("of"), methods=methods)


def _recovery_said(step: Mapping[str, Any], say: Say) -> str:
    ratios = {f"{name}_{side}": number(step[side][name]["ratio"]) for side in ("before", "after") for name in ("kind", "other")}
    named = {"texts": ", ".join(map(name_of, step["text"])), "tokens": f"{step['tokens']:,}"}
    return say(
        "It was retrained by distillation from its source: {tokens} tokens of {texts}, trained parameters {train}, "
        "loss {loss}. Perplexity relative to the source: on held-out text of the training kind {kind_before} before "
        "and {kind_after} after, on other text {other_before} before and {other_after} after.",
        train=step["train"],
        loss=step["loss"],
        **named,
        **ratios,
    )


_SAID = {"source": _source_said, "plan": _plan_said, "recovery": _recovery_said}


def base_model(source: ModelSource, folder: Path) -> str | None:
    """Return the Hub id of the first model in the history, or None if unknown."""
    first = next(iter(_kept(folder)), {}).get("base_model")
    return first if isinstance(first, str) else hub_id(source)


def hub_id(source: ModelSource) -> str | None:
    """Return an open model's own Hub id, or None if it is not from the Hub."""
    return {"demo": DEMO_BASE_MODEL, "hub": source.location}.get(source.kind)


def _kept(folder: Path) -> Lineage:
    """Return the history stored in a folder; [] if there is none, or none that is valid."""
    found = json_in(folder / RECORD).get("lineage") if lies_within(folder / RECORD, folder) else None
    return found if isinstance(found, list) and _can_be_told(found) else []


def _can_be_told(found: list[Any]) -> bool:
    try:
        sentences_of(found)
        return all(isinstance(one["step"], str) for one in found)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
