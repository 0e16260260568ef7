"""Importance, opened units: a single head or neuron, and the model's loss without it."""

import json
from dataclasses import asdict, replace
from typing import Any

from engine.cache import plain
from engine.errors import SettingsError
from engine.jobs import Job, Progress, as_part, scaled
from engine.messages import Message
from engine.methods.analysis.agreement import LEAST, with_losses
from engine.models.shapes import shape_of
from engine.passes.exciting import Peaks, exciting
from engine.passes.heads import pattern, roles
from engine.plans.rules import untouched
from engine.types import Model, Plan, Trim
from ui.page.bench.lab.base import Lab
from ui.page.bench.lab.scoring import Scoring
from ui.page.bench.plans.costing import Costing, told_of
from ui.page.bench.workbench import Workbench

UNITS = {"heads": "head", "neurons": "neuron"}  # what can be opened, by axis
NEURONS = 16  # neurons of a layer whose losses are measured together
_SENTENCE = 32  # tokens of text that a head's pattern is shown on


class Looking(Lab):
    """The opened units, and the model's loss without each measured head or neuron. The loss is the KL divergence from the unchanged
    model, which separates small losses on far fewer tokens than perplexity does."""

    def __init__(self, bench: Workbench, costing: Costing, scoring: Scoring) -> None:
        super().__init__(bench, costing)
        self._scoring = scoring
        self._units: dict[str, dict[str, Any]] = {}  # the open unit, by axis
        self._losses: dict[str, dict[tuple[int, int], float]] = {}  # by axis, then by layer and unit
        self._peaks: dict[tuple[int, int], Peaks] = {}  # by layer and requested tokens
        scoring.when_measured(self.publish)

    def begin(self, model: Model) -> None:
        self._units, self._losses, self._peaks = {}, {}, {}

    def publish(self) -> None:
        agreement = {axis: [asdict(one) for one in with_losses(self._scoring.scores(axis), lost)] for axis, lost in self._losses.items()}
        losses = {axis: [(*place, loss) for place, loss in sorted(lost.items())] for axis, lost in self._losses.items()}
        facts = {"units": self._units, "losses": losses, "agreement": agreement, "least": LEAST, "sampled": NEURONS}
        self.bench.page.put("importance", "opened", json.dumps(plain(facts, 5)))

    def look(self, axis: str, layer: int, unit: int, tokens: int) -> None:
        """Open a head (its pattern on a sentence, its role) or a neuron (the practice tokens that excite it most), and measure the
        model's cost with this unit alone zeroed."""
        model, facts = self._model_with(axis, layer, unit), {"layer": layer, "unit": unit}

        def job() -> Job[None]:
            yield Progress(Message("Analysing {units} {unit} of layer {layer}", units=Message(UNITS[axis]), unit=unit, layer=layer), 0.0)
            found = (
                self._head(model, layer, unit)
                if axis == "heads"
                else (yield from scaled(self._neuron(model, layer, unit, tokens), 0.0, 0.5))
            )
            seen = {**facts, **found}
            self._open(axis, seen)
            cost = yield from scaled(self._cost(model, axis, layer, unit), 0.5, 1.0)
            self._open(axis, {**seen, "cost": cost})

        self._open(axis, facts)
        self.bench.submit("look", job, lambda _: None, urgent=True, quick=True)

    def losses(self, axis: str, layer: int) -> None:
        """Measure the model's loss without each single head of a layer, or without each of NEURONS neurons spread over it."""
        model = self._model_with(axis, layer, 0)
        count = getattr(shape_of(model.config), axis)
        units = range(count) if axis == "heads" else sorted({place * count // NEURONS for place in range(NEURONS)})

        def job() -> Job[None]:
            for number, unit in enumerate(units):
                yield from as_part(
                    self._cost(model, axis, layer, unit),
                    Message("Without {units} {unit} of layer {layer}", units=Message(UNITS[axis]), unit=unit, layer=layer),
                    number,
                    len(units),
                )
                self.publish()

        self.bench.submit("losses", job, lambda _: None, urgent=True, yielding=True)

    def _open(self, axis: str, facts: dict[str, Any]) -> None:
        self._units[axis] = facts
        self.publish()

    def _model_with(self, axis: str, layer: int, unit: int) -> Model:
        """Return the open model.

        Raises:
            SettingsError: the model has no such layer or unit.
        """
        model = self.bench.open_meter().model
        if axis not in UNITS or not (0 <= layer < model.spec.depth and 0 <= unit < getattr(shape_of(model.config), axis)):
            raise SettingsError("layer {layer} has no {units} {unit}", units=UNITS.get(axis, axis), unit=unit, layer=layer)
        return model

    def _head(self, model: Model, layer: int, head: int) -> dict[str, Any]:
        ids = self.packs(4 * _SENTENCE)[0].ids[:, :_SENTENCE]
        found, looked = roles(model, ids)[layer][head], pattern(model, ids, layer, head)
        return {**asdict(found), "tokens": looked.tokens, "edges": looked.edges, "sink": looked.first}

    def _neuron(self, model: Model, layer: int, neuron: int, tokens: int) -> Job[dict[str, Any]]:
        if (layer, tokens) not in self._peaks:
            self._peaks[layer, tokens] = yield from exciting(model, self.packs(tokens), layer)
        peaks = self._peaks[layer, tokens]
        return {"excited": [asdict(one) for one in peaks.of(neuron)], "read": peaks.read}

    def _cost(self, model: Model, axis: str, layer: int, unit: int) -> Job[dict[str, Any]]:
        cost = yield from self.costing.of_one(_without(model, axis, layer, unit))
        self._losses.setdefault(axis, {})[layer, unit] = cost.kl
        return told_of(cost)


def _without(model: Model, axis: str, layer: int, unit: int) -> Plan:
    """Return the model's plan with a single unit of one layer cut."""
    whole = untouched(model.spec.depth)
    kept: dict[str, Any] = {axis: tuple(other for other in range(getattr(shape_of(model.config), axis)) if other != unit)}
    left = Trim(**kept)
    return replace(whole, blocks=tuple(replace(block, trim=left) if block.home == layer else block for block in whole.blocks))
