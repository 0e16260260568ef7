"""The training runs on Recover, from the plan shown on the page to a checkpoint."""

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.cache import plain
from engine.corpus.building import SELF
from engine.corpus.reading import BUNDLES, HUB
from engine.errors import LayerscopeError, SettingsError, TextError, TrainingError
from engine.export.lineage import lineage_of
from engine.messages import encode_messages
from engine.plans.bundle import read_saved
from engine.recover.distill.samples import PROMPT
from engine.recover.run.runs import Run, runs_in
from engine.recover.run.settings import RecoverySettings, ShearSettings
from engine.recover.run.start import begin
from engine.recover.shear.shearing import begin_shearing
from ui.page.bench.plans.exporting import free_target
from ui.page.bench.shared import stem_of, suggested_name
from ui.page.bench.training.learning import Learning
from ui.page.bench.workbench import Workbench

_EVERY = 1.0  # seconds between two automatic checks of the runs


class Recovering:
    """The runs in the export folder as one workbench shows them, and the selected run."""

    def __init__(self, bench: Workbench, learning: Learning) -> None:
        self.bench, self.learning = bench, learning
        self._chosen = self._told = ""  # the selected run's folder, and the last update sent to the page
        self._busy, self._at = learning.busy, 0.0  # time of that update
        bench.when_opened(self._opened)

    def begin(self, choice: str, threshold: float, name: str, texts: Sequence[str], settings: RecoverySettings) -> None:
        """Train the plan shown on Fold on some texts, in a new folder of the export directory.

        Raises:
            ExportError, PlanError, SettingsError, TextError, TrainingError: the request is invalid, or the folder cannot be written.
        """
        model, (plan, _) = self.bench.open_meter().model, self.bench.chosen(choice, threshold)
        self._require_texts(texts)
        target = free_target(self.bench, name or f"{suggested_name(model, plan)}-recovered")
        run = begin(model.source, model.spec, plan, [_absolute(text) for text in texts], settings, target)
        self._chosen = str(run.folder)
        self.learning.go_on(run)
        self.publish()

    def shear(self, texts: Sequence[str], target: Mapping[str, int], settings: ShearSettings) -> None:
        """Start a shearing run of the open model down to a target shape, in a new folder of the export directory.

        Raises:
            ExportError, PlanError, SettingsError, TextError, TrainingError: the request is invalid, or the folder cannot be written.
        """
        model = self.bench.open_meter().model
        if not target:
            raise SettingsError("enter how many layers, heads, neurons or channels to keep; 0 keeps all")
        self._require_texts(texts)
        stem = f"{stem_of(model)}-sheared"
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        folder = next(path for name in names if not (path := self.bench.export_folder / name).exists())
        run = begin_shearing(model, target, [_absolute(text) for text in texts], settings, folder)
        self._chosen = str(run.folder)
        self.learning.go_on(run)
        self.publish()

    def _require_texts(self, texts: Sequence[str]) -> None:
        if not texts:
            raise TextError("choose training text: the source's own text, the practice texts, or your own files")
        for text in texts:
            if _absolute(text) != text or Path(text).is_absolute():  # a path
                self.bench.reach.require(text)

    def act(self, what: str, name: str) -> None:
        """Show, resume, pause, finish or delete the run of this name.

        Raises:
            TrainingError: there is no such run, or its state does not allow this.
        """
        run = next((run for run in runs_in(self.bench.export_folder) if run.folder.name == name), None)
        if run is None:
            raise TrainingError("there is no run '{name}' in {export_folder}", name=name, export_folder=self.bench.export_folder)
        if what == "delete":
            self._delete(run)
        else:
            self._chosen = str(run.folder)
            deeds: dict[str, Callable[[Run], None]] = {"resume": self.learning.go_on, "pause": self.learning.pause}
            {**deeds, "finish": self.learning.finish, "plan": self._show}.get(what, lambda _: None)(run)
        self.publish()

    def send_runs(self) -> None:
        """Send the runs to the page, at most once a second, or when another run starts training."""
        if self.learning.busy != self._busy or time.monotonic() - self._at > _EVERY:
            self.publish()

    def publish(self) -> None:
        """Send the runs to the page if they have changed."""
        self._busy, self._at = self.learning.busy, time.monotonic()
        rows = [row for run in runs_in(self.bench.export_folder) if (row := self._row(run))]
        shown = self._looked_at(rows)
        found = json.dumps(
            encode_messages(
                {
                    "runs": [{**row, "loss": [], "masks": {}, "looks": [_ratios_alone(look) for look in row["looks"]]} for row in rows],
                    "shown": shown,
                    "prompt": PROMPT,
                }
            )
        )
        if found != self._told:
            self._told = found
            self.bench.page.put("recovery", "value", found)

    def _show(self, run: Run) -> None:
        """Show the plan of a finished shearing run."""
        self.bench.load_plan(read_saved([run.plan_file]))

    def _delete(self, run: Run) -> None:
        if self.bench.model is not None and self.bench.model.folder == run.folder:
            raise TrainingError("{folder} is the open model; open another one before you delete it", folder=run.folder)
        self.learning.remove(run)

    def _row(self, run: Run) -> dict[str, Any] | None:
        """Return a run with its state and its course, or None where its folder cannot be read."""
        try:
            return {"name": run.folder.name, "path": str(run.folder), **self.learning.state(run), **self.learning.courses.of(run)}
        except (LayerscopeError, OSError, KeyError, TypeError, ValueError):
            return None

    def _looked_at(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the selected run, else the running one, else the latest."""
        known = {row["path"]: row for row in rows}
        return next((known[path] for path in (self._chosen, self._busy, *known) if path in known), None)

    def _opened(self) -> None:
        model = self.bench.open_meter().model
        steps = lineage_of(model.source, model.folder, model.spec, model.fingerprint)
        self.bench.page.put("lineage", "value", json.dumps(plain({"steps": steps})))
        self.publish()


def _ratios_alone(look: dict[str, Any]) -> dict[str, Any]:
    """Return an evaluation as the chart of several runs draws it."""
    return {"tokens": look["tokens"], **{name: look[name][:1] for name in ("kind", "other")}}


def _absolute(text: str) -> str:
    """Return a text's name, with an absolute path for files: it must not depend on the working directory."""
    named = text == SELF or text in BUNDLES or text.startswith(HUB)
    return text if named else str(Path(text).expanduser().absolute())
