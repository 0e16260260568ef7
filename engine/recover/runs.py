"""A run is a folder: what was asked for, where it stands, what each step was. It outlives whoever started it.

run.json        what was asked for, and, once measured, how it learns; written whole, with a mark that it is as it was written
metrics.jsonl   a line a step, and a line a look at held-out text
plan.zip        the plan that learns; or that came of a shearing
steps/          the last checkpoints
teacher/        the same of the source, where it reads the text first
teacher.bin     what the source says of the text, where it cannot stay beside the student
best.safetensors  what learns, as it was when held-out text of the training kind was told best
pause           somebody asks for a pause
finish          somebody asks for the end, with the best that there is
error.txt       why it stopped, where it did
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from filelock import FileLock, Timeout

from engine.cache import plain, read_marked, write_marked, write_whole
from engine.errors import TrainingError, reason_of
from engine.plans.bundle import read_saved
from engine.plans.files import plan_from_json
from engine.training.parallel import device_of, first
from engine.types import ModelSource, Plan
from engine.untrusted import ForeignError, json_of, require_regular, text_in

State = Literal["running", "paused", "failed", "done"]


class Run:
    """A run's folder. Of several processes that learn together only the first holds it and writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.also: Callable[[dict[str, Any]], None] | None = None  # who else is told its lines
        self.plan_file, self.steps, self.best = folder / "plan.zip", folder / "steps", folder / "best.safetensors"
        self.said = folder / "teacher.bin"
        self.weights, self.probe = folder / "weights", folder / "probe.safetensors"
        self._record, self._metrics, self._error = (folder / name for name in ("run.json", "metrics.jsonl", "error.txt"))
        self._pause, self._finish = folder / "pause", folder / "finish"

    @property
    def record(self) -> dict[str, Any]:
        """What run.json holds.

        Raises:
            TrainingError: it is missing, or not as it was written.
        """
        found = read_marked(self._record)
        if not found:
            raise TrainingError(f"{self.folder} holds no run that can be resumed: run.json is missing or broken")
        return dict(found)

    @property
    def source(self) -> ModelSource:
        """The source that its plan is of, and that teaches; on the device of this process, where several learn together."""
        source = ModelSource(**self.record["source"])
        return replace(source, device=device_of(source.device))

    def plan(self) -> Plan:
        """Read the plan that learns; its tensors are kept.

        Raises:
            PlanError: the file is gone or broken.
        """
        return plan_from_json(read_saved([self.plan_file]))

    def note(self, **more: Any) -> None:
        """Add to run.json."""
        if not first():
            return
        before = self.record if self._record.exists() else {}
        try:
            write_marked(self._record, plain(before | more))
        except OSError as error:
            raise self._full(error) from error

    @property
    def shears(self) -> bool:
        """Whether it learns what to leave out, so that a plan comes of it and no checkpoint."""
        return "shear" in self.record

    @property
    def state(self) -> State:
        """Where it stands."""
        if (self.folder / "config.json").exists() or (self.shears and self.plan_file.exists()):
            return "done"
        try:
            with self.held(0):
                return "failed" if self._error.exists() else "paused"
        except TrainingError:
            return "running"

    @property
    def measured(self) -> dict[str, Any] | None:
        """What was foretold of a run that has only measured a step, and waits: its steps, tokens and seconds, and bytes of memory; None of
        any other."""
        record = self.record
        if not record.get("measure") or "recipe" not in record or self.lines():
            return None
        steps, seconds, recipe = record["recipe"]["steps"], record["seconds_a_step"], record["recipe"]
        tokens = steps * recipe["rows"] * recipe["length"] * recipe["accumulate"]
        return {"steps": steps, "tokens": tokens, "seconds": steps * seconds, "memory": record["memory"], "path": str(self.folder)}

    @property
    def error(self) -> str:
        """Why it stopped; empty where it did not."""
        with suppress(OSError, ForeignError):
            return text_in(self._error)
        return ""

    def failed(self, why: str) -> None:
        """Keep why it stopped."""
        if not first():
            return
        with suppress(OSError):
            write_whole(self._error, why)

    @contextmanager
    def held(self, wait: float = 2.0) -> Iterator[None]:
        """Hold the run, so that nobody else learns in its folder; the system lets go of it when the process is gone. Who only looks at
        its state holds it for a moment too, so that it is worth some seconds to wait.

        Raises:
            TrainingError: somebody else does.
        """
        if not first():
            yield
            return
        try:
            with FileLock(self.folder / ".lock", timeout=wait):
                yield
        except Timeout as error:
            raise TrainingError(f"{self.folder} is learning already, in another process; pause it there first") from error

    def ask_to_pause(self) -> None:
        """Ask whoever runs it to stop after a checkpoint."""
        self._pause.touch()

    def pausing(self) -> bool:
        """Return whether somebody asks for a pause."""
        return self._pause.exists()

    def ask_to_finish(self) -> None:
        """Ask whoever runs it, or will, to end it as if its budget were spent."""
        self._finish.touch()

    def finishing(self) -> bool:
        """Return whether somebody asks for the end."""
        return self._finish.exists()

    def part(self, name: str) -> "Run":
        """Return the part of this run that has a folder of its own in it; it heeds what is asked of the whole."""
        part = Run(self.folder / name)
        part._pause = self._pause
        return part

    def begin(self) -> None:
        """Forget earlier requests for a pause, and errors."""
        for path in (self._pause, self._error) if first() else ():
            path.unlink(missing_ok=True)

    def tell(self, line: dict[str, Any]) -> None:
        """Add a line to the metrics."""
        if not first():
            return
        try:
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain(line, 7)) + "\n")
        except OSError as error:
            raise self._full(error) from error
        if self.also is not None:
            self.also(line)

    def lines(self) -> list[dict[str, Any]]:
        """Return the metrics; a line that was cut off, or is none of ours, is passed over.

        Raises:
            TrainingError: they cannot be read.
        """
        found = []
        try:
            require_regular(self._metrics)
            for line in self._metrics.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ForeignError):
                    found.append(json_of(line))
        except FileNotFoundError:
            return []
        except (ForeignError, OSError) as error:
            raise TrainingError(f"{self._metrics} cannot be read: {reason_of(error)}") from error
        return [line for line in found if _is_told(line)]

    def back_to(self, step: int) -> None:
        """Leave only the lines of steps up to one, and of looks before it: what comes after will come again."""
        if not first():
            return
        kept = [line for line in self.lines() if line["step"] < step or (line["step"] == step and "loss" in line)]
        try:
            write_whole(self._metrics, "".join(json.dumps(line) + "\n" for line in kept))
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> TrainingError:
        return TrainingError(f"{self.folder} cannot be written to: {error.strerror}; what was there before is kept")

    def tidy(self) -> None:
        """Remove what only a run that goes on needs."""
        for folder in (self.steps, self.weights, self.folder / "teacher" / "steps"):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (
            self.best,
            self.said,
            self._pause,
            self._finish,
            self._error,
            self.folder / ".lock",
            self.probe,
        ):  # the probe says that this is to be done
            file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder, with the model that came of the run if there is one.

        Raises:
            TrainingError: it is learning, or cannot be removed.
        """
        with self.held(0):
            try:
                shutil.rmtree(self.folder)
            except OSError as error:
                raise TrainingError(f"{self.folder} cannot be removed: {error.strerror}") from error


def _is_told(line: Any) -> bool:
    """Return whether a line is one that runs tell: of a step, of a look at both texts, or of domains."""
    if not _holds(line, "step") or line["step"] is None:
        return False
    looked = all(_holds(line.get(text), "ratio") for text in ("kind", "other"))
    return _holds(line, "tokens", "loss") or looked or isinstance(line.get("domains"), dict)


def _holds(value: Any, *keys: str) -> bool:
    """Return whether a value holds numbers of these names; null is one that JSON has no word for."""
    return isinstance(value, dict) and all(type(value.get(key, "")) in (int, float, NoneType) for key in keys)


def runs_in(folder: Path) -> list[Run]:
    """Return the runs below a folder, the latest first."""
    found = [path.parent for path in folder.glob("*/run.json")] if folder.is_dir() else []
    return [Run(path) for path in sorted(found, key=lambda path: (path / "run.json").stat().st_mtime, reverse=True)]
