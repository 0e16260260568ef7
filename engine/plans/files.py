"""Write plans as JSON, and read them back."""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import PlanError
from engine.messages import Message
from engine.plans.parts import AXES, block_to_json, masks_to_json, parts_from_json, require_kept, width_of, width_to_json
from engine.types import Model, Plan
from engine.untrusted import LARGE, ForeignError, json_in, json_of, require_regular

BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)  # raised by zipfile, also for encrypted files


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as the JSON object that the terminal writes and the page saves."""
    return {
        "source_depth": plan.source_depth,
        "blocks": [block_to_json(block) for block in plan.blocks],
        "method": plan.method,
        "settings": dict(plan.settings),
        **({"repairs": [asdict(repair) for repair in plan.repairs]} if plan.repairs else {}),
        **({"width": width_to_json(plan, plan.width)} if plan.width else {}),
        **({"masks": masks_to_json(plan, plan.masks)} if plan.masks else {}),
    }


def signed(value: Any, model: Model) -> Any:
    """Return a result with the model's name and fingerprint added to every plan in it."""
    if isinstance(value, Mapping):
        own = {"model": {"name": model.spec.name, "fingerprint": model.fingerprint}} if "source_depth" in value else {}
        return {key: signed(item, model) for key, item in value.items()} | own
    return [signed(item, model) for item in value] if isinstance(value, list | tuple) else value


def model_of_plan(value: Any) -> tuple[str, str] | None:
    """Return the name and fingerprint of the model a saved plan was made for, or None; an export stores them outside its plan."""
    held = value if isinstance(value, dict) else {}
    plan = held["plan"] if isinstance(held.get("plan"), dict) else held
    for model in (plan.get("model"), held.get("source")):
        if isinstance(model, dict) and isinstance(model.get("fingerprint"), str):
            return str(model.get("name")), model["fingerprint"]
    return None


def of_another_model(value: Any, fingerprint: str) -> str:
    """Return a warning if a saved plan was made for another model than the open one; "" if not, or if the plan does not name its model."""
    made_for = model_of_plan(value)
    if made_for is None or made_for[1] == fingerprint:
        return ""
    return Message(
        "this plan was made for {name} ({fingerprint}), which is not the open model", name=made_for[0], fingerprint=made_for[1][:12]
    )


def plan_from_json(value: Any) -> Plan:
    """Read a plan, bare or under the key "plan" (the file of a proposal, or one step of a map).

    Raises:
        PlanError: the value is not a plan, or names layers that its source depth does not have.
    """
    if isinstance(value, dict) and isinstance(value.get("plan"), dict):
        value = value["plan"]
    if isinstance(value, dict) and isinstance(value.get("steps"), list):
        raise PlanError("this file is a whole T map; take one of its steps as the plan")
    if isinstance(value, dict) and isinstance(value.get("plans"), list):
        raise PlanError("this file is a whole sweep; take one of its plans as the plan")
    try:
        plan = parts_from_json(value)
    except ValueError as error:
        raise PlanError('this is not a plan: expected {{"source_depth", "blocks": [{{"home", "mix"}}]}} ({error})', error=error) from error
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    if not plan.blocks or plan.depth > plan.source_depth:
        raise PlanError(
            "a plan keeps between 1 and source_depth={source_depth} blocks, not {depth}", source_depth=plan.source_depth, depth=plan.depth
        )
    if list(plan.kept) != sorted(set(plan.kept)):
        raise PlanError("the homes of a plan's blocks must increase from block to block")
    for block in plan.blocks:
        layers = [layer for layer, _ in block.mix]
        if not layers or len(set(layers)) != len(layers):
            raise PlanError("the block with home {home} must mix at least one layer, and each only once", home=block.home)
        for layer in (block.home, *layers):
            if not 0 <= layer < plan.source_depth:
                raise PlanError(
                    "layer {layer} is outside the source's 0 to {source_depth}", layer=layer, source_depth=plan.source_depth - 1
                )
        if not all(abs(weight) < float("inf") for _, weight in block.mix):
            raise PlanError("the block of home {home} has a coefficient that is not a finite number", home=block.home)
        require_kept(block)
    for axis in AXES:
        if len({width_of(block, axis) for block in plan.blocks}) > 1:
            raise PlanError("a plan must keep equally many {axis} in every block, since stock classes have one width", axis=axis)


def read_plan(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        PlanError: the file is missing, is not JSON, or is not a plan.
    """
    return plan_from_json(read_json(path))


def read_json(path: Path) -> Any:
    """Read a JSON file: a plan or another saved result. From a zip saved by the page, read the one .json in it.

    Raises:
        PlanError: the file is missing or is not JSON.
    """
    try:
        require_regular(path)
        return json_of(_zipped(path)) if zipfile.is_zipfile(path) else json_in(path, LARGE)
    except FileNotFoundError as error:
        raise PlanError("{gguf} does not exist", gguf=path.name or path) from error
    except ForeignError as error:
        raise PlanError("{path_name} is not a readable JSON file: {error}", path_name=path.name or path, error=error) from error
    except (*BROKEN_ZIP, OSError, ValueError) as error:
        raise PlanError("{path_name} is not a readable JSON file", path_name=path.name or path) from error


def _zipped(path: Path) -> str:
    with zipfile.ZipFile(path) as whole:
        plans = [member for member in whole.infolist() if member.filename.endswith(".json")]
        if len(plans) != 1:
            raise PlanError("{path_name} holds {count} plans; choose a file with one", path_name=path.name, count=len(plans))
        if plans[0].file_size > LARGE:
            raise ForeignError(
                "it has {file_size:.0f} MB, and at most {large:.0f} MB are read",
                file_size=plans[0].file_size / 1e6,
                large=LARGE / 1e6,
            )
        return whole.read(plans[0]).decode("utf-8")
