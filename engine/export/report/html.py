"""Write a plan's report: one HTML file that opens anywhere, offline, without loading anything.

Text, tables and the strip are plain HTML and SVG; the charts are drawn by one embedded copy of plotly.js from plotly's wheel. Their data
are stored in the file as JSON, so that every number can be read back.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.cache import plain
from engine.export.lineage import learned, sentences_of
from engine.export.report.commands import commands, records
from engine.export.report.figures import bytes_of, change, many, number, percent, spread
from engine.export.report.findings import further, gains, telling, verdict
from engine.export.report.language import speaker
from engine.export.report.pictures import Other, charts, cost_against_size, strip
from engine.judge.evaluation import Evaluation
from engine.models.texts import assets_folder
from engine.passes.profiling import Profile
from engine.plans.description import Say, describe, in_english, weigh
from engine.plans.files import plan_to_json
from engine.plans.provenance import parts
from engine.search.frontier import Frontier
from engine.types import ModelSource, ModelSpec, Plan


def report_html(
    spec: ModelSpec,
    source: ModelSource,
    fingerprint: str,
    plan: Plan,
    profile: Profile,
    evaluation: Evaluation | None,
    frontier: Frontier | None,
    samples: list[dict[str, Any]] | None,
    speed: dict[str, Any] | None,
    memory: dict[str, Any] | None,
    facts: dict[str, Any],
    tasks: list[dict[str, Any]] | None = None,
    others: Sequence[Other] = (),
    language: str = "en",
    lineage: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the HTML, about 5 MB of UTF-8 text: a two-page summary, and all figures in collapsed sections below.

    `samples`, `speed`, `memory` and `tasks` are `dataclasses.asdict` of the records of engine.judge. `facts` holds what a repetition needs:
    "versions" (a mapping), "calibration", "practice" and "evaluation" (a TextSet, or a mapping with name, fingerprint and texts, either the
    texts themselves or their number), "commands" (lines that replace the terminal commands generated here); other entries are listed
    unchanged. `others` are plans of the same model evaluated like `evaluation`; `lineage` is the model's history (see
    engine/export/lineage.py).

    Raises:
        SettingsError: there are no reports in this language.
    """
    say = speaker(language)
    parameters, size = weigh(spec, plan)
    weakest = sorted((layer.block_influence, layer.index) for layer in profile.layers if math.isfinite(layer.block_influence))
    recipe = json.dumps(plain(plan_to_json(plan)), allow_nan=False, default=str)
    given = {"spec": spec, "source": source, "fingerprint": fingerprint, "plan": plan, "profile": profile, "frontier": frontier}
    given |= {"language": language, "evaluation": evaluation, "speed": speed, "others": others}
    script = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    worked_out = {
        "samples": plain(samples or []),
        "sample": telling(samples or [], say),
        "facts": {key: value for key, value in records(facts).items() if key != "commands"},
        "settings": _settings(source, fingerprint, plan, evaluation, say),
        "parameters": parameters,
        "bytes": size,
        "sentences": describe(plan, say),
        "lineage": sentences_of(lineage, say) if len(lineage) > 1 else (),
        "learned": learned(lineage),
        "verdict": verdict(plan, evaluation, say),
        "seen": evaluation is not None and evaluation.protocol.fingerprint in _fitted_to(plan, facts),
        "looped": [sum(bool(sample[side]["loops"]) for sample in samples or []) for side in ("source", "plan")],
        "weakest": [index for _, index in weakest[:3]],
        "strips": [strip(plan, False, say), strip(plan, True, say)],
        "gains": gains(spec, plan, speed, memory, say),
        "further": further(speed, memory, say),
        "tasks": plain(tasks or []),
        "charts": {**charts(profile, plan, evaluation, frontier), "cost": cost_against_size(spec, plan, evaluation, others, say)},
        "recipe": recipe,
        "download": "data:application/json;charset=utf-8," + quote(recipe),
        "commands": facts.get("commands") or commands(source, plan, evaluation, facts),
        "plotly": Markup(script),  # a script must not be escaped
    }
    return _environment(say).get_template("page.html.j2").render(**given, **worked_out)


def _environment(say: Say) -> Environment:
    """Return the environment of the report's templates: `_` translates a sentence, and number filters use a language's words."""
    environment = Environment(
        loader=FileSystemLoader(assets_folder() / "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=lambda value, unsure=None: say(number(value, math.nan if unsure is None else unsure)),
        percent=lambda share: say(percent(share)),
        many=many,
        size=bytes_of,
    )
    environment.globals.update(_=say, change=change, spread=spread)
    return environment


# --- Tables ---


def _settings(source: ModelSource, fingerprint: str, plan: Plan, evaluation: Evaluation | None, say: Say = in_english) -> dict[str, Any]:
    rows: dict[str, Any] = {say("model"): str(source), say("revision"): source.revision or "–", say("requested dtype"): source.dtype}
    rows |= {say("device"): source.device, say("fingerprint of config and weights"): fingerprint, say("method"): plan.method}
    rows |= {say("method: {key}", key=key): _plain(value) for key, value in plan.settings}
    if plan.width is not None:
        rows |= {say("width: {key}", key=key): _plain(value) for key, value in (("method", plan.width.method), *plan.width.settings)}
    if plan.masks is not None:
        rows |= {say("masks: {key}", key=key): _plain(value) for key, value in (("method", plan.masks.method), *plan.masks.settings)}
    if evaluation is not None:
        rows |= {say("protocol: {key}", key=key): value for key, value in asdict(evaluation.protocol).items()}
    return rows


def _plain(value: Any) -> Any:
    return json.dumps(plain(value), default=str) if isinstance(value, tuple) else value


def _fitted_to(plan: Plan, facts: Mapping[str, Any]) -> set[Any]:
    """Return the fingerprints of the texts used to make the plan."""
    named = {value for _, part in parts(plan) for key, value in part.settings if key in ("calibration", "practice")}
    return named | {records(facts)[key].get("fingerprint") for key in ("calibration", "practice") if facts.get(key)}
