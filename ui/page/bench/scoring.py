"""What Importance asks for: scores of heads, neurons, channels and weights, and a head looked at by itself."""

import json
from dataclasses import asdict, replace
from typing import Any

from engine.cache import plain
from engine.errors import SettingsError
from engine.jobs import Job, Progress, as_part
from engine.judge.cost import practice_texts
from engine.methods.agreement import agreements
from engine.methods.importance import Importance, importance, needs_gradients, require_importance, scores_of
from engine.models.shapes import facts_of
from engine.models.texts import Pack, tokens_in
from engine.passes.heads import pattern, roles
from engine.plans.rules import untouched
from engine.types import Model, Plan, Trim
from ui.page.bench.costing import Costing, told_of
from ui.page.bench.lab import Lab
from ui.page.bench.pruning import Pruning, lost
from ui.page.bench.workbench import Workbench

_SENTENCE = 32  # tokens of the text on which a head is looked at


class Scoring(Lab):
    """What was measured of the open model's parts."""

    def __init__(self, bench: Workbench, costing: Costing, pruning: Pruning) -> None:
        super().__init__(bench, costing)
        self._pruning = pruning
        self._shown: dict[str, Any] = {}

    def begin(self, model: Model) -> None:
        self._shown = {"shape": facts_of(model.config, model.spec)["shape"], "measured": {}, "agreement": {}, "head": None}

    def tell(self) -> None:
        self.bench.show("importance", json.dumps(plain(self._shown, 5)))

    def measure(self, axis: str, score: str | None, tokens: int) -> None:
        """Measure one score of an axis on the model as it was opened, or all of them that need no gradients."""
        names = [require_importance(axis, score)] if score else [name for name in scores_of(axis) if not needs_gradients(axis, name)]
        model = self.bench.open_meter().model

        def job() -> Job[None]:
            packs = self.packs(tokens)
            for number, name in enumerate(names):
                if name not in self._shown["measured"].get(axis, {}):
                    yield from as_part(self._measuring(model, axis, name, packs), "", number, len(names))

        self.bench.submit("importance", job, lambda _: None, urgent=True)

    def _measuring(self, model: Model, axis: str, name: str, packs: tuple[Pack, ...]) -> Job[None]:
        whole = untouched(model.spec.depth)
        if axis == "weights":
            found: Any = yield from lost(model, whole, packs, name)
            self._pruning.learn(name, found)
        else:
            measured: Importance = yield from importance(model, whole, packs, axis, name)
            found = measured.layers
        of_axis = {**self._shown["measured"].get(axis, {}), name: found}
        self._shown["measured"] = {**self._shown["measured"], axis: of_axis}
        if axis != "weights":
            self._shown["agreement"] = {**self._shown["agreement"], axis: [asdict(one) for one in agreements(of_axis)]}
        self._shown |= {"tokens": tokens_in(packs), "texts": practice_texts(self.bench.texts.name).name}
        self.tell()

    def look_at_head(self, layer: int, head: int) -> None:
        """Look at one head: its pattern on a sentence, its role, and the cost of the model with that head alone zeroed."""
        model = self.bench.open_meter().model
        shape = self._shown["shape"]
        if not (0 <= layer < shape["depth"] and 0 <= head < shape["heads"]):
            raise SettingsError(f"there is no head {head} of layer {layer}")
        told: dict[str, Any] = {"layer": layer, "head": head}
        self._shown["head"] = told
        self.tell()

        def job() -> Job[None]:
            yield Progress(f"Looking at head {head} of layer {layer}", 0.0)
            ids = self.packs(4 * _SENTENCE)[0].ids[:, :_SENTENCE]
            found, looked = roles(model, ids)[layer][head], pattern(model, ids, layer, head)
            seen = {**told, **asdict(found), "tokens": looked.tokens, "edges": looked.edges, "sink": looked.first}
            self._shown["head"] = seen
            self.tell()
            without = _without_head(model, layer, head, shape["heads"])
            self._shown["head"] = {**seen, "cost": told_of((yield from self.costing.of_one(without)))}
            self.tell()

        self.bench.submit("head", job, lambda _: None, urgent=True)


def _without_head(model: Model, layer: int, head: int, heads: int) -> Plan:
    whole = untouched(model.spec.depth)
    trimmed = Trim(heads=tuple(other for other in range(heads) if other != head))
    blocks = tuple(replace(block, trim=trimmed) if block.home == layer else block for block in whole.blocks)
    return replace(whole, blocks=blocks)
