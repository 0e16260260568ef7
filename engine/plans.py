"""Plans: how blocks fold into one, and how a plan becomes JSON and comes back."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import PlanError
from engine.types import Block, DepthPlan, ModelSpec, Repair

# --- Rules: what one block of a group of consecutive blocks is. All are affine: the coefficients add up to 1. ---


def _compose(home: int, parts: Sequence[tuple[float, Block]]) -> Block:
    total: dict[int, float] = {}
    for weight, block in parts:
        for layer, coefficient in block.mix:
            total[layer] = total.get(layer, 0.0) + weight * coefficient
    return Block(home, tuple((layer, value) for layer, value in sorted(total.items()) if value != 0.0))


def reference(group: Sequence[Block]) -> Block:
    """The last block's projections under the first block's norms: what LaCo's published code computes.

    Its loop adds (W_d - W) to W for each absorbed d, so that every step overwrites the one before (METHODS 1.2 of the
    project's notes; LaCo issue 5). We write the outcome, which also spares its rounding noise.
    """
    return _compose(group[0].home, [(1.0, group[-1])])


def paper(group: Sequence[Block]) -> Block:
    """2402.11187, Eq. 1 as printed: W + sum over absorbed d of (W_d - W). Equals `reference` for two blocks only."""
    return _compose(group[0].home, [(2.0 - len(group), group[0]), *((1.0, block) for block in group[1:])])


def mean(group: Sequence[Block]) -> Block:
    """The plain mean of the projections, under the first block's norms."""
    return _compose(group[0].home, [(1.0 / len(group), block) for block in group])


def keep_first(group: Sequence[Block]) -> Block:
    """The first block whole; the others are dropped."""
    return group[0]


def keep_last(group: Sequence[Block]) -> Block:
    """The last block whole; the others are dropped."""
    return group[-1]


RULES: dict[str, Callable[[Sequence[Block]], Block]] = {
    "reference": reference,
    "paper": paper,
    "mean": mean,
    "keep-first": keep_first,
    "keep-last": keep_last,
}


def untouched(depth: int) -> DepthPlan:
    """Return the plan that leaves a model of this depth as it is."""
    return DepthPlan(depth, tuple(Block(layer, ((layer, 1.0),)) for layer in range(depth)), "untouched")


def fold(blocks: tuple[Block, ...], first: int, count: int, rule: str) -> tuple[Block, ...]:
    """Return blocks with `count` of them, from index `first` on, folded into one by a rule."""
    if count < 2 or first < 0 or first + count > len(blocks):
        raise PlanError(f"cannot fold {count} blocks from {first} on in a model of {len(blocks)}")
    if rule not in RULES:
        raise PlanError(f"unknown rule '{rule}'; choose one of {', '.join(RULES)}")
    return (*blocks[:first], RULES[rule](blocks[first : first + count]), *blocks[first + count :])


def fold_spans(depth: int, spans: Sequence[tuple[int, int]], rule: str) -> DepthPlan:
    """Return the plan that folds each span (first, last) of source layers, both included; overlapping spans join.

    Raises:
        PlanError: a span lies outside the model or holds fewer than two layers.
    """
    joined: list[list[int]] = []
    for first, last in sorted(spans):
        if not (0 <= first < last < depth):
            raise PlanError(f"a fold must span at least two of the layers 0 to {depth - 1}, not {first} to {last}")
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(last, joined[-1][1])
        else:
            joined.append([first, last])
    blocks = untouched(depth).blocks
    for first, last in reversed(joined):
        blocks = fold(blocks, first, last - first + 1, rule)
    return DepthPlan(depth, blocks, "hand-made", (("rule", rule), ("spans", tuple(map(tuple, joined)))))


# --- JSON ---


def plan_to_json(plan: DepthPlan) -> dict[str, Any]:
    """Return a plan as the JSON object that the terminal writes and the page saves."""
    return {
        "source_depth": plan.source_depth,
        "blocks": [block_to_json(block) for block in plan.blocks],
        "method": plan.method,
        "settings": dict(plan.settings),
        **({"repairs": [asdict(repair) for repair in plan.repairs]} if plan.repairs else {}),
    }


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


def require_depth(plan: DepthPlan, depth: int) -> None:
    """Raise PlanError when a plan was made for a model of another depth."""
    if plan.source_depth != depth:
        raise PlanError(f"this plan is for a model of {plan.source_depth} layers; the open model has {depth}")


def weigh(spec: ModelSpec, plan: DepthPlan) -> tuple[int, int]:
    """Return the parameters and the bytes in memory of the model a plan describes."""
    outside = spec.parameters - sum(spec.block_parameters)
    parameters = outside + sum(spec.block_parameters[home] for home in plan.kept)
    return parameters, parameters * spec.bytes_per_parameter


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


# --- Words ---


def describe(plan: DepthPlan) -> tuple[str, ...]:
    """Return a plan in plain English, a sentence for each fold and each run of dropped layers."""
    sentences, gone = [], set(plan.dropped)
    for block in plan.folds:
        if block.mix == ((block.home, 1.0),):
            continue  # whole, but repaired
        layers = [layer for layer, _ in block.mix]
        last = max(*layers, block.home)
        absorbed = span_name(block.home + 1, last) if last > block.home else span_name(min(layers), block.home - 1)
        lost = [span_name(*run) for run in runs([layer for layer in plan.dropped if block.home < layer < last])]
        gone -= set(range(block.home, last))
        if len(layers) == 1:
            how = f"it takes the projections of {layers[0]} and keeps its own norms"
            how += f"; nothing of {', '.join(lost)} is left" if lost else ""
        elif len({weight for _, weight in block.mix}) == 1:
            how = f"the mean of their projections and its own, under its own norms{' (without ' + ', '.join(lost) + ')' if lost else ''}"
        else:
            how = f"projections {' '.join(f'{weight:+g}·W{layer}' for layer, weight in block.mix)} under its own norms"
        sentences.append(f"Layers {absorbed} fold into {block.home}: {how}.")
    sentences.extend(
        f"The seam after block {entry.place} is repaired without training ({entry.kind}): KL {entry.before:.3f} to {entry.after:.3f}."
        for entry in plan.repairs
    )
    sentences.extend(f"{'Layers' if last > first else 'Layer'} {span_name(first, last)} dropped." for first, last in runs(sorted(gone)))
    return tuple(sentences) or ("No layer is changed.",)


def runs(layers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return runs (first, last) of consecutive numbers."""
    found: list[list[int]] = []
    for layer in layers:
        if found and layer == found[-1][1] + 1:
            found[-1][1] = layer
        else:
            found.append([layer, layer])
    return tuple((first, last) for first, last in found)


def span_name(first: int, last: int) -> str:
    """Return "12" or "12-15"."""
    return str(first) if first == last else f"{first}-{last}"


def type_conflicts(plan: DepthPlan, layer_types: tuple[str, ...] | None) -> tuple[int, ...]:
    """Return the homes whose block takes projections from a layer of another type; the home's type wins there."""
    if layer_types is None:
        return ()
    return tuple(b.home for b in plan.folds if any(layer_types[layer] != layer_types[b.home] for layer, _ in b.mix))
