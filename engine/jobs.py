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
from engine.messages import Message, decode_message, encode_message

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a task: `fraction` in [0, 1], or None if unknown; `label` names the step."""

    label: str
    fraction: float | None = None


Job = Generator[Progress, None, T]


def drain(job: Job[T], report: Callable[[Progress], None] | None = None) -> T:
    """Run a job to its end in this thread, calling `report` with every step, and return its result."""
    with closing(job):
        while True:
            try:
                progress = next(job)
            except StopIteration as end:
                return end.value
            if report is not None:
                report(progress)


def retold(job: Job[T], notify: Callable[[Progress], Progress]) -> Job[T]:
    """Run a job as part of another: `notify` converts each of its steps; return its result."""
    with closing(job):
        while True:
            try:
                step = next(job)
            except StopIteration as end:
                return end.value
            yield notify(step)


def within(job: Job[T], seconds: float) -> Job[T | None]:
    """Run a job until the time is up; return its result, or None if it was stopped."""
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


def within_label(label: str, step: str) -> str:
    """Return the label of a step within a longer job: both, or the one that is not empty."""
    return Message("{label}: {step}", label=label, step=step) if label and step else label or step


def as_part(job: Job[T], label: str, place: int, parts: int) -> Job[T]:
    """Run a job as one of `parts` equal parts of a longer one; its progress is converted to the whole's and prefixed with the label, if
    any."""
    return retold(job, lambda step: Progress(within_label(label, step.label), (place + (step.fraction or 0.0)) / parts))


def scaled(job: Job[T], start: float, stop: float) -> Job[T]:
    """Run a job as the part of a longer one from `start` to `stop`, both in [0, 1]."""
    return retold(job, lambda step: Progress(step.label, start + (stop - start) * (step.fraction or 0.0)))


def in_fresh_process(module: str, request: dict, label: str) -> Job[dict]:
    """Run `python -P -m module` on a JSON request in a new process and return its JSON answer.

    The child writes one JSON object per line: {"label", "fraction"} for progress, then {"result"} or {"error", "kind"}. Closing the job
    kills the child. This is used where memory must be freed, or where loading in a fresh process is itself the test. The child imports this
    package, never a file of the user's current folder.

    Raises:
        LayerscopeError: the error that the child reported, with its class.
        RuntimeError: the child died; the message contains its standard error.
    """
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module],  # without -P the current folder, perhaps an untrusted model, comes first
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
            with contextlib.suppress(BrokenPipeError):  # a child that has already died is reported below
                child.stdin.write(json.dumps(request))
                child.stdin.close()
            began, seen, facts = time.monotonic(), 0, None
            while reader.is_alive():
                reader.join(0.2)
                news = [line for line in lines[seen:] if "label" in line]
                seen = len(lines)
                if news:
                    facts = Progress(decode_message(news[-1]["label"]), news[-1]["fraction"])
                yield facts or Progress(Message("{label} ({seconds:.0f} s)", label=label, seconds=time.monotonic() - began))
            child.wait()
        finally:
            child.kill()
            child.wait()
        answer = lines[-1] if lines else {}
        if "result" in answer:
            return answer["result"]
        if "error" in answer:
            raise getattr(errors, answer["kind"], errors.LayerscopeError)(decode_message(answer["error"]))
        log.seek(0)
        raise RuntimeError(f"{module} ended with code {child.returncode}: {log.read()[-4000:]}")


def _messages(lines: Iterable[str]) -> Iterator[dict]:
    """Yield the JSON objects among lines; libraries may also write to the child's file descriptor."""
    for line in lines:
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                yield message


def answer_request(task: Callable[[dict], Job[dict]]) -> None:
    """Run the child's side of `in_fresh_process`: read the request, run the task, answer on standard output."""
    out = sys.stdout
    sys.stdout = sys.stderr  # library output must not mix with the answers

    def send(message: dict) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    try:
        result = drain(task(json.load(sys.stdin)), lambda p: send({"label": encode_message(p.label), "fraction": p.fraction}))
        send({"result": result})
    except errors.LayerscopeError as error:
        send({"error": encode_message(error.message), "kind": type(error).__name__})
