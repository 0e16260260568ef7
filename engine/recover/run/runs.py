"""A run is a folder with its settings, its state and its metrics. Runs outlive the process that started them.

run.json        the settings and, once measured, the recipe; written atomically, with a checksum
metrics.jsonl   one line per step, and one per evaluation of held-out text
plan.zip        the plan that is trained, or the result of a shearing
steps/          the last checkpoints
teacher/        the run that corrects the source, if that comes first
teacher.bin     the source's stored outputs, if it cannot stay next to the student
best.safetensors  the trained weights with the lowest loss on held-out text of the training kind
weights/        the finished checkpoint before it is checked
probe.safetensors  its logits on a few sentences, to compare with; written when weights/ is complete
pause           requests a pause
finish          requests an early end with the best weights so far
error.txt       the error that stopped the run, if any
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
from engine.messages import decode_message, encode_message
from engine.plans.bundle import read_saved
from engine.plans.files import plan_from_json
from engine.recover.run.records import LearningRecord, ShearingRecord, run_from_json, run_to_json
from engine.training.parallel import device_of, first
from engine.types import ModelSource, Plan
from engine.untrusted import ForeignError, json_of, require_regular, text_in

State = Literal["running", "paused", "failed", "done"]


class Run:
    """A run's folder. Of several processes that train together, only the first locks it and writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.also: Callable[[dict[str, Any]], None] | None = None  # also called with each line of the metrics
        self.plan_file, self.steps, self.best = folder / "plan.zip", folder / "steps", folder / "best.safetensors"
        self.said = folder / "teacher.bin"
        self.weights, self.probe = folder / "weights", folder / "probe.safetensors"
        self._record, self._metrics, self._error = (folder / name for name in ("run.json", "metrics.jsonl", "error.txt"))
        self._pause, self._finish = folder / "pause", folder / "finish"

    @property
    def about(self) -> LearningRecord | ShearingRecord:
        """The content of run.json.

        Raises:
            TrainingError: the file is missing or corrupted.
        """
        found = read_marked(self._record)
        if not found:
            raise TrainingError("{folder} holds no run that can be resumed: run.json is missing or broken", folder=self.folder)
        try:
            return run_from_json(found)
        except ForeignError as error:
            raise TrainingError(
                "{folder} holds no run that can be resumed: in run.json, {reason}", folder=self.folder, reason=error.message
            ) from error

    @property
    def record(self) -> LearningRecord:
        """The content of run.json in a run that trains a plan.

        Raises:
            TrainingError: the file is missing or corrupted, or is that of a shearing.
        """
        found = self.about
        if isinstance(found, ShearingRecord):
            raise TrainingError("{folder} is a shearing; to continue it, run shear again with the same settings", folder=self.folder)
        return found

    @property
    def shearing(self) -> ShearingRecord:
        """The content of run.json in a shearing.

        Raises:
            TrainingError: the file is missing or corrupted, or is that of a run that trains a plan.
        """
        found = self.about
        if isinstance(found, LearningRecord):
            raise TrainingError("{folder} is the run of a plan, not of a shearing; resume it with recover", folder=self.folder)
        return found

    @property
    def source(self) -> ModelSource:
        """The source of the plan, which is also the teacher; on this process's device if several train together."""
        source = self.about.source
        return replace(source, device=device_of(source.device))

    def plan(self) -> Plan:
        """Read the plan that is trained; its tensors are copied into the store.

        Raises:
            PlanError: the file is missing or broken.
        """
        return plan_from_json(read_saved([self.plan_file]))

    def note(self, **more: Any) -> None:
        """Change fields of the record in run.json."""
        if first():
            self.keep(replace(self.about, **more))

    def keep(self, record: LearningRecord | ShearingRecord) -> None:
        """Write run.json."""
        if not first():
            return
        try:
            write_marked(self._record, run_to_json(record))
        except OSError as error:
            raise self._full(error) from error

    @property
    def shears(self) -> bool:
        """Whether this is a shearing, which ends with a plan instead of a checkpoint."""
        return isinstance(self.about, ShearingRecord)

    @property
    def state(self) -> State:
        """The run's state."""
        if (self.folder / "config.json").exists() or (self.shears and self.plan_file.exists()):
            return "done"
        try:
            with self.held(0):
                return "failed" if self._error.exists() else "paused"
        except TrainingError:
            return "running"

    @property
    def measured(self) -> dict[str, Any] | None:
        """The estimate of a run that has only measured a step and waits: its steps, tokens and seconds, and bytes of memory; None for any
        other run."""
        record, recipe = self.record, self.record.recipe
        if not record.measure or recipe is None or record.seconds_a_step is None or self.lines():
            return None
        seconds, tokens = recipe.steps * record.seconds_a_step, recipe.steps * recipe.tokens
        return {"steps": recipe.steps, "tokens": tokens, "seconds": seconds, "memory": record.memory, "path": str(self.folder)}

    @property
    def error(self) -> str:
        """The error that stopped the run; "" if there is none."""
        with suppress(OSError, ForeignError):
            text = text_in(self._error)
            try:
                return decode_message(json_of(text))
            except ForeignError:  # written by an earlier version
                return text
        return ""

    def failed(self, why: str) -> None:
        """Record the error that stopped the run."""
        if not first():
            return
        with suppress(OSError):
            write_whole(self._error, json.dumps(encode_message(why)))

    @contextmanager
    def held(self, wait: float = 2.0) -> Iterator[None]:
        """Lock the run, so that no other process trains in its folder; the system releases the lock when the process dies. Reading the
        state also locks it briefly, so waiting a few seconds is worthwhile.

        Raises:
            TrainingError: another process holds the lock.
        """
        if not first():
            yield
            return
        try:
            with FileLock(self.folder / ".lock", timeout=wait):
                yield
        except Timeout as error:
            raise TrainingError("{folder} is already training in another process; pause it there first", folder=self.folder) from error

    def ask_to_pause(self) -> None:
        """Request that the run pauses after a checkpoint."""
        self._pause.touch()

    def pausing(self) -> bool:
        """Return whether a pause is requested."""
        return self._pause.exists()

    def ask_to_finish(self) -> None:
        """Request that the run ends, now or when resumed, as if its budget were spent."""
        self._finish.touch()

    def finishing(self) -> bool:
        """Return whether an early end is requested."""
        return self._finish.exists()

    def part(self, name: str) -> "Run":
        """Return a part of this run in a subfolder; it shares the run's pause requests."""
        part = Run(self.folder / name)
        part._pause = self._pause
        return part

    def begin(self) -> None:
        """Remove earlier pause requests and errors."""
        for path in (self._pause, self._error) if first() else ():
            path.unlink(missing_ok=True)

    def log_line(self, line: dict[str, Any]) -> None:
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
        """Return the metrics; lines that are truncated or not a run's are skipped.

        Raises:
            TrainingError: the file cannot be read.
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
            raise TrainingError("{path} cannot be read: {error}", path=self._metrics, error=reason_of(error)) from error
        return [line for line in found if _is_metrics_line(line)]

    def truncate_metrics(self, step: int) -> None:
        """Keep only the lines of steps up to `step`, and of evaluations before it: the later ones will be repeated."""
        if not first():
            return
        kept = [line for line in self.lines() if line["step"] < step or (line["step"] == step and "loss" in line)]
        try:
            write_whole(self._metrics, "".join(json.dumps(line) + "\n" for line in kept))
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> TrainingError:
        return TrainingError(
            "{folder} cannot be written to: {reason}; its former content is unchanged", folder=self.folder, reason=error.strerror
        )

    def tidy(self) -> None:
        """Remove the files that only an unfinished run needs."""
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
        ):  # the probe is removed last, because it shows that tidying is unfinished
            file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder, including the model that the run produced.

        Raises:
            TrainingError: the run is training, or the folder cannot be removed.
        """
        with self.held(0):
            try:
                shutil.rmtree(self.folder)
            except OSError as error:
                raise TrainingError("{folder} cannot be removed: {reason}", folder=self.folder, reason=error.strerror) from error


def _is_metrics_line(line: Any) -> bool:
    """Return whether a line was written by a run: a step, an evaluation of both texts, or domain losses."""
    if not _holds(line, "step") or line["step"] is None:
        return False
    looked = all(_holds(line.get(text), "ratio") for text in ("kind", "other"))
    return _holds(line, "tokens", "loss") or looked or isinstance(line.get("domains"), dict)


def _holds(value: Any, *keys: str) -> bool:
    """Return whether a value is an object with numbers under these names; null stands for NaN and infinity."""
    return isinstance(value, dict) and all(type(value.get(key, "")) in (int, float, NoneType) for key in keys)


def runs_in(folder: Path) -> list[Run]:
    """Return the runs in a folder, the latest first."""
    found = [path.parent for path in folder.glob("*/run.json")] if folder.is_dir() else []
    return [Run(path) for path in sorted(found, key=lambda path: (path / "run.json").stat().st_mtime, reverse=True)]
