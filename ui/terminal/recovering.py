"""Terminal commands for training: recover, shear, and write for a model's own text."""

import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from engine.corpus.settings import WritingSettings
from engine.errors import LayerscopeError
from engine.jobs import drain
from engine.recover.run.settings import RecoverySettings, ShearSettings
from engine.untrusted import ForeignError, json_of
from ui.terminal.derived_options import option
from ui.terminal.options import (
    Device,
    Dtype,
    Source,
    Trust,
    open_checked,
    read_plan_file,
    show_notes,
    shown,
    source_of,
    warn_of_another_model,
    write,
    write_plan,
)

if TYPE_CHECKING:
    from engine.recover.run.records import LearningRecord

app = typer.Typer(add_completion=False)
Learnt = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        metavar="TEXT",
        help="what to learn from; several times for several: self, practice, hub:org/name, or a file or folder of text",
    ),
]


@app.command()
def recover(
    model: Source = "demo",
    plan: Annotated[Path | None, typer.Option(metavar="FILE.json", help="the plan that learns again")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="the run's folder, which becomes the checkpoint; it must be empty")
    ] = None,
    text: Learnt = None,
    train: Annotated[str, option(RecoverySettings, "train")] = "all",
    loss: Annotated[str | None, option(RecoverySettings, "loss")] = None,
    minutes: Annotated[float | None, option(RecoverySettings, "minutes")] = None,
    tokens: Annotated[int | None, option(RecoverySettings, "tokens")] = None,
    until: Annotated[float | None, option(RecoverySettings, "until")] = None,
    rate: Annotated[float | None, option(RecoverySettings, "rate")] = None,
    rows: Annotated[int, option(RecoverySettings, "rows")] = 4,
    length: Annotated[int, option(RecoverySettings, "length")] = 256,
    accumulate: Annotated[int, option(RecoverySettings, "accumulate")] = 1,
    seed: Annotated[int, option(RecoverySettings, "seed")] = 0,
    own: Annotated[int, option(RecoverySettings, "own")] = 30_000,
    recompute: Annotated[bool, option(RecoverySettings, "recompute")] = False,
    teacher: Annotated[str, option(RecoverySettings, "teacher")] = "auto",
    top: Annotated[int, option(RecoverySettings, "top")] = 64,
    correct_teacher: Annotated[float, option(RecoverySettings, "correct_teacher", metavar="SHARE")] = 0.0,
    update: Annotated[str, option(RecoverySettings, "update")] = "none",
    every: Annotated[int, option(RecoverySettings, "every")] = 50,
    references: Annotated[str | None, option(RecoverySettings, "references", metavar="JSON")] = None,
    measure: Annotated[bool, option(RecoverySettings, "measure")] = False,
    track: Annotated[str, option(RecoverySettings, "track", metavar="NAME")] = "none",
    language: Annotated[str, option(RecoverySettings, "language")] = "english",
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="go on with the run in this folder, as it was asked for")] = None,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
) -> None:
    """Let a pruned model learn again from its source, and write a checkpoint of what came of it. Exits 1 when a check fails."""
    from engine.export.checkpoint.recovered import recovered
    from engine.recover.run.runs import Run
    from engine.training import parallel

    given = {name: value for name, value in locals().items() if name in {entry.name for entry in fields(RecoverySettings)}}
    settings = RecoverySettings(**{**given, "references": references and _numbers("--references", references)})
    with parallel.together():
        if parallel.first() and resume is None:
            _begin(plan, out, source_of(model, dtype, device, trust), text, settings)
        elif resume is not None:
            _require_run(resume, plan)
        run = Run(parallel.agreed(cast(Path, resume or out)))  # `_begin` refuses a run without either
        report = shown(recovered(run)) if parallel.first() else drain(recovered(run))
    if report is None and run.measured:
        write(run.measured, None)
        return
    if report is None:
        raise LayerscopeError(f"{run.folder} was paused; go on with --resume {run.folder}")
    _tell(run.record, report)
    if not report.passed:
        raise typer.Exit(1)


def _tell(record: "LearningRecord", report: Any) -> None:
    """Write the result of a run: ratios before and after on both held-out texts, tokens and seconds spent, and the checks."""
    found, kind = (
        {side: gaps[text].ratio for side, gaps in (("before", record.before), ("after", record.after)) if gaps}
        for text in ("other", "kind")
    )
    spent = {key: report.summary[key] for key in ("tokens", "seconds")}
    checks = [asdict(check) for check in report.checks]
    if record.track_error is not None:
        sys.stderr.write(f"layerscope: warning: {record.track} failed, and was told no more: {record.track_error}\n")
    write({**found, "kind": kind, **spent, "path": report.path, "checks": checks, "passed": report.passed}, None)


