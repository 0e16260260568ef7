"""Terminal commands for training: recover, shear, and write for a model's own text."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from engine.corpus.settings import WRITE, WritingSettings
from engine.errors import LayerscopeError
from engine.jobs import drain
from engine.recover.run.settings import RECOVER, SHEAR, RecoverySettings, ShearSettings
from engine.types import ModelSource
from ui.terminal.derived_options import command, numbers
from ui.terminal.options import (
    JsonOutput,
    Source,
    open_checked,
    read_plan_file,
    show_notes,
    shown,
    warn_of_another_model,
    write,
)

if TYPE_CHECKING:
    from engine.recover.run.records import LearningRecord

app = typer.Typer(add_completion=False)
TrainingText = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        metavar="TEXT",
        help="training text: self, practice, hub:org/name, or a file or folder of text; may be repeated",
    ),
]


@command(app, RECOVER)
def recover(
    source: Source,
    asked: RecoverySettings,
    plan: Annotated[Path | None, typer.Option(metavar="FILE.json", help="the plan to train")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="the run's folder, which becomes the checkpoint; it must be empty")
    ] = None,
    text: TrainingText = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="continue the run in this folder, with its settings")] = None,
) -> None:
    from engine.export.checkpoint.recovered import recovered
    from engine.recover.run.runs import Run
    from engine.training import parallel

    with parallel.together():
        if parallel.first() and resume is None:
            _begin(plan, out, source.parsed(), text, asked)
        elif resume is not None:
            _require_run(resume, plan)
        run = Run(parallel.agreed(cast(Path, resume or out)))  # `_begin` refuses a run without either
        report = shown(recovered(run)) if parallel.first() else drain(recovered(run))
    if report is None and run.measured:
        write(run.measured, None)
        return
    if report is None:
        raise LayerscopeError(f"{run.folder} was paused; continue with --resume {run.folder}")
    _write(run.record, report)
    if not report.passed:
        raise typer.Exit(1)


def _write(record: "LearningRecord", report: Any) -> None:
    """Write the result of a run: ratios before and after on both held-out texts, tokens and seconds spent, and the checks."""
    found, kind = (
        {side: gaps[text].ratio for side, gaps in (("before", record.before), ("after", record.after)) if gaps}
        for text in ("other", "kind")
    )
    spent = {key: report.summary[key] for key in ("tokens", "seconds")}
    checks = [asdict(check) for check in report.checks]
    if record.track_error is not None:
        sys.stderr.write(f"layerscope: warning: {record.track} failed and receives no further metrics: {record.track_error}\n")
    write({**found, "kind": kind, **spent, "path": report.path, "checks": checks, "passed": report.passed}, None)


def _begin(plan: Path | None, out: Path | None, source: ModelSource, text: list[str] | None, settings: RecoverySettings) -> None:
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
        raise LayerscopeError(f"{folder} is a run of another plan than {plan}; omit --plan, or name another folder")


@command(app, SHEAR)
def shear(
    target: Annotated[str, typer.Option(metavar="JSON", help='the target shape, such as {"layers": 24, "heads": 6, "neurons": 1152}')],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE.json", help="the plan's file; its run is stored next to it and continues when the command is repeated"),
    ],
    source: Source,
    asked: ShearSettings,
    text: TrainingText = None,
) -> None:
    from engine.recover.shear.shearing import begin_shearing, keep_plan
    from engine.recover.shear.shearing import shear as run

    settings = asked.checked()
    wanted = numbers("--target", target)
    opened = open_checked(source.parsed(), lambda _: None)
    begun = begin_shearing(opened, wanted, text or ["self"], settings, out.with_suffix(".run"))
    plan = shown(run(opened, begun))
    if plan is None:
        raise LayerscopeError(f"{begun.folder} was paused; repeat the command to continue")
    JsonOutput(out).write_plan(plan, opened)
    keep_plan(begun, plan, opened)


@command(app, WRITE)
def write_text(
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="the text file, one document per line; an unfinished file is continued")],
    source: Source,
    asked: WritingSettings,
) -> None:
    from engine.corpus.writing import write_own

    settings = asked.checked()
    opened = open_checked(source.parsed(), lambda _: None)
    write(asdict(shown(write_own(opened, out, settings))), None)
