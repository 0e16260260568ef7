"""The terminal: the page's verbs for scripts and for machines without a screen.

JSON goes to the file that --out names, or to standard output; progress goes to standard error. A person's mistake ends
with exit code 2 and one line on standard error.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from engine.errors import LayerscopeError
from engine.jobs import Job, Progress, drain
from engine.settings import LacoSettings, about

T_ = TypeVar("T_")
_MAPS = ".repairs.safetensors"  # a plan's repairs lie beside its file
app = typer.Typer(
    add_completion=False, rich_markup_mode=None, help=__doc__.splitlines()[0], context_settings={"help_option_names": ["-h", "--help"]}
)

Source = Annotated[str, typer.Option("--model", metavar="SRC", help="demo, a folder with safetensors, a .gguf file, or hub:org/name")]
Texts = Annotated[
    str, typer.Option("--calibration", metavar="FILE", help="UTF-8, one text a line; or english / korean for the bundled texts")
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="where the JSON goes; standard output when left out")]
Dtype = Annotated[str, typer.Option(help="auto (as stored), float32, bfloat16 or float16")]
Device = Annotated[str, typer.Option(help="cpu, or cuda where there is one")]
Rule = Annotated[str, typer.Option(help=about("rule")["help"])]
Width = Annotated[int, typer.Option("-C", help=about("C")["help"])]
Interval = Annotated[int, typer.Option("-I", help=about("I")["help"])]
Threshold = Annotated[float, typer.Option("-T", help=about("T")["help"])]
Lowest = Annotated[int, typer.Option(help=about("lowest")["help"])]
Highest = Annotated[int | None, typer.Option(help=about("highest")["help"])]
PlanFile = Annotated[
    Path,
    typer.Option(
        "--plan",
        metavar="FILE.json",
        help="a plan: what propose, baseline, search or repair wrote, one step of a map, or one saved on the page",
    ),
]
Keep = Annotated[int, typer.Option(help="layers to keep")]
Practice = Annotated[
    str, typer.Option("--text", metavar="FILE", help="texts to practise on, UTF-8, one a line; or english / korean for the bundled texts")
]
PracticeTokens = Annotated[int, typer.Option("--tokens", help="how many tokens of them to use at most")]
Goal = Annotated[str, typer.Option(help="what is made small: kl (to the source), perplexity or cosine")]
Definition = Annotated[str, typer.Option("--similarity", help=about("similarity")["help"])]


@app.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        open_app()


@app.command()
def propose(
    model: Source = "demo",
    rule: Rule = "reference",
    c: Width = 4,
    i: Interval = 2,
    t: Threshold = 0.65,
    lowest: Lowest = 1,
    highest: Highest = None,
    similarity: Definition = "flattened",
    calibration: Texts = "english",
    dtype: Dtype = "auto",
    device: Device = "cpu",
    out: Out = None,
) -> None:
    """Run Layer Collapse (Algorithm 1) at one T and write every trial and the plan."""
    from engine.methods.laco import propose as run
    from ui.wire import proposal_to_json

    settings = LacoSettings(c, i, t, lowest, highest, rule, similarity)  # type: ignore[arg-type]
    meter = _open_meter(model, dtype, device, calibration, settings)
    proposal = _shown(run(meter, settings))
    _write(proposal_to_json(proposal), out)


@app.command("map")
def map_(
    model: Source = "demo",
    rule: Rule = "reference",
    c: Width = 4,
    i: Interval = 2,
    lowest: Lowest = 1,
    highest: Highest = None,
    t_min: Annotated[float, typer.Option(help="how low T may go")] = 0.5,
    similarity: Definition = "flattened",
    calibration: Texts = "english",
    dtype: Dtype = "auto",
    device: Device = "cpu",
    out: Out = None,
) -> None:
    """Write every plan that Layer Collapse can reach over all T from 1 down to --t-min, exactly, each with its interval."""
    from engine.frontier import frontier, require_t_min
    from ui.wire import frontier_to_json

    settings = LacoSettings(c, i, 1.0, lowest, highest, rule, similarity)  # type: ignore[arg-type]
    require_t_min(t_min)
    meter = _open_meter(model, dtype, device, calibration, settings)
    _write(frontier_to_json(_shown(frontier(meter, settings, t_min))), out)


@app.command()
def profile(
    model: Source = "demo",
    calibration: Texts = "english",
    removal: Annotated[bool, typer.Option(help="also measure perplexity with each layer alone removed (slower)")] = False,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    out: Out = None,
) -> None:
    """Measure which layers repeat each other: similarity of hidden states, block influence, angular and weight distance."""
    from engine.methods.minitron import removal_perplexity
    from engine.profiling import profile as run
    from engine.profiling import weight_distance
    from ui.wire import profile_to_json

    meter = _open_meter(model, dtype, device, calibration)
    measured = _shown(run(meter.captures))
    weights = _shown(weight_distance(meter.model))
    without = _shown(removal_perplexity(meter)) if removal else None
    _write(profile_to_json(measured, weights, without), out)


@app.command()
def export(
    plan: PlanFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="the folder to make; it must not exist")],
    model: Source = "demo",
    dtype: Dtype = "auto",
    shard_size: Annotated[str, typer.Option(help="largest size of one weights file, such as 5GB or 500MB")] = "5GB",
) -> None:
    """Write the checkpoint that a plan describes, and check it in a fresh process. Exits 1 when a check fails."""
    from dataclasses import asdict

    from engine.export import export as run
    from engine.export import parse_size
    from engine.loading import resolve
    from engine.plans import require_depth
    from engine.sources import parse_source
    from ui.wire import trials_from_json

    source, chosen, shard_bytes = parse_source(model, dtype), _read_plan(plan), parse_size(shard_size)
    folder, spec = _shown(resolve(source))
    require_depth(chosen, spec.depth)
    kept = json.loads(plan.read_text(encoding="utf-8"))
    provenance = {"settings": dict(chosen.settings), **({"trials": trials_from_json(kept["trials"])} if "trials" in kept else {})}
    report = _shown(run(source, folder, chosen, out, dtype, shard_bytes, provenance))
    _write({**asdict(report), "passed": report.passed}, None)
    if not report.passed:
        raise typer.Exit(1)


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
    out: Out = None,
) -> None:
    """Judge a plan beside its source: perplexity, KL divergence, top-1 agreement, with the spread over texts."""
    from engine.calibration import texts_for
    from engine.evaluation import Judge
    from engine.plans import require_depth
    from ui.wire import evaluation_to_json

    chosen, texts = _read_plan(plan), texts_for(text, "evaluation")
    opened = _open(model, dtype, device, lambda spec: require_depth(chosen, spec.depth))
    judge = Judge(opened, texts, context, stride, tokens)
    _write(evaluation_to_json(_shown(judge.judge(chosen))), out)


@app.command()
def baseline(
    method: Annotated[str, typer.Option(help="bi (ShortGPT), angular, sleb (greedy), tail or random")],
    keep: Keep,
    model: Source = "demo",
    text: Practice = "english",
    tokens: PracticeTokens = 512,
    objective: Goal = "kl",
    seed: Annotated[int, typer.Option(help="for random")] = 0,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    out: Out = None,
) -> None:
    """Write the plan that another method would make for so many layers."""
    from engine.methods.baselines import baseline as run
    from engine.methods.baselines import require_baseline, require_target

    require_baseline(method)
    goal = _objective(model, dtype, device, text, tokens, objective, lambda spec: require_target(spec.depth, keep))
    _write_plan(_shown(run(goal, method, keep, seed)), out)


@app.command()
def search(
    model: Source = "demo",
    keep: Annotated[int | None, typer.Option(help="layers to keep")] = None,
    parameters: Annotated[float | None, typer.Option(help="or: at most so many parameters")] = None,
    gigabytes: Annotated[
        float | None, typer.Option(help="or: at most so much memory, weights and the KV cache of --context tokens")
    ] = None,
    context: Annotated[int, typer.Option(help="tokens of KV cache that --gigabytes counts")] = 0,
    batch: Annotated[int, typer.Option(help="sequences of that length")] = 1,
    objective: Goal = "kl",
    seconds: Annotated[float, typer.Option(help="how long to search at most")] = 120.0,
    repaired: Annotated[bool, typer.Option("--repair", help="repair the best few plans and take the best of those")] = False,
    exhaustive: Annotated[bool, typer.Option(help="try every plan; only for models small enough")] = False,
    text: Practice = "english",
    tokens: PracticeTokens = 512,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    out: Out = None,
) -> None:
    """Search for a better plan than the greedy ones, for a target; the best plan after --seconds is written."""
    from engine.repair import objective_for_repair, repair_best, require_repair
    from engine.search import Search, Target, layers_for
    from ui.wire import search_to_json

    target = Target(keep, parameters, None if gigabytes is None else gigabytes * 1e9, context, batch)
    goal = _objective(model, dtype, device, text, tokens, objective, target.check)
    wider = objective_for_repair(goal) if repaired else goal
    if repaired:
        require_repair(wider)
    run = Search(goal, layers_for(goal.model.spec, goal.model.config, target), seconds)
    found = _shown(run.exhaust() if exhaustive else run.run())
    if repaired:
        found = (*found, _shown(repair_best(wider, run.best(3))))
    _write(search_to_json(found), out)
    _keep_maps(found[-1].plan, out)


@app.command()
def repair(
    plan: PlanFile,
    kind: Annotated[str, typer.Option(help="ridge (a map at each seam) or scalar (one factor at each seam)")] = "ridge",
    model: Source = "demo",
    text: Practice = "english",
    tokens: PracticeTokens = 4096,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    out: Out = None,
) -> None:
    """Repair a plan's seams without training, each where held-out text improves. The maps are written beside --out."""
    from engine.plans import require_depth
    from engine.repair import repair as run
    from engine.repair import require_kind

    require_kind(kind)
    chosen = _read_plan(plan)
    goal = _objective(model, dtype, device, text, tokens, "kl", lambda spec: require_depth(chosen, spec.depth))
    _write_plan(_shown(run(goal, chosen, kind)), out)


