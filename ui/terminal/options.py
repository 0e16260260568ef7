"""Shared parts of the terminal commands: options, opening and reading, progress on standard error, JSON output."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from engine.errors import LayerscopeError
from engine.jobs import Job, Progress, drain
from engine.types import ModelSource
from engine.untrusted import ForeignError

T_ = TypeVar("T_")
Check = Callable[[int], object]  # gets the depth before weights are read; may raise
_BEFORE = ".repairs.safetensors"  # former ending of a plan's tensors

Dtype = Annotated[str, typer.Option(help="auto (as stored), float32, bfloat16 or float16")]
Exports = Annotated[Path, typer.Option(metavar="DIR", help="the folder that the page exports into")]
Texts = Annotated[
    str, typer.Option("--calibration", metavar="FILE", help="UTF-8, one text per line; or english / korean for the bundled texts")
]
LowestT = Annotated[float, typer.Option("--t-min", help="the lowest T of the map")]
PlanFile = Annotated[
    Path,
    typer.Option(
        "--plan",
        metavar="FILE.json",
        help="a plan: the output of propose, baseline, search or repair, one step of a map, or a plan saved on the page",
    ),
]
Practice = Annotated[
    str, typer.Option("--text", metavar="FILE", help="practice texts, UTF-8, one per line; or english / korean for the bundled texts")
]
PracticeTokens = Annotated[int, typer.Option("--tokens", help="maximum number of their tokens")]
JudgeTexts = Annotated[str, typer.Option("--text", metavar="FILE", help="evaluation texts; or english / korean for the bundled ones")]
JudgeTokens = Annotated[int, typer.Option("--tokens", help="maximum number of evaluation tokens")]
Writing = Annotated[bool, typer.Option(help="let source and plan continue the same prompts")]
Timing = Annotated[bool, typer.Option(help="measure speed and peak memory")]
TrustOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="let Python files that come with the model run, with all your rights; read them first")
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model", metavar="SRC", help="demo, a folder with safetensors, a .gguf file, hub:org/name, or merged:FOLDER of an adapter"
    ),
]


@dataclass(frozen=True, slots=True)
class Source:
    """The options that name a model and how it is opened; every verb that opens one has them."""

    model: ModelOption = "demo"
    dtype: Dtype = "auto"
    device: Annotated[str, typer.Option(help="cpu, or cuda:N or mps where torch has them")] = "cpu"
    trust: TrustOption = False

    def parsed(self) -> ModelSource:
        """Return the source; warn where the model's own code may run."""
        return source_of(self.model, self.dtype, self.device, self.trust)


@dataclass(frozen=True, slots=True)
class JsonOutput:
    """Where a verb's JSON goes."""

    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="the output file; default: standard output")] = None

    def write(self, value: Any) -> None:
        """Write the answer as JSON."""
        write(value, self.out)

    def write_plan(self, plan: Any, model: Any) -> None:
        """Write a plan, and its tensors next to it."""
        from engine.plans.files import plan_to_json, signed

        write(signed(plan_to_json(plan), model), self.out)
        write_tensors(plan, self.out)


@dataclass(frozen=True, slots=True)
class TableOutput(JsonOutput):
    """Where a verb's answer goes, as JSON or as the table of its records."""

    form: Annotated[
        Literal["json", "csv", "md"],
        typer.Option("--format", help="json, or only the table of the answer: csv (every digit), md (Markdown, four digits)"),
    ] = "json"

    def write_table(self, value: Any, kind: str, records: Any) -> None:
        """Write the answer as JSON, or the table of its records as CSV or Markdown; `kind` is a key of COLUMNS in ui/text/tables.py."""
        if self.form == "json":
            return write(value, self.out)
        from ui.text.tables import table, to_text

        text = to_text(table(kind, records), self.form)
        return write_text(text, self.out) if self.out is not None else _say(text)


def source_of(model: str, dtype: str, device: str = "cpu", trust: bool = False) -> ModelSource:
    """Return the source that the options name. With `trust`, warn that the model's own code may run."""
    from engine.models.sources import parse_source

    source = parse_source(model, dtype, device)
    if not trust:
        return source
    sys.stderr.write("layerscope: warning: Python files that come with the model may run on this machine, with all your rights\n")
    return replace(source, trust_remote_code=True)


