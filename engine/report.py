"""A report of a plan for people who were not there: one HTML file that opens anywhere, offline, and fetches nothing.

The words, tables and the strip are plain HTML and SVG; the charts are drawn by one copy of plotly.js, taken as text from
plotly's wheel. What is drawn stands in the file as JSON, so that every figure can be read back.
"""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.calibration import BUNDLED, assets_folder
from engine.plans import describe, plan_to_json, runs, weigh
from engine.types import Block, DepthPlan, Evaluation, Frontier, ModelSource, ModelSpec, Profile

# How a perplexity ratio is called: a rule of thumb, printed beside the verdict as one.
LEVELS = (
    (1.05, "good", "It costs very little"),
    (1.25, "good", "It has a small but measurable cost"),
    (2.0, "fair", "It has a clear cost"),
    (10.0, "poor", "It has a heavy cost: unlikely to be useful without retraining"),
    (math.inf, "broken", "In effect it is broken: most of what the source knew is gone"),
)


def report_html(
    spec: ModelSpec,
    source: ModelSource,
    fingerprint: str,
    plan: DepthPlan,
    profile: Profile,
    evaluation: Evaluation | None,
    frontier: Frontier | None,
    samples: list[dict[str, Any]] | None,
    speed: dict[str, Any] | None,
    memory: dict[str, Any] | None,
    facts: dict[str, Any],
) -> str:
    """Return the whole page, about 5 MB of UTF-8 text.

    `samples`, `speed` and `memory` are `dataclasses.asdict` of the records of engine.generation, engine.speed and
    engine.memory. `facts` holds what else a repetition needs: "versions" (a mapping), "calibration", "practice" and
    "evaluation" (a Calibration, or a mapping with name, fingerprint and texts, either the texts themselves or their number),
    "commands" (lines that replace the terminal commands made here); anything else is listed as it is.
    """
    parameters, size = weigh(spec, plan)
    weakest = sorted((layer.block_influence, layer.index) for layer in profile.layers if math.isfinite(layer.block_influence))
    environment = Environment(
        loader=FileSystemLoader(assets_folder()), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number, many=many, size=bytes_of, percent=percent)
    environment.globals.update(change=change)
    recipe = json.dumps(_plain(plan_to_json(plan)), allow_nan=False, default=str)
    return environment.get_template("report.html.j2").render(
        spec=spec,
        source=source,
        fingerprint=fingerprint,
        plan=plan,
        profile=profile,
        evaluation=evaluation,
        frontier=frontier,
        samples=_plain(samples or []),
        facts={key: value for key, value in _records(facts).items() if key != "commands"},
        settings=_settings(source, fingerprint, plan, evaluation),
        parameters=parameters,
        bytes=size,
        sentences=describe(plan),
        verdict=verdict(plan, evaluation),
        seen=evaluation is not None and evaluation.protocol.fingerprint in _fitted_to(plan, facts),
        looped=[sum(bool(sample[side]["loops"]) for sample in samples or []) for side in ("source", "plan")],
        weakest=[index for _, index in weakest[:3]],
        strips=[strip(plan, False), strip(plan, True)],
        gains=gains(spec, plan, speed, memory),
        speed=speed,
        memory=memory,
        charts=charts(profile, plan, evaluation, frontier),
        recipe=recipe,
        download="data:application/json;charset=utf-8," + quote(recipe),
        commands=facts.get("commands") or commands(source, plan, evaluation, facts),
        plotly=Markup((files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")),  # as it is: it is a script
    )


# --- Words ---


def verdict(plan: DepthPlan, evaluation: Evaluation | None) -> tuple[str, str, tuple[str, ...]]:
    """Return a level (none, good, fair, poor or broken), a headline, and the sentences that explain it."""
    if evaluation is None:
        return "none", "What it costs has not been measured", ("Judge the plan before you decide anything by this report.",)
    e = evaluation
    if not math.isfinite(e.source_perplexity):
        return "broken", "Nothing can be said: the source model itself fails on these texts", ("Its perplexity is not a finite number.",)
    if math.isnan(e.plan_perplexity) or math.isnan(e.ratio):
        bad = sum(not math.isfinite(text.plan_nll) for text in e.texts)
        why = f"On {bad} of {len(e.texts)} texts the smaller model computes values that are not numbers, so it cannot be used."
        return "broken", "The plan is broken", (why, "Choose another plan.")
    if math.isinf(e.plan_perplexity):
        return "broken", "The plan is broken", ("Its perplexity is too large to be written as a number.", "Choose another plan.")
    level, headline = next((level, words) for limit, level, words in LEVELS if e.ratio <= limit)
    told = not math.isnan(e.ratio_low) and not math.isnan(e.ratio_high)
    if plan.blocks and not plan.folds and plan.depth == plan.source_depth:
        headline = "Nothing was changed, so nothing is lost"
    elif told and e.ratio_high < 1.0:
        headline = "It predicts these texts better than its source, which is unusual: check it on others"
    elif told and e.ratio_low <= 1.0 < e.ratio_high:
        headline = "These texts cannot tell it from its source" if e.ratio_high <= LEVELS[1][0] else "Not settled: too few texts to tell"
        level = "good" if e.ratio_high <= LEVELS[1][0] else "fair"
    if level == "good" and e.top1_agreement < 0.5:  # perplexity alone would praise a model that says other things
        level, headline = "fair", "Its perplexity is close to the source's, but it says other things"
    sure = f"; with 95 % confidence, between {number(e.ratio_low)} and {number(e.ratio_high)} times" if told else ""
    return (
        level,
        headline,
        (
            f"At each step the source hesitates, on average, between about {number(e.source_perplexity)} continuations (its perplexity), "
            f"the smaller model between about {number(e.plan_perplexity)}: {number(e.ratio)} times as many{sure}.",
            *(() if told else ("One text gives no interval: judge it on more texts.",)),
            f"In {percent(e.top1_agreement)} of places both name the same next token.",
        ),
    )


def number(value: float, digits: int = 3) -> str:
    """Return a figure with `digits` decimals, fewer where it is large; NaN and infinity in words."""
    if value is None or math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "beyond any number"
    if abs(value) >= 1e7:
        return f"{value:.2e}"
    return f"{value:,.{digits if abs(value) < 10 else min(digits, 2) if abs(value) < 1000 else 0}f}"


def many(value: float) -> str:
    """Return a count as people say it: 134.5 M."""
    for unit, name in ((1e9, " B"), (1e6, " M")):
        if value >= unit:
            return f"{value / unit:,.1f}{name}"
    return f"{value:,.0f}"


def bytes_of(value: float) -> str:
    """Return bytes in decimal units."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:,.{2 if unit == 1e9 else 1}f} {name}"
    return f"{value:,.0f} bytes"


def percent(share: float) -> str:
    """Return a share in [0, 1] as percent."""
    return "not a number" if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def change(before: float, after: float) -> str:
    """Return by how much a figure changed, in percent."""
    return f"{100 * (after / before - 1):+.1f} %".replace("-", "−") if before else "–"


# --- Tables ---


def gains(
    spec: ModelSpec, plan: DepthPlan, speed: Mapping[str, Any] | None, memory: Mapping[str, Any] | None
) -> list[tuple[str, str, str, str]]:
    """Return rows (what, source, plan, change) of all that gets smaller or faster."""
    parameters, size = weigh(spec, plan)
    rows = [
        ("Layers", str(plan.source_depth), str(plan.depth), change(plan.source_depth, plan.depth)),
        ("Parameters", f"{spec.parameters:,}", f"{parameters:,}", change(spec.parameters, parameters)),
        (f"Weights in memory ({spec.dtype})", bytes_of(spec.bytes), bytes_of(size), change(spec.bytes, size)),
    ]
    if memory is not None:
        before, after = memory["source_cache"], memory["plan_cache"]
        label = f"Working memory for {memory['context']:,} tokens of text" + (f" × {memory['batch']}" if memory["batch"] > 1 else "")
        rows.append((label + " (KV cache)", bytes_of(before), bytes_of(after), change(before, after)))
        rows.append(("Checkpoint on disk", "–", bytes_of(memory["plan_disk"]), "–"))
    if speed is not None:
        for name, part in (("Reading a prompt", "prefill"), ("Writing", "decode")):
            before, after = speed[f"source_{part}"], speed[f"plan_{part}"]
            times = f"{number(speed[f'{part}_ratio'], 2)}× as fast"
            rows.append((f"{name}, tokens a second, measured", number(before, 1), number(after, 1), times))
        if "source_peak" in speed:
            before, after = speed["source_peak"], speed["plan_peak"]
            rows.append(("Most memory held while doing so", bytes_of(before), bytes_of(after), change(before, after)))
        rows.append(("Writing, if layers were all that takes time", "–", "–", f"{number(1 / speed['depth_ratio'], 2)}× as fast"))
    return rows


def _settings(source: ModelSource, fingerprint: str, plan: DepthPlan, evaluation: Evaluation | None) -> dict[str, Any]:
    rows: dict[str, Any] = {"model": str(source), "revision": source.revision or "–", "dtype asked for": source.dtype}
    rows |= {"device": source.device, "fingerprint of config and weights": fingerprint, "method": plan.method}
    rows |= {
        f"method: {key}": json.dumps(_plain(value), default=str) if isinstance(value, tuple) else value for key, value in plan.settings
    }
    if evaluation is not None:
        rows |= {f"protocol: {key}": value for key, value in asdict(evaluation.protocol).items()}
    return rows


def _records(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value for key, value in facts.items()}


def _fitted_to(plan: DepthPlan, facts: Mapping[str, Any]) -> set[Any]:
    """Return the fingerprints of the texts that the plan was made with."""
    named = {value for key, value in plan.settings if key in ("calibration", "practice")}
    return named | {_records(facts)[key].get("fingerprint") for key in ("calibration", "practice") if facts.get(key)}


def commands(source: ModelSource, plan: DepthPlan, evaluation: Evaluation | None, facts: Mapping[str, Any]) -> list[str]:
    """Return the lines that repeat this in a terminal; a line that begins with # says what to bring."""
    model = str(source) + (f"@{source.revision}" if source.kind == "hub" and source.revision else "")
    opened = f"--model {shlex.quote(model)} --dtype {source.dtype}"
    settings, lines = dict(plan.settings), []
    if plan.method == "laco" and not plan.repairs and {"C", "I", "T", "lowest", "highest", "rule", "similarity"} <= settings.keys():
        texts, note = _texts(_records(facts).get("calibration") or {}, "calibration")
        lines += [*note, f"layerscope propose {opened} --device {source.device} --calibration {texts}"]
        lines[-1] += "".join(f" -{name} {settings[name]}" for name in "CIT")
        lines[-1] += "".join(f" --{name} {settings[name]}" for name in ("lowest", "highest", "rule", "similarity")) + " --out plan.json"
    else:
        lines.append("# plan.json is the plan below" + ("; put plan.repairs.safetensors beside it" if plan.repairs else ""))
    if evaluation is not None:
        protocol = evaluation.protocol
        texts, note = _texts({"name": protocol.texts}, "evaluation")
        lines += [*note, f"layerscope evaluate --plan plan.json {opened} --device {source.device} --text {texts}"]
        lines[-1] += f" --context {protocol.context} --stride {protocol.stride} --tokens {protocol.tokens}"
    return [*lines, f"layerscope export --plan plan.json {opened} --out pruned"]


def _texts(record: Mapping[str, Any], purpose: str) -> tuple[str, list[str]]:
    """Return what names these texts to the terminal, and a remark where they are no file that it knows of."""
    name = str(record.get("name", "english")).removeprefix(f"{purpose}-")
    if name in BUNDLED or "/" in name or "." in name:
        return shlex.quote(name), []
    return f"{purpose}.txt", [f"# {purpose}.txt holds the {purpose} texts, one a line"]


# --- Pictures ---


def strip(plan: DepthPlan, upright: bool) -> dict[str, Any]:
    """Return the strip's shapes: source layers in one row, the plan's blocks in the next, and links between them.

    Lengths are SVG units. `upright` turns rows into columns, for narrow screens, with room for a word in each cell.
    """
    depth = plan.source_depth
    cell, high, between = (22.0, 128.0, 64.0) if upright else (max(min(960 / depth, 56.0), 8.0), 34.0, 48.0)
    gap = 3.0 if cell > 14 else 1.5
    homes, donors = {block.home: block for block in plan.blocks}, {layer for block in plan.blocks for layer, _ in block.mix}
    shift = (depth - plan.depth) * cell / 2  # the plan's row is centred

    def cell_of(along: float, row: int, kind: str, layer: int, **more: Any) -> dict[str, Any]:
        a, b = along + gap / 2, row * (high + between) + 2
        box = (b, a, high, cell - gap) if upright else (a, b, cell - gap, high)
        return {"box": tuple(round(value, 2) for value in box), "kind": kind, "layer": layer, "row": row, "repaired": False, **more}

    cells, links = [], []
    for layer in range(depth):
        block = homes.get(layer)
        kind = ("home" if folded(block) else "kept") if block else "donor" if layer in donors else "gone"
        cells.append(cell_of(layer * cell, 0, kind, layer, title=f"Source layer {layer}: {KINDS[kind][1]}"))
    for place, block in enumerate(plan.blocks):
        layers, left = [block.home, *(layer for layer, _ in block.mix)], shift + place * cell
        ends = [min(layers) * cell + gap / 2, (max(layers) + 1) * cell - gap / 2, left + cell - gap / 2, left + gap / 2]
        points = [(along, 2 + high + (between if corner > 1 else 0)) for corner, along in enumerate(ends)]
        outline = " ".join(f"{y:.2f},{x:.2f}" if upright else f"{x:.2f},{y:.2f}" for x, y in points)
        links.append({"points": outline, "folded": folded(block)})
        mix = " + ".join(f"{layer}" if weight == 1 else f"{weight:.3g}·{layer}" for layer, weight in block.mix)
        title = f"Block {place} stands in for layer {block.home}, projections of {mix}" + (", repaired" if block.repair else "")
        kind = "home" if folded(block) else "kept"
        cells.append(cell_of(left, 1, kind, block.home, title=title, place=place, mix=mix, repaired=bool(block.repair)))
    width, height = (2 * high + between + 4, depth * cell + 2) if upright else (depth * cell + 2, 2 * high + between + 4)
    return {"cells": cells, "links": links, "width": width, "height": height, "cell": cell, "upright": upright, "words": KINDS}


KINDS = {
    "kept": ("kept", "kept as it is"),
    "home": ("folded", "other layers fold into it; it keeps its place and its norms"),
    "donor": ("absorbed", "absorbed: its projections live on in the layer it folds into"),
    "gone": ("dropped", "dropped: nothing of it is left"),
}


def folded(block: Block) -> bool:
    """True where a block's projections are not simply those of its home layer."""
    return block.mix != ((block.home, 1.0),)


def charts(profile: Profile, plan: DepthPlan, evaluation: Evaluation | None, frontier: Frontier | None) -> dict[str, Any]:
    """Return what the page's script draws: plain JSON, floats to six digits, NaN and infinity as null."""
    touched = sorted(set(range(plan.source_depth)) - {b.home for b in plan.blocks} | {b.home for b in plan.blocks if folded(b)})
    shown: dict[str, Any] = {
        "similarity": profile.similarity,
        "influence": [layer.block_influence for layer in profile.layers],
        "touched": touched,
        "runs": runs(touched),
        "depth": plan.depth,
    }
    if evaluation is not None:
        rises = [((text.plan_nll - text.source_nll) / text.tokens, text.tokens) for text in evaluation.texts]
        shown["texts"] = [{"ratio": math.exp(min(rise, 700.0)), "tokens": tokens} for rise, tokens in rises]
        shown |= {"ratio": evaluation.ratio, "low": evaluation.ratio_low, "high": evaluation.ratio_high}
    if frontier is not None:
        shown["steps"] = [{"from": step.t_from, "to": step.t_to, "depth": step.proposal.plan.depth} for step in frontier.steps]
        shown["chosen"] = next((i for i, step in enumerate(frontier.steps) if step.proposal.plan.blocks == plan.blocks), None)
    rounded: dict[str, Any] = _plain(shown, 6)
    return rounded


def _plain(value: Any, digits: int | None = None) -> Any:
    """Return what JSON can hold: mappings and lists, floats rounded where `digits` are given, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {key: _plain(item, digits) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item, digits) for item in value]
    if isinstance(value, float):
        return None if not math.isfinite(value) else value if digits is None else float(f"{value:.{digits}g}")
    return value