@app.command()
def tasks(
    plan: PlanFile,
    model: Source = "demo",
    names: Annotated[
        str, typer.Option("--tasks", help="tasks of lm-evaluation-harness, with commas; bundled runs our two without it, offline")
    ] = "bundled",
    limit: Annotated[int | None, typer.Option(help="items of each task at most")] = None,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    out: Out = None,
) -> None:
    """Score source and plan on tasks, with standard errors; other tasks than ours need layerscope[eval] and a network."""
    from dataclasses import asdict

    from engine.harness import evaluate_tasks, score_bundled
    from engine.plans import require_depth

    chosen = _read_plan(plan)
    opened = _open(model, dtype, device, lambda spec: require_depth(chosen, spec.depth))
    job = score_bundled(opened, chosen, limit) if names == "bundled" else evaluate_tasks(opened, chosen, names.split(","), limit)
    _write([asdict(score) for score in _shown(job)], out)


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
    text: Annotated[str, typer.Option(metavar="FILE", help="texts to judge on; or english / korean for the bundled ones")] = "english",
    tokens: Annotated[int, typer.Option(help="how many tokens to judge on at most")] = 2000,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    out: Out = None,
) -> None:
    """Run one of the LaCo paper's ablations: plans that differ in one thing, each judged on held-out text."""
    from engine.ablations import ablate as run
    from engine.ablations import ablation_to_json, require_ablation
    from engine.calibration import texts_for
    from engine.evaluation import Judge

    require_ablation(name)
    settings, texts = LacoSettings(c, i, t, lowest, highest, rule, similarity), texts_for(text, "evaluation")  # type: ignore[arg-type]
    meter = _open_meter(model, dtype, device, calibration, settings)
    _write(ablation_to_json(_shown(run(name, meter, Judge(meter.model, texts, limit=tokens), settings))), out)