def open_checked(source: ModelSource, check: Check) -> Any:
    from engine.models.loading import open_model

    def looked_at(spec: Any) -> None:
        show_notes(spec)
        check(spec.depth)

    return shown(open_model(source, looked_at))


def show_notes(spec: Any) -> None:
    """Write on standard error which of a model's files and settings are not read."""
    for note in spec.notes:
        sys.stderr.write(f"layerscope: note: {note}\n")


def made_for(plan: Any) -> Check:
    """Return the check that refuses a model of another depth than the plan's."""
    from engine.plans.description import require_depth

    return lambda depth: require_depth(plan, depth)


def open_for(plan: Any, file: Path, source: ModelSource) -> Any:
    """Open the model of a plan. Another depth is refused before weights are read; another model of the same depth gives a warning."""
    opened = open_checked(source, made_for(plan))
    warn_of_another_model(opened.fingerprint, file)
    return opened


def open_objective(source: ModelSource, text: str, tokens: int, name: str, check: Check) -> Any:
    from engine.judge.objectives import OBJECTIVES, Objective
    from engine.models.texts import texts_for

    OBJECTIVES.require(name)
    texts = texts_for(text, "practice")
    return Objective(open_checked(source, check), texts, name, tokens)


def read_plan_file(path: Path) -> Any:
    """Read a plan, and its tensors if their file is in the same folder."""
    from engine.plans.bundle import TENSORS, read_saved
    from engine.plans.files import plan_from_json

    companions = (path.with_suffix(ending) for ending in (TENSORS, _BEFORE))
    return plan_from_json(read_saved([path, *(file for file in companions if file.exists())]))


def warn_of_another_model(fingerprint: str, *files: Path) -> None:
    """Warn on standard error of plan files that were made for another model than the open one."""
    from engine.plans.files import of_another_model, read_json

    for file in files:
        if facts := of_another_model(read_json(file), fingerprint):
            sys.stderr.write(f"layerscope: warning: {file.name}: {facts}\n")


def write_tensors(plan: Any, out: Path | None) -> None:
    """Write a plan's tensors next to its file, so that both can be moved to another machine."""
    from engine.plans.bundle import TENSORS
    from engine.plans.tensor_store import pack_tensors

    if out is not None and plan.tensors:
        pack_tensors(plan.tensors, out.with_suffix(TENSORS))


def open_meter(source: ModelSource, calibration: str, check: Check = lambda _: None) -> Any:
    """Check the cheap inputs first, then open the model: errors come before slow work."""
    from engine.judge.similarity import SimilarityMeter
    from engine.models.texts import texts_for

    texts = texts_for(calibration)
    return SimilarityMeter(open_checked(source, check), texts)


def shown(job: Job[T_]) -> T_:
    """Run a job with its progress on standard error: one updating line in a terminal, a line every five seconds or more in a log."""
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


def write(value: Any, out: Path | None) -> None:
    from engine.cache import plain

    text = json.dumps(plain(value), indent=1, allow_nan=False) + "\n"
    if out is None:
        return _say(text)
    return write_text(text, out)


def _say(text: str) -> None:
    """Write to standard output. A closed pipe exits with 1 and no message.

    Raises:
        LayerscopeError: standard output cannot be written, for example on a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit would fail again
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        raise LayerscopeError(f"standard output cannot be written: {error.strerror}") from error


def write_text(text: str, out: Path) -> None:
    """Write a file as a whole; after a failure its former content stays. A link's target is written; a pipe or device is written directly.

    Raises:
        LayerscopeError: it cannot be written.
    """
    from engine.cache import write_whole
    from engine.untrusted import real_path

    try:
        path = real_path(out)
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
        else:
            write_whole(path, text)
    except (OSError, ValueError) as error:  # a NUL in the name raises ValueError
        raise LayerscopeError(f"{str(out)[:300]!r} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def read_written(read: Callable[[Any], T_], value: Any, verb: str) -> T_:
    """Return what a verb wrote.

    Raises:
        LayerscopeError: it is something else.
    """
    try:
        return read(value)
    except ForeignError as error:
        raise LayerscopeError("this is not what {verb} writes: {reason}", verb=verb, reason=error.message) from error
