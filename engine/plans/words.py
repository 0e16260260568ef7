"""A plan in words, and what can be said of it without running it."""

from collections.abc import Sequence

from engine.errors import PlanError
from engine.types import DepthPlan, ModelSpec


def require_depth(plan: DepthPlan, depth: int) -> None:
    """Raise PlanError when a plan was made for a model of another depth."""
    if plan.source_depth != depth:
        raise PlanError(f"this plan is for a model of {plan.source_depth} layers; the open model has {depth}")


def weigh(spec: ModelSpec, plan: DepthPlan) -> tuple[int, int]:
    """Return the parameters and the bytes in memory of the model a plan describes."""
    outside = spec.parameters - sum(spec.block_parameters)
    parameters = outside + sum(spec.block_parameters[home] for home in plan.kept)
    return parameters, parameters * spec.bytes_per_parameter


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