@app.command()
def report(
    plan: PlanFile,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="where the report goes")],
    model: Source = "demo",
    calibration: Texts = "english",
    text: Annotated[str, typer.Option(metavar="FILE", help="texts to judge on; or english / korean for the bundled ones")] = "english",
    tokens: Annotated[int, typer.Option(help="how many tokens to judge on at most")] = 4000,
    writing: Annotated[bool, typer.Option(help="let source and plan continue the same prompts, side by side")] = True,
    speed: Annotated[bool, typer.Option(help="measure speed too")] = True,
    dtype: Dtype = "auto",
    device: Device = "cpu",
) -> None:
    """Write one HTML file for stakeholders that opens offline: what the model is, where it repeats, what the plan costs."""
    from dataclasses import asdict

    from engine.calibration import texts_for
    from engine.evaluation import Judge
    from engine.export import versions
    from engine.generation import generate_beside
    from engine.plans import require_depth
    from engine.profiling import profile as run_profile
    from engine.report import report_html
    from engine.speed import measure_speed, memory_of

    chosen, texts = _read_plan(plan), texts_for(text, "evaluation")
    meter = _open_meter(model, dtype, device, calibration)
    opened = meter.model
    require_depth(chosen, opened.spec.depth)
    judged = _shown(Judge(opened, texts, limit=tokens).judge(chosen))
    samples = [asdict(sample) for sample in _shown(generate_beside(opened, chosen))] if writing else None
    timed = asdict(_shown(measure_speed(opened, chosen))) if speed else None
    facts = {"versions": versions(), "calibration": meter.calibration, "evaluation": texts}
    seen = _shown(run_profile(meter.captures))
    weighed = asdict(memory_of(opened, chosen))
    html = report_html(opened.spec, opened.source, opened.fingerprint, chosen, seen, judged, None, samples, timed, weighed, facts)
    _write_text(html, out)


