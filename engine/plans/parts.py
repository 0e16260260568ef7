"""Write and read the parts of a plan's JSON: blocks with their width and masks, and repairs."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.errors import PlanError
from engine.types import Block, Part, Plan, Repair, Tensors, Trim

AXES = ("heads", "neurons", "channels")


def block_to_json(block: Block) -> dict[str, Any]:
    """Return a block's depth part as JSON; "repair" and "refits" only if present."""
    repair = {"repair": block.repair} if block.repair else {}
    return {"home": block.home, "mix": [list(part) for part in block.mix], **repair, **_refits(block.refits)}


def width_to_json(plan: Plan, part: Part) -> dict[str, Any]:
    """Return a plan's width as JSON: method and settings, the kept channels, and each block's heads, neurons and refits."""
    trims = [block.trim or Trim() for block in plan.blocks]
    layers = [{"heads": trim.heads, "neurons": trim.neurons, **_refits(trim.refits)} for trim in trims]
    return {
        "method": part.method,
        "settings": dict(part.settings),
        "channels": trims[0].channels,
        "plain": trims[0].plain,
        "layers": [{key: value for key, value in layer.items() if value is not None} for layer in layers],
    }


def masks_to_json(plan: Plan, part: Part) -> dict[str, Any]:
    """Return a plan's masks as JSON: method and settings, and each block's masks by parameter name."""
    return {"method": part.method, "settings": dict(part.settings), "layers": [dict(block.masks) for block in plan.blocks]}


def _refits(tensors: Tensors) -> dict[str, Any]:
    return {"refits": dict(tensors)} if tensors else {}


def blocks_from_json(value: Mapping[str, Any]) -> tuple[Block, ...]:
    """Read a plan's blocks with their width and masks; invalid values raise what `plan_from_json` catches."""
    blocks = []
    for block in value["blocks"]:
        mix = tuple((whole(layer), _number(weight)) for layer, weight in block["mix"])
        blocks.append(Block(whole(block["home"]), mix, _mark(block), _tensors(block.get("refits") or {})))
    if (width := value.get("width")) is not None:
        blocks = [replace(block, trim=_trim(width, layer)) for block, layer in zip(blocks, width["layers"], strict=True)]
    if (masks := value.get("masks")) is not None:
        blocks = [replace(block, masks=_tensors(layer)) for block, layer in zip(blocks, masks["layers"], strict=True)]
    return tuple(blocks)


def repair_from_json(value: Any) -> Repair:
    """Read a plan's record of one repair."""
    strength, before, after = (float("nan") if value[key] is None else _number(value[key]) for key in ("strength", "before", "after"))
    return Repair(whole(value["place"]), str(value["kind"]), strength, before, after, _mark(value, "fingerprint"))


def part_from_json(value: Mapping[str, Any]) -> Part:
    """Read a part's method and settings; invalid values raise what `plan_from_json` catches."""
    settings = (value.get("settings") or {}).items()
    return Part(str(value["method"]), tuple((str(key), _COUNTED.get(key, _frozen)(item)) for key, item in settings))


def whole(value: Any) -> int:
    """Return a value, which must be an integer.

    Raises:
        ValueError: it is not an integer.
    """
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
        raise ValueError(f"{mark!r} is no fingerprint of a tensor")
    return mark


def _tensors(value: Mapping[str, Any]) -> Tensors:
    return tuple((str(name), _mark(value, name)) for name in value)


def _trim(width: Mapping[str, Any], layer: Mapping[str, Any]) -> Trim:
    heads, neurons, channels = (
        None if kept is None else tuple(map(whole, kept)) for kept in (layer.get("heads"), layer.get("neurons"), width.get("channels"))
    )
    if not isinstance(plain := width.get("plain", False), bool):
        raise ValueError(f"plain is {plain!r}")
    return Trim(heads, neurons, channels, plain, _tensors(layer.get("refits") or {}))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((str(key), _frozen(item)) for key, item in value.items())
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


_COUNTED = {"sparsity": _number, "tokens": whole, "practice_tokens": whole}  # settings used in descriptions


def width_of(block: Block, axis: str) -> int | None:
    """Return how many heads, neurons or channels a block keeps; None for all of them."""
    kept = None if block.trim is None else getattr(block.trim, axis)
    return None if kept is None else len(kept)


def require_kept(block: Block) -> None:
    """Raise PlanError where the heads, neurons or channels a block keeps are not a non-empty ascending list."""
    for axis in AXES:
        kept = None if block.trim is None else getattr(block.trim, axis)
        if kept is not None and (not kept or list(kept) != sorted(set(kept)) or kept[0] < 0):
            raise PlanError(
                "the block with home {home} must list at least one of its {axis}, in order and without repetition",
                home=block.home,
                axis=axis,
            )
