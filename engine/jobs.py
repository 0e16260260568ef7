"""Long tasks as plain generators: they yield Progress and return their result."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engine import errors

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task is: `fraction` in [0, 1], or None while nobody can know; `label` names the step."""

    label: str
    fraction: float | None = None


Job = Generator[Progress, None, T]


def drain(job: Job[T], report: Callable[[Progress], None] | None = None) -> T:
    """Run a job to its end in this thread, telling `report` of every step, and return its result."""
    with closing(job):
        while True:
            try:
                progress = next(job)
            except StopIteration as end:
                return end.value
            if report is not None:
                report(progress)


def retold(job: Job[T], tell: Callable[[Progress], Progress]) -> Job[T]:
    """Run a job as a part of another, `tell` turning each of its steps into one of the whole's; return its result."""
    with closing(job):
        while True:
            try:
                step = next(job)
            except StopIteration as end:
                return end.value
            yield tell(step)


def within(job: Job[T], seconds: float) -> Job[T | None]:
    """Run a job until the time is up; return its result, or None where it had to stop before."""
    end_at = time.monotonic() + seconds
    with closing(job):
        while True:
            try:
                step = next(job)
            except StopIteration as end:
                return end.value
            if time.monotonic() >= end_at:
                return None
            yield step


def as_part(job: Job[T], label: str, place: int, parts: int) -> Job[T]:
    """Run a job as one of `parts` equal parts of a longer one: its steps are told as the whole's, after the label if there is one."""
    return retold(job, lambda step: Progress(": ".join(filter(None, (label, step.label))), (place + (step.fraction or 0.0)) / parts))


def scaled(job: Job[T], start: float, stop: float) -> Job[T]:
    """Run a job as the part of a longer one that goes from `start` to `stop` of it, both in [0, 1]."""
    return retold(job, lambda step: Progress(step.label, start + (stop - start) * (step.fraction or 0.0)))


def in_fresh_process(module: str, request: dict, label: str) -> Job[dict]:
    """Run `python -P -m module` on a JSON request in a process of its own and return the JSON it answers.

    The child writes one JSON object a line: {"label", "fraction"} on the way, then {"result"} or {"error", "kind"}.
    Closing the job kills the child. Used where memory must be given back, or where "it loads in a fresh process" is
    the very thing to be shown. The child imports this package, and never a file of the folder the person is in.

    Raises:
        LayerscopeError: what the child reported as a person's mistake, with its kind kept.
        RuntimeError: the child died; its standard error is in the message.
    """
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module],  # without -P the current folder, perhaps a stranger's model, comes before all else
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        answers, lines = child.stdout, list[dict]()
        reader = threading.Thread(target=lambda: lines.extend(_messages(answers)), daemon=True)
        try:
            reader.start()
            with contextlib.suppress(BrokenPipeError):  # a child that died already is reported below
                child.stdin.write(json.dumps(request))
                child.stdin.close()
            began, seen, told = time.monotonic(), 0, None
            while reader.is_alive():
                reader.join(0.2)
                news = [line for line in lines[seen:] if "label" in line]
                seen = len(lines)
                if news:
                    told = Progress(news[-1]["label"], news[-1]["fraction"])
                yield told or Progress(f"{label} ({time.monotonic() - began:.0f} s)")
            child.wait()
        finally:
            child.kill()
            child.wait()
        answer = lines[-1] if lines else {}
        if "result" in answer:
            return answer["result"]
        if "error" in answer:
            raise getattr(errors, answer["kind"], errors.LayerscopeError)(answer["error"])
        log.seek(0)
        raise RuntimeError(f"{module} ended with code {child.returncode}: {log.read()[-4000:]}")


def _messages(lines: Iterable[str]) -> Iterator[dict]:
    """The JSON objects among lines; a library may have written to the child's file descriptor behind our back."""
    for line in lines:
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                yield message


def answer_request(task: Callable[[dict], Job[dict]]) -> None:
    """The child's side of `in_fresh_process`: read the request, run the task, answer on standard output."""
    out = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not land among the answers

    def say(message: dict) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    try:
        result = drain(task(json.load(sys.stdin)), lambda p: say({"label": p.label, "fraction": p.fraction}))
        say({"result": result})
    except errors.LayerscopeError as error:
        say({"error": str(error), "kind": type(error).__name__})
