"""A report of a plan for people who were not there: one HTML file that opens anywhere, offline, and fetches nothing.

The words, tables and the strip are plain HTML and SVG; the charts are drawn by one copy of plotly.js, taken as text from
plotly's wheel. What is drawn stands in the file as JSON, so that every figure can be read back.
"""

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.cache import plain
from engine.export.pictures import charts, strip
from engine.judge.cost import LEVELS
from engine.models.texts import BUNDLED, assets_folder
from engine.plans.files import plan_to_json
from engine.plans.words import describe, weigh
from engine.types import DepthPlan, Evaluation, Frontier, ModelSource, ModelSpec, Profile


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
    tasks: list[dict[str, Any]] | None = None,
) -> str:
    """Return the whole page, about 5 MB of UTF-8 text.

    `samples`, `speed`, `memory` and `tasks` are `dataclasses.asdict` of the records of engine.judge. `facts` holds what else a
    repetition needs: "versions" (a mapping), "calibration", "practice" and "evaluation" (a Calibration, or a mapping with
    name, fingerprint and texts, either the texts themselves or their number), "commands" (lines that replace the terminal
    commands made here); anything else is listed as it is.
    """
    parameters, size = weigh(spec, plan)
    weakest = sorted((layer.block_influence, layer.index) for layer in profile.layers if math.isfinite(layer.block_influence))
    environment = Environment(
        loader=FileSystemLoader(assets_folder()), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number, many=many, size=bytes_of, percent=percent)
    environment.globals.update(change=change)
    recipe = json.dumps(plain(plan_to_json(plan)), allow_nan=False, default=str)
    return environment.get_template("report.html.j2").render(
        spec=spec,
        source=source,
        fingerprint=fingerprint,
        plan=plan,
        profile=profile,
        evaluation=evaluation,
        frontier=frontier,
        samples=plain(samples or []),
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
        tasks=plain(tasks or []),
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
            times = as_fast(before, after, speed[f"{part}_ratio"])
            rows.append((f"{name}, tokens a second, measured", number(before, 1), number(after, 1), times))
        if "source_peak" in speed:
            before, after = speed["source_peak"], speed["plan_peak"]
            rows.append(("Most memory held while doing so", bytes_of(before), bytes_of(after), change(before, after)))
        rows.append(("Writing, if layers were all that takes time", "–", "–", f"{number(1 / speed['depth_ratio'], 2)}× as fast"))
    return rows


def as_fast(before: float, after: float, ratio: float) -> str:
    """Return in words how fast a plan is: a ratio that rounds to 1, or that the two figures beside it contradict, is none."""
    if f"{ratio:.2f}" == "1.00" or (after - before) * (ratio - 1) < 0:
        return "as fast as the source"
    return f"{number(ratio, 2)}× as fast"


def _settings(source: ModelSource, fingerprint: str, plan: DepthPlan, evaluation: Evaluation | None) -> dict[str, Any]:
    rows: dict[str, Any] = {"model": str(source), "revision": source.revision or "–", "dtype asked for": source.dtype}
    rows |= {"device": source.device, "fingerprint of config and weights": fingerprint, "method": plan.method}
    rows |= {f"method: {key}": json.dumps(plain(value), default=str) if isinstance(value, tuple) else value for key, value in plan.settings}
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
