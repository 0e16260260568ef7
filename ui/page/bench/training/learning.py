"""The recoveries of an app. One run trains at a time, in its own process, for all tabs. Runs outlive browser tabs."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.errors import LayerscopeError, TrainingError
from engine.export.checkpoint.recovered import recovered
from engine.jobs import Job, Progress, retold
from engine.recover.run.runs import Run
from engine.recover.shear.shearing import sheared
from ui.page.bench.jobs import Runner, Task
from ui.page.bench.training.run_progress import Courses


class Learning:
    """Starts, pauses and removes runs, and returns their state."""

    def __init__(self) -> None:
        self._runner = Runner(lasting=True)
        self._pausing = ""  # the folder of the run that was asked to pause
        self.courses = Courses()

    @property
    def busy(self) -> str | None:
        """The folder of the run that trains now, or None."""
        state = self._runner.state()
        return state[0] if state else None

    def state(self, run: Run) -> dict[str, Any]:
        """Return a run's state: "running", "waiting" for another run, "paused", "failed" or "done". A run that trains here also has its
        current step; a stopped run has its error."""
        now, name = self._runner.state(), str(run.folder)
        if now and now[0] == name:
            asked = {"pausing": run.pausing() or self._runner.stopping(), "finishing": run.finishing()}
            return {"state": "running", "label": now[1].label, "fraction": now[1].fraction, **asked}
        if name in self._runner.waiting():
            return {"state": "waiting"}
        state = "paused" if run.state == "done" and run.probe.exists() else run.state  # the process ended while it moved its files
        return {"state": state, "error": run.error, "pausing": run.pausing(), "elsewhere": True}

    def go_on(self, run: Run) -> None:
        """Start or resume a run, after the runs already queued.

        Raises:
            TrainingError: the run trains in another process, or is finished.
        """
        with self._runner.lock:  # two tabs may call this at once
            match self.state(run)["state"]:
                case "done":
                    if run.shears:
                        raise TrainingError("{folder} is already finished; show its plan", folder=run.folder)
                    raise TrainingError("{folder} is already finished; open it like any model", folder=run.folder)
                case "running" if str(run.folder) != self.busy:
                    raise TrainingError("{folder} is already training in another process; pause it there first", folder=run.folder)
                case "paused" | "failed":
                    self._runner.submit(Task(str(run.folder), lambda: self._learned(run), lambda _: None))

    def pause(self, run: Run) -> None:
        """Pause a run after its next checkpoint. A run before its first step has nothing to lose, so it stops at once."""
        if str(run.folder) in self._runner.waiting() or (str(run.folder) == self.busy and not run.lines()):
            self._runner.cancel(str(run.folder))
        elif self.state(run)["state"] == "running":
            self._pausing = str(run.folder)
            run.ask_to_pause()

    def finish(self, run: Run) -> None:
        """End a run now with its best checkpoint.

        Raises:
            TrainingError: the run has no checkpoint yet.
        """
        if not run.best.exists():
            raise TrainingError("{folder} has no trained weights yet; resume it, or delete it", folder=run.folder)
        run.ask_to_finish()
        with suppress(TrainingError):  # a process that runs it elsewhere sees the request
            self.go_on(run)

    def remove(self, run: Run) -> None:
        """Remove a run and its model.

        Raises:
            TrainingError: the run is training, or cannot be removed.
        """
        if self.state(run)["state"] in ("running", "waiting"):
            raise TrainingError("{folder} is training; pause it before you delete it", folder=run.folder)
        run.remove()

    def close(self, seconds: float) -> bool:
        """Pause the running run before the program exits; return whether it wrote its checkpoint in time."""
        with self._runner.lock:
            if self.busy:
                self.pause(Run(Path(self.busy)))
        end = time.monotonic() + seconds
        while self.busy and time.monotonic() < end:
            time.sleep(0.05)
        return self._runner.close(seconds)

    def _learned(self, run: Run) -> Job[None]:
        self._pausing = ""

        def heeding(step: Progress) -> Progress:
            if self._pausing == str(run.folder):
                run.ask_to_pause()  # again, because a run clears earlier requests when it starts
            return step

        with suppress(LayerscopeError):  # the run's folder records the error
            yield from retold(sheared(run) if run.shears else recovered(run), heeding)
