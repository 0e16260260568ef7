"""Describe a plan in sentences, and compute its size without running it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from engine.errors import PlanError
from engine.models.families import row_of
from engine.models.shapes import parameters_at
from engine.plans.trimming import new_biases, trimmed_shape
from engine.types import Block, ModelSpec, Plan, Shape, Trim

Say = Callable[..., str]  # a function of a sentence with placeholders and their values by name


def require_depth(plan: Plan, depth: int) -> None:
    """Raise PlanError if a plan was made for a model of another depth."""
    if plan.source_depth != depth:
        raise PlanError(
            "this plan needs a model of {source_depth} layers, but the open model has {depth}", source_depth=plan.source_depth, depth=depth
        )


def weigh(spec: ModelSpec, plan: Plan) -> tuple[int, int]:
    """Return the number of parameters of a plan's model, and its bytes in memory."""
    trim = plan.blocks[0].trim
    if trim is None or spec.shape is None:
        outside = spec.parameters - sum(spec.block_parameters)
        parameters = outside + sum(spec.block_parameters[home] for home in plan.kept)
    else:
        shape = replace(trimmed_shape(spec.shape, trim), depth=plan.depth)
        parameters = parameters_at(spec, shape) + plan.depth * _new_biases(spec, shape, plan)
    return parameters, parameters * spec.bytes_per_parameter


def _new_biases(spec: ModelSpec, shape: Shape, plan: Plan) -> int:
    """Return the number of bias parameters per block that the source's blocks do not have."""
    row, terms = row_of(spec.model_type), dict(spec.block_terms)

    def has(switch: str) -> bool:
        writes, _ = row.projections[row.biases[switch][0]]
        return (writes,) in terms  # only a bias has this axis alone

    return sum(shape.size(row.projections[name][0]) for names in new_biases(row, plan, has).values() for name in names)


def in_english(sentence: str, **values: object) -> str:
    """Fill a sentence's placeholders in English; a translation passes another function of this signature."""
    return sentence.format(**values) if values else sentence


def describe(plan: Plan, say: Say = in_english) -> tuple[str, ...]:
    """Return a plan's description: one sentence per fold and per run of dropped layers, then repairs, width and masks."""
    sentences, gone = [], set(plan.dropped)
    for block in plan.folds:
        if block.mix == ((block.home, 1.0),):
            continue  # not folded, only repaired
        sentences.append(_fold_said(plan, block, say))
        gone -= set(range(block.home, max(block.home, *(layer for layer, _ in block.mix))))
    sentences.extend(
        say(
            "The seam after block {place} is repaired without training ({kind}): KL {before} to {after}.",
            place=entry.place,
            kind=entry.kind,
            before=f"{entry.before:.3f}",
            after=f"{entry.after:.3f}",
        )
        for entry in plan.repairs
    )
    for first, last in runs(sorted(gone)):
        span = span_name(first, last)
        sentences.append(say("Layers {span} dropped.", span=span) if last > first else say("Layer {span} dropped.", span=span))
    sentences.extend(_width_said(plan, say))
    if plan.masks is not None:
        share = f"{dict(plan.masks.settings).get('sparsity', 0):.0%}"
        sentences.append(say("{share} of the projections' weights are zero ({method}).", share=share, method=plan.masks.method))
    return tuple(sentences) or (say("No layer is changed."),)


def _width_said(plan: Plan, say: Say) -> Iterator[str]:
    if plan.width is None:
        return
    trim, method = plan.blocks[0].trim or Trim(), plan.width.method
    if trim.heads is not None:
        yield say("Every layer keeps {count} query heads ({method}).", count=len(trim.heads), method=method)
    if trim.neurons is not None:
        yield say("Every layer keeps {count} neurons ({method}).", count=len(trim.neurons), method=method)
    if trim.channels is not None:
        yield say("The residual stream keeps {count} channels ({method}).", count=len(trim.channels), method=method)
    done = done_beside(plan)
    if "refit" in done:
        yield say("The projections that read pruned parts are refitted to the kept parts.")
    if "bias" in done:
        yield say("The projections that read pruned parts get the mean of these parts as a bias (FLAP).")
    if "redistributed" in done:
        yield say("Pruned heads are redistributed to kept heads (Minitron).")
    if "learned" in done:
        yield say("The kept projections were trained together with the masks (Sheared LLaMA).")


def done_beside(plan: Plan) -> tuple[str, ...]:
    """Return how a plan's width was compensated: "refit", "bias", "redistributed" (see engine/methods/width/widths.py),
    "learned" (engine/methods/learned/sheared.py)."""
    if plan.width is None or not any(block.trim.refits for block in plan.blocks if block.trim):
        return ()
    facts = dict(plan.width.settings)
    done = {name: bool(facts.get(name)) for name in ("bias", "redistributed", "learned")}
    done["refit"] = bool(facts.get("refit")) or not any(done.values())
    return tuple(name for name, true in done.items() if true)


def _fold_said(plan: Plan, block: Block, say: Say) -> str:
    layers = [layer for layer, _ in block.mix]
    last = max(*layers, block.home)
    absorbed = span_name(block.home + 1, last) if last > block.home else span_name(min(layers), block.home - 1)
    lost = ", ".join(span_name(*run) for run in runs([layer for layer in plan.dropped if block.home < layer < last]))
    facts = {"absorbed": absorbed, "home": block.home, "layer": layers[0], "lost": lost}
    if len(layers) == 1 and lost:
        return say(
            "Layers {absorbed} fold into {home}: it takes the projections of {layer} and keeps its own norms; {lost} is dropped.",
            **facts,
        )
    if len(layers) == 1:
        return say("Layers {absorbed} fold into {home}: it takes the projections of {layer} and keeps its own norms.", **facts)
    if len({weight for _, weight in block.mix}) > 1:
        mix = " ".join(f"{weight:+g}·W{layer}" for layer, weight in block.mix)
        return say("Layers {absorbed} fold into {home}: projections {mix} under its own norms.", mix=mix, **facts)
    if lost:
        return say(
            "Layers {absorbed} fold into {home}: the mean of their projections and its own, under its own norms (without {lost}).", **facts
        )
    return say("Layers {absorbed} fold into {home}: the mean of their projections and its own, under its own norms.", **facts)


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


def type_conflicts(plan: Plan, layer_types: tuple[str, ...] | None) -> tuple[int, ...]:
    """Return the homes of blocks whose projections come from a layer of another type; the block keeps its home's type."""
    if layer_types is None:
        return ()
    return tuple(b.home for b in plan.folds if any(layer_types[layer] != layer_types[b.home] for layer, _ in b.mix))