@app.command("app")
def open_app(
    model: Source = "demo",
    host: Annotated[str, typer.Option(help="the address to listen at; 127.0.0.1 is this machine only")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port to listen at")] = 7860,
    exports: Annotated[Path, typer.Option(metavar="DIR", help="the folder that the page may export into")] = Path("exports"),
    browser: Annotated[
        bool | None, typer.Option("--browser/--no-browser", help="open a browser window; left out, one is opened where there is a screen")
    ] = None,
) -> None:
    """Open the page."""
    if not 0 <= port <= 65_535:
        raise LayerscopeError(f"there is no port {port}; choose one between 1 and 65535, or 0 for any that is free")
    from ui.app import serve

    serve(model, host, port, exports, browser)


def _open(model: str, dtype: str, device: str, check: Callable[[Any], object]) -> Any:
    from engine.loading import open_model
    from engine.sources import parse_source

    return _shown(open_model(parse_source(model, dtype, device), check))


def _objective(model: str, dtype: str, device: str, text: str, tokens: int, name: str, check: Callable[[Any], object]) -> Any:
    from engine.calibration import texts_for
    from engine.objectives import Objective, require_objective

    require_objective(name)
    texts = texts_for(text, "practice")
    return Objective(_open(model, dtype, device, check), texts, name, tokens)


def _read_plan(path: Path) -> Any:
    """Read a plan, and the maps of its repairs where they lie beside it."""
    from engine.plans import read_plan
    from engine.surgery import unpack_maps

    plan = read_plan(path)
    unpack_maps(path.with_suffix(_MAPS))
    return plan


def _write_plan(plan: Any, out: Path | None) -> None:
    from engine.plans import plan_to_json

    _write(plan_to_json(plan), out)
    _keep_maps(plan, out)


def _keep_maps(plan: Any, out: Path | None) -> None:
    """Write a repaired plan's maps beside its file, so that both can go to another machine."""
    from engine.surgery import pack_maps

    marks = [block.repair for block in plan.blocks if block.repair]
    if out is not None and marks:
        pack_maps(marks, out.with_suffix(_MAPS))


def _open_meter(model: str, dtype: str, device: str, calibration: str, settings: Any = None) -> Any:
    """Check everything that can be checked cheaply, then open the model; what is wrong is said before anything is slow."""
    from engine.calibration import texts_for
    from engine.similarity import SimilarityMeter

    texts = texts_for(calibration)
    return SimilarityMeter(_open(model, dtype, device, lambda spec: settings and settings.checked(spec.depth)), texts)


def _shown(job: Job[T_]) -> T_:
    """Run a job, its progress on standard error: one line that rewrites itself, or a line every few seconds in a log."""
    live, last = sys.stderr.isatty(), time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last
        if not live and time.monotonic() - last < 5:
            return
        last = time.monotonic()
        share = "" if progress.fraction is None else f" {progress.fraction:4.0%}"
        sys.stderr.write(f"\r\x1b[2K{progress.label}{share}" if live else f"{progress.label}{share}\n")
        sys.stderr.flush()

    try:
        return drain(job, show)
    finally:
        if live:
            sys.stderr.write("\r\x1b[2K")


def _write(value: Any, out: Path | None) -> None:
    from ui.wire import plain

    text = json.dumps(plain(value), indent=1, allow_nan=False) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    _write_text(text, out)


def _write_text(text: str, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LayerscopeError(f"{out} cannot be written: {error.strerror}") from error


def main() -> None:
    """Run the command line; the entry point of `layerscope` and of `python -m ui`."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except typer.TyperException as error:
        _stop(error.format_message() if hasattr(error, "format_message") else str(error))
    except LayerscopeError as error:
        _stop(str(error))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)


def _stop(message: str) -> None:
    sys.stderr.write("layerscope: " + " ".join(message.split()) + "\n")
    sys.exit(2)
