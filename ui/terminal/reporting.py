"""Terminal commands for a plan's gains and for sharing them: measure and report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.judge.settings import MEASURE, CacheSettings, TaskSettings
from ui.terminal.derived_options import command, option
from ui.terminal.options import (
    JsonOutput,
    JudgeTexts,
    JudgeTokens,
    PlanFile,
    Source,
    Texts,
    Timing,
    Writing,
    made_for,
    open_for,
    open_meter,
    read_plan_file,
    shown,
    warn_of_another_model,
    write_text,
)

app = typer.Typer(add_completion=False)


@command(app, MEASURE)
def measure(
    plan: PlanFile, source: Source, asked: CacheSettings, output: JsonOutput, writing: Writing = True, speed: Timing = True
) -> None:
    chosen = read_plan_file(plan)
    opened = open_for(chosen, plan, source.parsed())
    output.write(_gains(opened, chosen, writing, speed, asked))


def _gains(opened: Any, chosen: Any, writing: bool, speed: bool, cache: CacheSettings) -> dict[str, Any]:
    """Measure source and plan, as JSON; None for what was not requested."""
    from dataclasses import asdict

    from engine.judge.generation import generate_beside
    from engine.judge.memory import memory_of
    from engine.judge.speed import measure_speed

    memory = asdict(memory_of(opened, chosen, cache.context, cache.batch))  # first, because it may raise
    samples = [asdict(sample) for sample in shown(generate_beside(opened, chosen))] if writing else None
    return {"samples": samples, "speed": asdict(shown(measure_speed(opened, chosen))) if speed else None, "memory": memory}


@command(app)
def report(
    plan: PlanFile,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="the report's file")],
    source: Source,
    cache: CacheSettings,
    calibration: Texts = "english",
    text: JudgeTexts = "english",
    tokens: JudgeTokens = 4000,
    writing: Writing = True,
    speed: Timing = True,
    names: Annotated[str | None, typer.Option("--tasks", help="also score tasks: bundled, or names of lm-evaluation-harness")] = None,
    limit: Annotated[int | None, option(TaskSettings, "limit")] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.json", help="another plan to evaluate and show in the same chart; may be repeated"),
    ] = None,
    language: Annotated[str, typer.Option(help="en or ko")] = "en",
) -> None:
    """Write one HTML file for stakeholders that opens offline: two pages of verdict, cost, samples and gains, then all figures."""
    from dataclasses import asdict

    from engine.export.checkpoint.export import versions
    from engine.export.lineage import lineage_of
    from engine.export.report.html import report_html
    from engine.export.report.language import require_language
    from engine.judge.evaluation import Judge
    from engine.judge.similarity import cached_profile
    from engine.judge.tasks import run_tasks
    from engine.models.texts import texts_for
    from engine.plans.description import require_depth, weigh

    require_language(language)
    chosen, texts = read_plan_file(plan), texts_for(text, "evaluation")
    rivals = [(file.stem, read_plan_file(file)) for file in beside or ()]
    for _, rival in rivals:
        require_depth(rival, chosen.source_depth)
    meter = open_meter(source.parsed(), calibration, made_for(chosen))
    opened = meter.model
    warn_of_another_model(opened.fingerprint, plan, *(beside or ()))
    measured = _gains(opened, chosen, writing, speed, cache)
    judge = Judge(opened, texts, limit=tokens)
    judged, others = shown(judge.judge(chosen)), []
    for label, rival in rivals:
        cost = shown(judge.judge(rival)).perplexity
        others.append((label, rival.depth, weigh(opened.spec, rival)[0], cost.ratio, *cost.interval))
    facts = {"versions": versions(), "calibration": meter.calibration, "evaluation": texts}
    seen = shown(cached_profile(meter))
    scores = None if names is None else [asdict(score) for score in shown(run_tasks(opened, chosen, names, limit))]
    described = {**measured, "facts": facts, "tasks": scores, "others": others, "language": language}
    described["lineage"] = lineage_of(opened.source, opened.folder, opened.spec, opened.fingerprint)
    write_text(report_html(opened.spec, opened.source, opened.fingerprint, chosen, seen, judged, None, **described), out)
