"""How a plan becomes JSON and comes back."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import PlanError
from engine.types import Block, DepthPlan, Model, Repair


def plan_to_json(plan: DepthPlan) -> dict[str, Any]:
    """Return a plan as the JSON object that the terminal writes and the page saves."""
    return {
        "source_depth": plan.source_depth,
        "blocks": [block_to_json(block) for block in plan.blocks],
        "method": plan.method,
        "settings": dict(plan.settings),
        **({"repairs": [asdict(repair) for repair in plan.repairs]} if plan.repairs else {}),
    }


def signed(value: Any, model: Model) -> Any:
    """Return what a verb answers with the name and the fingerprint of its model in every plan that it holds."""
    if isinstance(value, Mapping):
        own = {"model": {"name": model.spec.name, "fingerprint": model.fingerprint}} if "source_depth" in value else {}
        return {key: signed(item, model) for key, item in value.items()} | own
    return [signed(item, model) for item in value] if isinstance(value, list | tuple) else value


def model_of_plan(value: Any) -> tuple[str, str] | None:
    """Return the name and the fingerprint of the model that a saved plan says it was made for, if it says so; what an export
    keeps says so beside its plan."""
    held = value if isinstance(value, dict) else {}
    plan = held["plan"] if isinstance(held.get("plan"), dict) else held
    for model in (plan.get("model"), held.get("source")):
        if isinstance(model, dict) and isinstance(model.get("fingerprint"), str):
            return str(model.get("name")), model["fingerprint"]
    return None


def of_another_model(value: Any, fingerprint: str) -> str:
    """Return the sentence that tells that a saved plan was made for another model than the open one; empty where it was not, or
    does not say."""
    made_for = model_of_plan(value)
    if made_for is None or made_for[1] == fingerprint:
        return ""
    return f"this plan was made for {made_for[0]} ({made_for[1][:12]}), which is not the open model"


def block_to_json(block: Block) -> dict[str, Any]:
    """Return a block as it stands in a plan's JSON; "repair" only where there is one."""
    return {"home": block.home, "mix": [list(part) for part in block.mix], **({"repair": block.repair} if block.repair else {})}


def plan_from_json(value: Any) -> DepthPlan:
    """Read a plan: a bare one, or whatever holds one under "plan" (a proposal's file, one step of a map).

    Raises:
        PlanError: it is no plan, or names layers that its own source depth does not have.
    """
    if isinstance(value, dict) and isinstance(value.get("plan"), dict):
        value = value["plan"]
    if isinstance(value, dict) and isinstance(value.get("steps"), list):
        raise PlanError("this file is a whole T map; take one of its steps as the plan")
    if isinstance(value, dict) and isinstance(value.get("plans"), list):
        raise PlanError("this file is a whole sweep; take one of its plans as the plan")
    try:
        depth = _whole(value["source_depth"])
        blocks = tuple(
            Block(_whole(block["home"]), tuple((_whole(layer), _number(weight)) for layer, weight in block["mix"]), _mark(block))
            for block in value["blocks"]
        )
        repairs = tuple(_repair(entry) for entry in value.get("repairs") or ())
        method, settings = str(value.get("method", "unknown")), value.get("settings") or {}
        plan = DepthPlan(depth, blocks, method, tuple((str(k), _frozen(v)) for k, v in settings.items()), repairs)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise PlanError(f'this is no plan: expected {{"source_depth", "blocks": [{{"home", "mix"}}]}} ({error!r})') from error
    _check(plan)
    return plan


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _mark(value: Mapping[str, Any], key: str = "repair") -> str:
    mark = value.get(key, "")
    if not isinstance(mark, str) or (mark and re.fullmatch("[0-9a-f]{64}", mark) is None):
        raise ValueError(f"{mark!r} is no fingerprint of a repair")
    return mark


def _repair(value: Any) -> Repair:
    strength, before, after = (float("nan") if value[key] is None else _number(value[key]) for key in ("strength", "before", "after"))
    return Repair(_whole(value["place"]), str(value["kind"]), strength, before, after, _mark(value, "fingerprint"))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((str(key), _frozen(item)) for key, item in value.items())
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _check(plan: DepthPlan) -> None:
    if not plan.blocks or plan.depth > plan.source_depth:
        raise PlanError(f"a plan keeps between 1 and source_depth={plan.source_depth} blocks, not {plan.depth}")
    if list(plan.kept) != sorted(set(plan.kept)):
        raise PlanError("the homes of a plan's blocks must rise from block to block")
    for block in plan.blocks:
        layers = [layer for layer, _ in block.mix]
        if not layers or len(set(layers)) != len(layers):
            raise PlanError(f"the block of home {block.home} must mix each layer once and at least one")
        for layer in (block.home, *layers):
            if not 0 <= layer < plan.source_depth:
                raise PlanError(f"layer {layer} is outside the source's 0 to {plan.source_depth - 1}")
        if not all(abs(weight) < float("inf") for _, weight in block.mix):
            raise PlanError(f"the block of home {block.home} has a coefficient that is not a finite number")


def read_plan(path: Path) -> DepthPlan:
    """Read a plan file.

    Raises:
        PlanError: the file is missing, no JSON, or no plan.
    """
    return plan_from_json(read_json(path))


def read_json(path: Path) -> Any:
    """Read a JSON file: a plan, or what else a verb wrote.

    Raises:
        PlanError: the file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PlanError(f"{path.name or path} does not exist") from error
    except (OSError, ValueError, RecursionError) as error:
        raise PlanError(f"{path.name or path} is no JSON file that can be read") from error
