"""Terminal commands to judge, search and repair; see ui/terminal/reporting.py and ui/terminal/cli.py for the others."""

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from engine.judge.settings import EVALUATE, TASKS, TaskSettings, WindowSettings
from engine.methods.depth.laco import LacoSettings
from engine.plans.files import signed
from engine.search.settings import SEARCH, SWEEP, SearchSettings, SweepSettings, Target
from ui.terminal.derived_options import command
from ui.terminal.options import (
    JsonOutput,
    JudgeTexts,
    JudgeTokens,
    LowestT,
    PlanFile,
    Practice,
    PracticeTokens,
    Source,
    TableOutput,
    Texts,
    made_for,
    open_for,
    open_meter,
    open_objective,
    read_plan_file,
    shown,
    warn_of_another_model,
    write_tensors,
)

app = typer.Typer(add_completion=False)


@command(app, EVALUATE)
def evaluate(
    plan: PlanFile,
    source: Source,
    asked: WindowSettings,
    output: TableOutput,
    text: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="UTF-8, one text a line, disjoint from the calibration; or english / korean for the bundled texts"
        ),
    ] = "english",
) -> None:
    from engine.judge.evaluation import Judge
    from engine.models.texts import texts_for
    from engine.records import to_json

    chosen, texts = read_plan_file(plan), texts_for(text, "evaluation")
    judge = Judge(open_for(chosen, plan, source.parsed()), texts, asked.context, asked.stride, asked.tokens)
    found = to_json(shown(judge.judge(chosen)))
    output.write_table(found, "texts", found["texts"])


@command(app, method="engine.methods.depth.baselines:BASELINES", objective="engine.judge.objectives:OBJECTIVES")
def baseline(
    method: str,
    keep: Annotated[int, typer.Option(help="layers to keep")],
    source: Source,
    output: JsonOutput,
    text: Practice = "english",
    tokens: PracticeTokens = 2048,
    objective: str = "kl",
    **settings: Any,
) -> None:
    """Write the plan of a baseline method for a number of layers."""
    from engine.methods.depth.baselines import BASELINES, require_target
    from engine.methods.depth.baselines import baseline as run

    BASELINES.require(method)
    goal = open_objective(source.parsed(), text, tokens, objective, lambda depth: require_target(depth, keep))
    output.write_plan(shown(run(goal, method, keep, **settings)), goal.model)


@command(app, SEARCH, objective="engine.judge.objectives:OBJECTIVES")
def search(
    source: Source,
    target: Target,
    asked: SearchSettings,
    output: JsonOutput,
    gigabytes: Annotated[float | None, typer.Option(help="or: maximum memory in GB, weights and the KV cache of --context tokens")] = None,
    text: Practice = "english",
    tokens: PracticeTokens = 2048,
) -> None:
    from engine.judge.objectives import search_to_json
    from engine.recover.repair.seam_maps import objective_for_repair, repair_best, require_repair
    from engine.search.search import Search, rivals
    from engine.search.targets import layers_for

    target = replace(target, bytes=None if gigabytes is None else gigabytes * 1e9)
    goal = open_objective(source.parsed(), text, tokens, asked.objective, target.checked)
    wider = objective_for_repair(goal) if asked.repair else goal
    if asked.repair:
        require_repair(wider)
    layers = layers_for(goal.model.spec, goal.model.config, target)
    run = Search(goal, layers, asked.seconds, asked.survivors)
    found = shown(run.exhaust() if asked.exhaustive else run.run())
    others = shown(rivals(goal, layers, found[-1].score)) if asked.exhaustive else None
    if asked.repair:
        found = (*found, shown(repair_best(wider, run.best(3))))
    output.write(signed(search_to_json(found, others), goal.model))
    write_tensors(found[-1].plan, output.out)


@command(app, SWEEP, without=("C", "I", "T", "rule"))
def sweep(
    source: Source,
    asked: SweepSettings,
    laco: LacoSettings,
    output: TableOutput,
    t_min: LowestT = 0.5,
    calibration: Texts = "english",
) -> None:
    from engine.judge.cost import cost_judge
    from engine.search.frontier import require_t_min
    from engine.search.sweep import Sweep, sweep_to_json

    settings = replace(laco, C=2, I=1, T=1.0)
    asked.checked()
    require_t_min(t_min)
    meter = open_meter(source.parsed(), calibration, settings.checked)
    run = Sweep(meter, cost_judge(meter.model, meter.calibration.name), settings, asked.seconds, t_min)
    stopped = None
    try:
        shown(run.run())
    except KeyboardInterrupt as interrupt:
        stopped = interrupt
    found = signed(sweep_to_json(run.entries), meter.model)
    output.write_table(found, "sweep", found["plans"])
    if stopped:
        raise stopped


@command(app, kind="engine.recover.repair.seam_maps:REPAIRS")
def repair(plan: PlanFile, source: Source, output: JsonOutput, kind: str = "ridge", text: Practice = "english", **settings: Any) -> None:
    """Repair a plan's seams without training, where held-out text improves. The maps are written next to --out."""
    from engine.recover.repair.seam_maps import REPAIRS
    from engine.recover.repair.seam_maps import repair as run

    tokens = REPAIRS.require(kind).asked(settings).tokens
    chosen = read_plan_file(plan)
    goal = open_objective(source.parsed(), text, tokens, "kl", made_for(chosen))
    warn_of_another_model(goal.model.fingerprint, plan)
    output.write_plan(shown(run(goal, chosen, kind)), goal.model)


@command(app, TASKS)
def tasks(plan: PlanFile, source: Source, asked: TaskSettings, output: TableOutput) -> None:
    from engine.judge.tasks import run_tasks

    chosen = read_plan_file(plan)
    opened = open_for(chosen, plan, source.parsed())
    scores = [asdict(score) for score in shown(run_tasks(opened, chosen, asked.names, asked.limit))]
    output.write_table(scores, "tasks", scores)


@command(app)
def ablate(
    name: Annotated[str, typer.Argument(help="drop-or-merge, iterative-or-at-once, acceptance, C, I, T or calibration")],
    source: Source,
    settings: LacoSettings,
    output: TableOutput,
    calibration: Texts = "english",
    text: JudgeTexts = "english",
    tokens: JudgeTokens = 2000,
) -> None:
    """Run one of the LaCo paper's ablations: plans that differ in one thing, each evaluated on held-out text."""
    from engine.judge.evaluation import Judge
    from engine.models.texts import texts_for
    from engine.search.ablation_rows import ablation_to_json
    from engine.search.ablations import ablate as run
    from engine.search.ablations import require_ablation

    require_ablation(name)
    texts = texts_for(text, "evaluation")
    meter = open_meter(source.parsed(), calibration, settings.checked)
    found = signed(ablation_to_json(shown(run(name, meter, Judge(meter.model, texts, limit=tokens), settings))), meter.model)
    output.write_table(found, "ablation", found["rows"])
