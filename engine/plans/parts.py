"""Write and read the parts of a plan's JSON: blocks with their width and masks, and repairs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import PlanError
from engine.records import Fingerprint, FloatOrNaN, from_json
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


@dataclass(frozen=True, slots=True)
class _Block:
    """A block in a plan's JSON; the records below are its other parts. None means that a value is left out."""

    home: int
    mix: tuple[tuple[int, float], ...]
    repair: Fingerprint = ""
    refits: dict[str, Fingerprint] | None = None


@dataclass(frozen=True, slots=True)
class _Repair:
    place: int
    kind: str
    strength: FloatOrNaN
    before: FloatOrNaN
    after: FloatOrNaN
    fingerprint: Fingerprint = ""


@dataclass(frozen=True, slots=True)
class _Trim:
    heads: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    refits: dict[str, Fingerprint] | None = None


@dataclass(frozen=True, slots=True)
class _Width:
    method: str
    layers: tuple[_Trim, ...]
    settings: dict[str, Any] | None = None
    channels: tuple[int, ...] | None = None
    plain: bool = False


@dataclass(frozen=True, slots=True)
class _Masks:
    method: str
    layers: tuple[dict[str, Fingerprint], ...]
    settings: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    source_depth: int
    blocks: tuple[_Block, ...]
    method: str = "unknown"
    settings: dict[str, Any] | None = None
    repairs: tuple[_Repair, ...] | None = None
    width: _Width | None = None
    masks: _Masks | None = None


def parts_from_json(value: Any) -> Plan:
    """Return the plan that JSON values describe; `plan_from_json` checks whether it makes sense.

    Raises:
        ValueError: a value is missing or of another type, or a part has more or fewer layers than the plan.
    """
    found = from_json(_Plan, value)
    blocks = [Block(block.home, block.mix, block.repair, _tensors(block.refits)) for block in found.blocks]
    width, masks = found.width, found.masks
    if width:
        trims = [Trim(one.heads, one.neurons, width.channels, width.plain, _tensors(one.refits)) for one in width.layers]
        blocks = [replace(block, trim=trim) for block, trim in zip(blocks, trims, strict=True)]
    if masks:
        blocks = [replace(block, masks=_tensors(layer)) for block, layer in zip(blocks, masks.layers, strict=True)]
    repairs = tuple(Repair(one.place, one.kind, one.strength, one.before, one.after, one.fingerprint) for one in found.repairs or ())
    width_part, masks_part = (None if part is None else Part(part.method, _settings(part.settings)) for part in (width, masks))
    return Plan(found.source_depth, tuple(blocks), found.method, _settings(found.settings), repairs, width_part, masks_part)


def _tensors(found: Mapping[str, str] | None) -> Tensors:
    return tuple((found or {}).items())


def _settings(found: Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    return tuple((key, _setting(key, value)) for key, value in (found or {}).items())


def _setting(key: str, value: Any) -> Any:
    return from_json(_NUMERIC_SETTINGS[key], {key: value})[key] if key in _NUMERIC_SETTINGS else _frozen(value)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _frozen(item)) for key, item in value.items())
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


# Settings whose values are numbers by name; descriptions calculate with them.
_NUMERIC_SETTINGS: dict[str, Any] = {"sparsity": dict[str, float], "tokens": dict[str, int], "practice_tokens": dict[str, int]}


def width_of(block: Block, axis: str) -> int | None:
    """Return how many heads, neurons or channels a block keeps; None for all of them."""
    kept = None if block.trim is None else getattr(block.trim, axis)
    return None if kept is None else len(kept)


def require_kept(block: Block) -> None:
    """Raise PlanError unless the kept heads, neurons and channels of a block are ascending lists of at least one."""
    for axis in AXES:
        kept = None if block.trim is None else getattr(block.trim, axis)
        if kept is not None and (not kept or list(kept) != sorted(set(kept)) or kept[0] < 0):
            raise PlanError(
                "the block with home {home} must list at least one of its {axis}, in order and without repetition",
                home=block.home,
                axis=axis,
            )
