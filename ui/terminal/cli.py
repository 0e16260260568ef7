"""The terminal: the page's verbs for scripts and for machines without a screen.

JSON goes to the file that --out names, or to standard output; progress goes to standard error. A user error exits with code 2 and one line
on standard error.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import LayerscopeError
from engine.export.settings import EXPORT, ExportSettings
from engine.methods.depth.laco import PROPOSE, LacoSettings
from engine.plans.files import model_of_plan, read_json, signed
from ui.terminal import lab, plans, recovering, reporting, serving
from ui.terminal.derived_options import command
from ui.terminal.options import (
    Exports,
    JsonOutput,
    LowestT,
    ModelOption,
    PlanFile,
    Source,
    TableOutput,
    Texts,
    TrustOption,
    open_meter,
    read_plan_file,
    read_written,
    show_notes,
    shown,
    source_of,
    warn_of_another_model,
    write,
)

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, help=__doc__.splitlines()[0], context_settings={"help_option_names": ["-h", "--help"]}
)


@app.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        serving.open_app()


@command(app, PROPOSE)
def propose(source: Source, settings: LacoSettings, output: JsonOutput, calibration: Texts = "english") -> None:
    from engine.methods.depth.laco import proposal_to_json
    from engine.methods.depth.laco import propose as run

    meter = open_meter(source.parsed(), calibration, settings.checked)
    proposal = shown(run(meter, settings))
    output.write(signed(proposal_to_json(proposal), meter.model))


@command(app, without=("T",))
def map_(
    source: Source,
    laco: LacoSettings,
    output: TableOutput,
    t_min: LowestT = 0.5,
    calibration: Texts = "english",
    judge: Annotated[bool, typer.Option("--judge", help="also measure the cost of each step, on part of the practice texts")] = False,
) -> None:
    """Write every plan that Layer Collapse can reach over all T from 1 down to --t-min, exactly, each with its interval.

    It comes down from T = 1, so that Ctrl-C leaves the upper steps written.
    """
    from engine.search.frontier import Mapping, frontier_to_json, require_t_min

    settings = replace(laco, T=1.0)
    require_t_min(t_min)
    meter = open_meter(source.parsed(), calibration, settings.checked)
    run, known = Mapping(meter, settings, t_min), dict[Any, Any]()
    stopped = None
    try:
        shown(run.run())
        if judge:
            _measure_costs(meter, run.found.steps, known)
    except (KeyboardInterrupt, SystemExit, ValueError) as stop:  # torch may turn a signal's exception into a ValueError
        stopped = stop
    if run.found.steps:
        found = signed(frontier_to_json(run.found, known if judge else None), meter.model)
        output.write_table(found, "map", found["steps"])
    if stopped:
        raise stopped


def _measure_costs(meter: Any, steps: Any, known: dict[Any, Any]) -> None:
    """Measure the costs of a map's plans into `known`, keyed by their blocks."""
    from engine.judge.cost import cost_judge, costs
    from engine.search.frontier import outwards

    judge = cost_judge(meter.model, meter.calibration.name)
    shown(costs(judge, outwards(steps, 0), lambda plan, cost: known.update({plan.blocks: cost})))


@command(app)
def profile(
    source: Source,
    output: TableOutput,
    calibration: Texts = "english",
    removal: Annotated[bool, typer.Option(help="also measure perplexity with each layer alone removed (slower)")] = False,
) -> None:
    """Measure which layers repeat each other: similarity of hidden states, block influence, angular and weight distance."""
    from engine.judge.similarity import cached_profile
    from engine.methods.width.minitron import removal_perplexity
    from engine.passes.profiling import profile_to_json, weight_distance

    meter = open_meter(source.parsed(), calibration)
    measured = shown(cached_profile(meter))
    weights = shown(weight_distance(meter.model))
    without = shown(removal_perplexity(meter)) if removal else None
    found = profile_to_json(measured, weights)
    for layer, perplexity in zip(found["layers"], without.removed, strict=True) if without else ():
        layer["perplexity_without"] = perplexity
    found["perplexity"] = without.source if without else None
    output.write_table(found, "layers", found["layers"])


@command(app, EXPORT)
def export(
    plan: PlanFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="the new folder, or the new .gguf file; it must not exist")],
    asked: ExportSettings,
    model: ModelOption = "demo",
    evaluation: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="the output of evaluate for this plan; its figures go into the model card")
    ] = None,
    measured: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="the output of measure for this plan; its speed goes into the model card")
    ] = None,
    trust: TrustOption = False,
) -> None:
    from dataclasses import asdict

    from engine.export.gguf import export_gguf

    asked.checked()
    source, chosen = source_of(model, asked.dtype, trust=trust), read_plan_file(plan)
    if model_of_plan(read_json(plan)) is not None:
        from engine.models.loading import fingerprint_of, resolve

        warn_of_another_model(fingerprint_of(shown(resolve(source))[0]), plan)
    if asked.form == "safetensors":
        report = _export_safetensors(source, chosen, out, asked, read_json(plan), evaluation, measured)
    elif asked.dtype != "auto" or evaluation is not None or measured is not None:
        raise LayerscopeError("a GGUF export copies tensors unchanged and writes no card; omit --dtype, --evaluation and --measured")
    else:
        report = shown(export_gguf(source, chosen, out))
    write({**asdict(report), "passed": report.passed}, None)
    if not report.passed:
        raise typer.Exit(1)


def _export_safetensors(
    source: Any, chosen: Any, out: Path, asked: ExportSettings, kept: Any, evaluation: Path | None, measured: Path | None
) -> Any:
    from engine.export.checkpoint.export import export as run
    from engine.export.checkpoint.export import parse_size
    from engine.export.provenance import Provenance, gains_from_json, trials_from_json
    from engine.judge.evaluation import evaluation_from_json
    from engine.models.loading import resolve
    from engine.plans.description import require_depth

    shard_bytes = parse_size(asked.shard_size)
    folder, spec = shown(resolve(source))
    show_notes(spec)
    require_depth(chosen, spec.depth)
    gains = None if measured is None else read_written(gains_from_json, read_json(measured), "measure")
    known = Provenance(
        settings=dict(chosen.settings),
        trials=read_written(trials_from_json, kept, "propose") if "trials" in kept else None,
        evaluation=None if evaluation is None else read_written(evaluation_from_json, read_json(evaluation), "evaluate"),
        speed=gains.speed if gains else None,
        memory=gains.memory if gains else None,
    )
    return shown(run(source, folder, chosen, out, asked.dtype, shard_bytes, known))


@command(app)
def models(output: JsonOutput, exports: Exports = Path("exports")) -> None:
    """List the models on this machine: the demo, recently opened models, exports, and the Hugging Face cache."""
    from dataclasses import asdict

    from engine.models.library import library

    output.write([asdict(entry) for entry in library(exports)])


for verbs in (plans, lab, reporting, recovering, serving):
    app.add_typer(verbs.app)


def main() -> None:
    """Run the command line; the entry point of `layerscope` and of `python -m ui`."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        with stoppable():
            sys.exit(app(standalone_mode=False) or 0)
    except typer.TyperException as error:
        _stop(error.format_message() if hasattr(error, "format_message") else str(error))
    except LayerscopeError as error:
        _stop(str(error))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that unfinished files are cleaned up.

    Raises:
        SystemExit: 128 plus the signal's number, also where torch turned the signal's exception into a ValueError, as it does while it
            makes a tensor.
    """
    came: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores SIGINT
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if came:
            raise SystemExit(128 + came[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(message: str) -> None:
    sys.stderr.write("layerscope: " + " ".join(message.split()) + "\n")
    sys.exit(2)
