"""Terminal commands to judge, search and repair; see ui/terminal/reporting.py and ui/terminal/cli.py for the others."""

from typing import Annotated, Any

import typer

from engine.methods.depth.laco import LacoSettings
from engine.plans.files import signed
from engine.search.settings import SURVIVORS, SearchSettings, SweepSettings, Target
from ui.terminal.derived_options import command, option
from ui.terminal.options import (
    Definition,
    Device,
    Dtype,
    Exhaustive,
    Highest,
    Interval,
    JudgeTexts,
    JudgeTokens,
    Keep,
    Limit,
    Lowest,
    LowestT,
    Out,
    PlanFile,
    Practice,
    PracticeTokens,
    Repaired,
    Rule,
    Seconds,
    Source,
    TableFormat,
    Texts,
    Threshold,
    Trust,
    Width,
    made_for,
    open_for,
    open_meter,
    open_objective,
    read_plan_file,
    shown,
    source_of,
    warn_of_another_model,
    write,
    write_plan,
    write_table,
    write_tensors,
)

app = typer.Typer(add_completion=False)


@app.command()
def evaluate(
    plan: PlanFile,
    model: Source = "demo",
    text: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="UTF-8, one text a line, disjoint from the calibration; or english / korean for the bundled texts"
        ),
    ] = "english",
    context: Annotated[int, typer.Option(help="tokens in one window")] = 512,
    stride: Annotated[int | None, typer.Option(help="tokens a window moves on; the context when left out")] = None,
    tokens: Annotated[int, typer.Option(help="how many tokens to score at most")] = 20_000,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
    out: Out = None,
    form: TableFormat = "json",
) -> None:
    """Judge a plan beside its source: perplexity, KL divergence, top-1 agreement, with the spread over texts."""
    from engine.judge.evaluation import Judge
    from engine.models.texts import texts_for
    from engine.records import to_json

    chosen, texts = read_plan_file(plan), texts_for(text, "evaluation")
    opened = open_for(chosen, plan, source_of(model, dtype, device, trust))
    judge = Judge(opened, texts, context, stride, tokens)
    found = to_json(shown(judge.judge(chosen)))
    write_table(found, "texts", found["texts"], out, form)


@command(app, method="engine.methods.depth.baselines:BASELINES", objective="engine.judge.objectives:OBJECTIVES")
def baseline(
    method: str,
    keep: Keep,
    model: Source = "demo",
    text: Practice = "english",
    tokens: PracticeTokens = 2048,
    objective: str = "kl",
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
    out: Out = None,
    **settings: Any,
) -> None:
    """Write the plan that another method would make for so many layers."""
    from engine.methods.depth.baselines import BASELINES, require_target
    from engine.methods.depth.baselines import baseline as run

    BASELINES.require(method)
    goal = open_objective(source_of(model, dtype, device, trust), text, tokens, objective, lambda depth: require_target(depth, keep))
    write_plan(shown(run(goal, method, keep, **settings)), goal.model, out)


@command(app, objective="engine.judge.objectives:OBJECTIVES")
def search(
    model: Source = "demo",
    keep: Annotated[int | None, option(Target, "keep")] = None,
    parameters: Annotated[float | None, typer.Option(help="or: at most so many parameters")] = None,
    gigabytes: Annotated[
        float | None, typer.Option(help="or: at most so much memory, weights and the KV cache of --context tokens")
    ] = None,
    context: Annotated[int, option(Target, "context")] = 0,
    batch: Annotated[int, option(Target, "batch")] = 1,
    objective: str = "kl",
    seconds: Seconds = 120.0,
    repaired: Repaired = False,
    exhaustive: Exhaustive = False,
    survivors: Annotated[str, option(SearchSettings, "survivors", help="what may stand at a seam, with commas")] = ",".join(SURVIVORS),
    text: Practice = "english",
    tokens: PracticeTokens = 2048,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
    out: Out = None,
) -> None:
    """Search for a better plan than the greedy ones, for a target; the best plan after --seconds is written."""
    from engine.judge.objectives import search_to_json
    from engine.recover.repair.seam_maps import objective_for_repair, repair_best, require_repair
    from engine.search.search import Search, rivals
    from engine.search.targets import layers_for

    target = Target(keep, parameters, None if gigabytes is None else gigabytes * 1e9, context, batch)
    goal = open_objective(source_of(model, dtype, device, trust), text, tokens, objective, target.checked)
    wider = objective_for_repair(goal) if repaired else goal
    if repaired:
        require_repair(wider)
    layers = layers_for(goal.model.spec, goal.model.config, target)
    run = Search(goal, layers, seconds, tuple(filter(None, survivors.split(","))))
    found = shown(run.exhaust() if exhaustive else run.run())
    others = shown(rivals(goal, layers, found[-1].score)) if exhaustive else None
    if repaired:
        found = (*found, shown(repair_best(wider, run.best(3))))
    write(signed(search_to_json(found, others), goal.model), out)
    write_tensors(found[-1].plan, out)