def _begin(plan: Path | None, out: Path | None, source: Any, text: list[str] | None, settings: RecoverySettings) -> None:
    from engine.models.loading import fingerprint_of, resolve
    from engine.recover.run.start import begin

    if plan is None or out is None:
        raise LayerscopeError("name a plan and a folder for the run: --plan FILE.json --out DIR; or --resume DIR")
    chosen = read_plan_file(plan)
    folder, spec = shown(resolve(source))
    show_notes(spec)
    warn_of_another_model(fingerprint_of(folder), plan)
    begin(source, spec, chosen, text or ["self"], settings, out)


def _require_run(folder: Path, plan: Path | None) -> None:
    from engine.recover.run.runs import Run

    run = Run(folder)
    known = run.record and run.plan()
    if plan is not None and read_plan_file(plan) != known:
        raise LayerscopeError(f"{folder} is the run of another plan than {plan}; leave --plan out, or name another folder")


@app.command()
def shear(
    target: Annotated[str, typer.Option(metavar="JSON", help='what is left, such as {"layers": 24, "heads": 6, "neurons": 1152}')],
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="where the plan goes; its run, which goes on when asked again, beside it")],
    model: Source = "demo",
    text: Learnt = None,
    tokens: Annotated[int, option(ShearSettings, "tokens")] = 100_000,
    loss: Annotated[str, option(ShearSettings, "loss")] = "ce",
    rate: Annotated[float, option(ShearSettings, "rate")] = 1e-4,
    pull: Annotated[float, option(ShearSettings, "pull")] = 1.0,
    ramp: Annotated[float, option(ShearSettings, "ramp")] = 0.2,
    settle: Annotated[float, option(ShearSettings, "settle")] = 0.1,
    rows: Annotated[int, option(ShearSettings, "rows")] = 4,
    length: Annotated[int, option(ShearSettings, "length")] = 256,
    accumulate: Annotated[int, option(ShearSettings, "accumulate")] = 1,
    seed: Annotated[int, option(ShearSettings, "seed")] = 0,
    own: Annotated[int, option(ShearSettings, "own")] = 30_000,
    every: Annotated[int, option(ShearSettings, "every")] = 50,
    update: Annotated[str, option(ShearSettings, "update")] = "as printed",
    references: Annotated[str | None, option(ShearSettings, "references", metavar="JSON")] = None,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
) -> None:
    """Learn which layers, heads, neurons and channels to leave out, down to a shape, and write a plan (Sheared LLaMA)."""
    from engine.recover.shear.shearing import begin_shearing, keep_plan
    from engine.recover.shear.shearing import shear as run

    given = {name: value for name, value in locals().items() if name in {entry.name for entry in fields(ShearSettings)}}
    settings = ShearSettings(**{**given, "references": references and _numbers("--references", references)}).checked()
    wanted = _numbers("--target", target)
    opened = open_checked(source_of(model, dtype, device, trust), lambda _: None)
    begun = begin_shearing(opened, wanted, text or ["self"], settings, out.with_suffix(".run"))
    plan = shown(run(opened, begun))
    if plan is None:
        raise LayerscopeError(f"{begun.folder} was paused; ask again to go on")
    write_plan(plan, opened, out)
    keep_plan(begun, plan, opened)


def _numbers(name: str, text: str) -> dict[str, Any]:
    """Read an option that is a JSON object of numbers.

    Raises:
        LayerscopeError: it is something else.
    """
    try:
        found = json_of(text)
    except ForeignError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, int | float) for value in found.values()):
        raise LayerscopeError(f'{name} is {text[:80]!r}; write a JSON object of numbers, such as {{"layers": 24}}')
    return found


@app.command("write")
def write_(
    tokens: Annotated[int, option(WritingSettings, "tokens")],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="where the text goes, a document a line; a file begun by it goes on")],
    model: Source = "demo",
    seed: Annotated[int, option(WritingSettings, "seed")] = 0,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
) -> None:
    """Let a model write text of its own to learn again from, sampled at temperature 1 from the beginning of a text."""
    from engine.corpus.writing import write_own

    settings = WritingSettings(tokens, seed).checked()
    opened = open_checked(source_of(model, dtype, device, trust), lambda _: None)
    write(asdict(shown(write_own(opened, out, settings))), None)
