"""Save a plan with tensors: one file of the plan and its tensors, for the browser to download."""

import tempfile
from pathlib import Path

from engine.plans.bundle import write_bundle
from engine.plans.files import plan_to_json, signed
from ui.page.bench.workbench import Workbench


class Saving:
    """Packs plans of one workbench. The files are removed with the workbench."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def file(self, choice: str, threshold: float) -> Path:
        """Return a zip of the plan shown on the page and its tensors.

        Raises:
            PlanError: there is no such plan yet, or one of its tensors is not on this machine.
        """
        plan, _ = self.bench.chosen(choice, threshold)
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="layerscope-")
        file = Path(self._folder.name, f"plan-{plan.depth}-layers.zip")
        write_bundle(signed(plan_to_json(plan), self.bench.open_meter().model), plan.tensors, file)
        return file