@app.command()
def sweep(
    model: Source = "demo",
    seconds: Annotated[float | None, option(SweepSettings, "seconds")] = None,
    lowest: Lowest = 1,
    highest: Highest = None,
    t_min: LowestT = 0.5,
    similarity: Definition = "flattened",
    calibration: Texts = "english",
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
    out: Out = None,
    form: TableFormat = "json",
) -> None:
    """Write every plan that Layer Collapse can reach (all rules, C and I), with its cost: the most layers first, then the cheapest.

    It goes best first, so that --seconds, or Ctrl-C, leaves the most useful plans written.
    """
    from engine.judge.cost import cost_judge
    from engine.search.frontier import require_t_min
    from engine.search.sweep import Sweep, sweep_to_json

    settings = LacoSettings(2, 1, 1.0, lowest, highest, similarity=similarity)  # type: ignore[arg-type]
    SweepSettings(seconds).checked()
    require_t_min(t_min)
    meter = open_meter(source_of(model, dtype, device, trust), calibration, settings.checked)
    run = Sweep(meter, cost_judge(meter.model, meter.calibration.name), settings, seconds, t_min)
    stopped = None
    try:
        shown(run.run())
    except KeyboardInterrupt as interrupt:
        stopped = interrupt
    found = signed(sweep_to_json(run.entries), meter.model)
    write_table(found, "sweep", found["plans"], out, form)
    if stopped:
        raise stopped


@command(app, kind="engine.recover.repair.seam_maps:REPAIRS")
def repair(
    plan: PlanFile,
    kind: str = "ridge",
    model: Source = "demo",
    text: Practice = "english",
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
    out: Out = None,
    **settings: Any,
) -> None:
    """Repair a plan's seams without training, each where held-out text improves. The maps are written beside --out."""
    from engine.recover.repair.seam_maps import REPAIRS
    from engine.recover.repair.seam_maps import repair as run

    tokens = REPAIRS.require(kind).asked(settings).tokens
    chosen = read_plan_file(plan)
    goal = open_objective(source_of(model, dtype, device, trust), text, tokens, "kl", made_for(chosen))
    warn_of_another_model(goal.model.fingerprint, plan)
    write_plan(shown(run(goal, chosen, kind)), goal.model, out)


@app.command()
def tasks(
    plan: PlanFile,
    model: Source = "demo",
    names: Annotated[
        str, typer.Option("--tasks", help="tasks of lm-evaluation-harness, with commas; bundled runs our two without it, offline")
    ] = "bundled",
    limit: Limit = None,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
    out: Out = None,
    form: TableFormat = "json",
) -> None:
    """Score source and plan on tasks, with standard errors; other tasks than ours need layerscope[eval] and a network."""
    from dataclasses import asdict

    from engine.judge.tasks import run_tasks

    chosen = read_plan_file(plan)
    opened = open_for(chosen, plan, source_of(model, dtype, device, trust))
    scores = [asdict(score) for score in shown(run_tasks(opened, chosen, names, limit))]
    write_table(scores, "tasks", scores, out, form)


@app.command()
def ablate(
    name: Annotated[str, typer.Argument(help="drop-or-merge, iterative-or-at-once, acceptance, C, I, T or calibration")],
    model: Source = "demo",
    rule: Rule = "reference",
    c: Width = 4,
    i: Interval = 2,
    t: Threshold = 0.65,
    lowest: Lowest = 1,
    highest: Highest = None,
    similarity: Definition = "flattened",
    calibration: Texts = "english",
    text: JudgeTexts = "english",
    tokens: JudgeTokens = 2000,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
    out: Out = None,
    form: TableFormat = "json",
) -> None:
    """Run one of the LaCo paper's ablations: plans that differ in one thing, each judged on held-out text."""
    from engine.judge.evaluation import Judge
    from engine.models.texts import texts_for
    from engine.search.ablation_rows import ablation_to_json
    from engine.search.ablations import ablate as run
    from engine.search.ablations import require_ablation

    require_ablation(name)
    settings, texts = LacoSettings(c, i, t, lowest, highest, rule, similarity), texts_for(text, "evaluation")  # type: ignore[arg-type]
    meter = open_meter(source_of(model, dtype, device, trust), calibration, settings.checked)
    found = signed(ablation_to_json(shown(run(name, meter, Judge(meter.model, texts, limit=tokens), settings))), meter.model)
    write_table(found, "ablation", found["rows"], out, form)
