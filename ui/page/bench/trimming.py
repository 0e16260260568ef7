"""What Width asks for: the plan that the page shows with fewer heads, neurons or channels."""

import json
from typing import Any

from engine.jobs import Job
from engine.methods.widths import AXES, Kept, require_score, require_width, trim
from engine.models.shapes import facts_of
from engine.types import Model, Plan
from ui.page.bench.costing import Costing
from ui.page.bench.lab import Lab
from ui.page.bench.workbench import Workbench


class Trimming(Lab):
    """Trims the plans of one workbench."""

    def __init__(self, bench: Workbench, costing: Costing) -> None:
        super().__init__(bench, costing)
        self._facts: dict[str, Any] = {}

    def begin(self, model: Model) -> None:
        self._facts = facts_of(model.config, model.spec)
        for axis in AXES:
            self._range(axis)

    def _range(self, axis: str) -> None:
        """Put a slider of Width into the range of the open model."""
        most = self._facts["shape"][axis]
        step = {"heads": self._facts["groups_of"], "neurons": max(1, most // 96), "channels": self._facts["shape"]["heads"]}[axis]
        fixed = axis in self._facts["fixed"]
        for prop, value in (("minimum", min(step, most - 1)), ("maximum", max(most, 2)), ("step", step), ("interactive", not fixed)):
            self.bench.page.put(f"width_{axis}", prop, value)
        self.bench.page.put(f"width_{axis}", "value", most)

    def tell(self) -> None:
        self.bench.show("widths", json.dumps(self._facts))

    def kept(self, heads: float, neurons: float, channels: float) -> Kept:
        """Return what the sliders ask for; an axis that is whole is not asked for."""
        shape = self._facts.get("shape", {})
        asked = {"heads": int(heads), "neurons": int(neurons), "channels": int(channels)}
        return Kept(**{axis: None if count >= shape.get(axis, 0) else count for axis, count in asked.items()})

    def trim(self, choice: str, threshold: float, kept: Kept, score: str, refit: bool, plain_: bool, tokens: int) -> None:
        """Trim the depth of the plan that the page shows; the trimmed one becomes the plan shown."""
        model, plan = self.bench.open_meter().model, self.bench.chosen(choice, threshold)[0].deep
        require_width(model, plan, kept)
        for axis in AXES:
            if getattr(kept, axis) is not None:
                require_score(score, axis)

        def job() -> Job[Plan]:
            return (yield from trim(model, plan, self.packs(tokens), kept, score, None, refit, plain_))

        self.bench.submit("trim", job, self.bench.show_found, urgent=True)
