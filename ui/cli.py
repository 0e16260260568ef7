"""The terminal: the page's verbs for scripts and for machines without a screen.

JSON goes to the file that --out names, or to standard output; progress goes to standard error. A person's mistake ends
with exit code 2 and one line on standard error.
"""

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from engine.errors import LayerscopeError
from engine.jobs import Job, Progress, drain
from engine.settings import LacoSettings, about

T_ = TypeVar("T_")
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
    plan: Annotated[Path, typer.Option(metavar="FILE.json", help="a plan: a propose file, one step of a map, or a plan saved on the page")],
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
    from engine.plans import read_plan, require_depth
    from engine.sources import parse_source

    source, chosen, shard_bytes = parse_source(model, dtype), read_plan(plan), parse_size(shard_size)
    folder, spec = _shown(resolve(source))
    require_depth(chosen, spec.depth)
    kept = json.loads(plan.read_text(encoding="utf-8"))
    provenance = {key: kept[key] for key in ("settings", "trials") if key in kept}
    report = _shown(run(source, folder, chosen, out, dtype, shard_bytes, provenance))
    _write({**asdict(report), "passed": report.passed}, None)
    if not report.passed:
        raise typer.Exit(1)


@app.command("app")
def open_app(
    model: Source = "demo",
    host: Annotated[str, typer.Option(help="the address to listen at; 127.0.0.1 is this machine only")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port to listen at", min=0, max=65535)] = 7860,
    exports: Annotated[Path, typer.Option(metavar="DIR", help="the folder that the page may export into")] = Path("exports"),
    browser: Annotated[
        bool | None, typer.Option("--browser/--no-browser", help="open a browser window; left out, one is opened where there is a screen")
    ] = None,
) -> None:
    """Open the page."""
    from ui.app import serve

    serve(model, host, port, exports, browser)


def _open_meter(model: str, dtype: str, device: str, calibration: str, settings: Any = None) -> Any:
    """Check everything that can be checked cheaply, then open the model; what is wrong is said before anything is slow."""
    from engine.calibration import BUNDLED, bundled, read_texts
    from engine.loading import open_model
    from engine.similarity import SimilarityMeter
    from engine.sources import parse_source

    source = parse_source(model, dtype, device)
    texts = bundled(calibration) if calibration in BUNDLED else read_texts(Path(calibration))
    opened = _shown(open_model(source, lambda spec: settings and settings.checked(spec.depth)))
    return SimilarityMeter(opened, texts)


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
    text = json.dumps(_plain(value), indent=1, allow_nan=False) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LayerscopeError(f"{out} cannot be written: {error.strerror}") from error


def _plain(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
