"""Width and weights: what Importance, Width and Weights ask for."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from engine.cache import Ledger, content_key, plain
from engine.errors import SettingsError
from engine.jobs import Job, Progress, as_part, scaled
from engine.judge.cost import practice_texts
from engine.judge.practice import practice_packs
from engine.methods.agreement import agreements
from engine.methods.importance import Importance, importance, needs_gradients, require_importance, scores_of
from engine.methods.masks import MASKS, prune, weight_scores
from engine.methods.selection import wanted
from engine.methods.widths import AXES, Kept, require_score, require_width, trim
from engine.models.shapes import facts_of
from engine.models.texts import Pack, tokens_in
from engine.passes.heads import pattern, roles
from engine.plans.kept import for_now
from engine.plans.rules import untouched
from engine.types import Model, Plan, Trim
from ui.page.bench.costing import Costing, told_of
from ui.page.bench.workbench import Workbench

SHARES = 20  # of a projection's weights, lowest first, whose share of the score is summed up
CURVES = ("magnitude", "wanda", "gblm", "sparsegpt")
SPARSITIES = (0.5, 0.7, 0.3)
_CURVE_TOKENS = 3000
_SENTENCE = 32  # tokens of the text on which a head is looked at


class Lab:
    """The lab of one workbench: the scores that were measured of its model, and the plans with less width or with masks."""

    def __init__(self, bench: Workbench, costing: Costing) -> None:
        self.bench, self.costing = bench, costing
        self._of: tuple[Model, str] | None = None  # the model and the practice texts that all of it is of
        self._shown: dict[str, Any] = {}
        self._lost: dict[str, Any] = {}
        self._curves: list[dict[str, Any]] = []
        bench.when_opened(self._opened)

    def _opened(self) -> None:
        model, practice = self.bench.open_meter().model, practice_texts(self.bench.texts.name).fingerprint
        facts = facts_of(model.config, model.spec)
        if self._of != (model, practice):
            self._of = (model, practice)
            self._shown = {"shape": facts["shape"], "measured": {}, "agreement": {}, "head": None}
            self._lost, self._curves = {}, []
            for axis in AXES:
                self._range(axis, facts)
        self.bench.show("widths", json.dumps(facts))
        self._tell()

    def _range(self, axis: str, facts: Mapping[str, Any]) -> None:
        """Put a slider of Width into the range of the open model."""
        most = facts["shape"][axis]
        step = {"heads": facts["groups_of"], "neurons": max(1, most // 96), "channels": facts["shape"]["heads"]}[axis]
        fixed = axis in facts["fixed"]
        for prop, value in (("minimum", min(step, most - 1)), ("maximum", max(most, 2)), ("step", step), ("interactive", not fixed)):
            self.bench.page.put(f"width_{axis}", prop, value)
        self.bench.page.put(f"width_{axis}", "value", most)

    # --- Importance ---

    def measure(self, axis: str, score: str | None, tokens: int) -> None:
        """Measure one score of an axis on the model as it was opened, or all of them that need no gradients."""
        names = [require_importance(axis, score)] if score else [name for name in scores_of(axis) if not needs_gradients(axis, name)]
        model = self.bench.open_meter().model

        def job() -> Job[None]:
            packs = self._packs(tokens)
            for number, name in enumerate(names):
                if name not in self._shown["measured"].get(axis, {}):
                    yield from as_part(self._measuring(model, axis, name, packs), "", number, len(names))

        self.bench.submit("importance", job, lambda _: None, urgent=True)

    def _measuring(self, model: Model, axis: str, name: str, packs: tuple[Pack, ...]) -> Job[None]:
        whole = untouched(model.spec.depth)
        if axis == "weights":
            found: Any = yield from _lost(model, whole, packs, name)
            self._lost[name] = found
        else:
            measured: Importance = yield from importance(model, whole, packs, axis, name)
            found = measured.layers
        of_axis = {**self._shown["measured"].get(axis, {}), name: found}
        self._shown["measured"] = {**self._shown["measured"], axis: of_axis}
        if axis != "weights":
            self._shown["agreement"] = {**self._shown["agreement"], axis: [asdict(one) for one in agreements(of_axis)]}
        self._shown |= {"tokens": tokens_in(packs), "texts": practice_texts(self.bench.texts.name).name}
        self._tell()

    def look_at_head(self, layer: int, head: int) -> None:
        """Look at one head: its pattern on a sentence, its role, and the cost of the model with that head alone zeroed."""
        model = self.bench.open_meter().model
        shape = self._shown["shape"]
        if not (0 <= layer < shape["depth"] and 0 <= head < shape["heads"]):
            raise SettingsError(f"there is no head {head} of layer {layer}")
        told: dict[str, Any] = {"layer": layer, "head": head}
        self._shown["head"] = told
        self._tell()

        def job() -> Job[None]:
            yield Progress(f"Looking at head {head} of layer {layer}", 0.0)
            ids = self._packs(4 * _SENTENCE)[0].ids[:, :_SENTENCE]
            found, looked = roles(model, ids)[layer][head], pattern(model, ids, layer, head)
            seen = {**told, **asdict(found), "tokens": looked.tokens, "edges": looked.edges, "sink": looked.first}
            self._shown["head"] = seen
            self._tell()
            without = _without_head(model, layer, head, shape["heads"])
            self._shown["head"] = {**seen, "cost": told_of((yield from self.costing.of_one(without)))}
            self._tell()

        self.bench.submit("head", job, lambda _: None, urgent=True)

    # --- Width and weights ---

    def kept(self, heads: float, neurons: float, channels: float) -> Kept:
        """Return what the sliders ask for; an axis that is whole is not asked for."""
        shape = self._shown.get("shape", {})
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
            return (yield from trim(model, plan, self._packs(tokens), kept, score, None, refit, plain_))

        self.bench.submit("trim", job, self.bench.show_found, urgent=True)

    def prune(
        self, choice: str, threshold: float, method: str, sparsity: float, pattern_: str, group: str, tokens: int, **settings: Any
    ) -> None:
        """Prune weights of the plan that the page shows; the pruned one becomes the plan shown."""
        model, plan = self.bench.open_meter().model, self.bench.chosen(choice, threshold)[0].dense
        own = MASKS.require(method).settings.group  # type: ignore[attr-defined]
        want = wanted(None if pattern_ else sparsity, pattern_ or None, group or own)

        def job() -> Job[Plan]:
            packs = self._packs(tokens) if MASKS[method].settings.needs else ()  # type: ignore[attr-defined]
            return (yield from prune(model, plan, packs, method, want, settings))

        self.bench.submit("prune", job, self.bench.show_found, urgent=True)

    def curves(self) -> None:
        """Measure what a few sparsities cost by each method, on the model as it was opened; the plans are thrown away."""
        model = self.bench.open_meter().model
        todo = [(method, sparsity) for sparsity in SPARSITIES for method in CURVES]

        def job() -> Job[None]:
            packs = self._packs(_CURVE_TOKENS)
            key = content_key(model.fingerprint, model.spec.dtype, [pack.ids.tolist() for pack in packs])
            ledger = Ledger("mask-costs", key)
            for number, (method, sparsity) in enumerate(todo):
                name = f"{method} {sparsity}"
                if (known := ledger.get(name)) is None:
                    cost = yield from as_part(
                        self._cost_of_mask(model, packs, method, sparsity), f"{method}, {sparsity:.0%}", number, len(todo)
                    )
                    known = plain(told_of(cost))
                    ledger.add(name, known)
                self._curves = [one for one in self._curves if (one["method"], one["sparsity"]) != (method, sparsity)]
                self._curves.append({"method": method, "sparsity": sparsity, **known})
                self._tell()

        self.bench.submit("mask-costs", job, lambda _: None, yielding=True)

    def _cost_of_mask(self, model: Model, packs: tuple[Pack, ...], method: str, sparsity: float) -> Job[Any]:
        with for_now():
            want = wanted(sparsity, None, MASKS[method].settings.group)  # type: ignore[attr-defined]
            plan = yield from scaled(prune(model, untouched(model.spec.depth), packs, method, want), 0.0, 0.8)
            return (yield from scaled(self.costing.of_one(plan), 0.8, 1.0))

    def _packs(self, tokens: int) -> tuple[Pack, ...]:
        return practice_packs(self.bench.open_meter().model, practice_texts(self.bench.texts.name), tokens)

    def _tell(self) -> None:
        self.bench.show("importance", json.dumps(plain(self._shown, 5)))
        self.bench.show("masks", json.dumps(plain({"lost": self._lost, "curves": self._curves}, 5)))


def _lost(model: Model, plan: Plan, packs: tuple[Pack, ...], method: str) -> Job[Mapping[str, Any]]:
    """Return the mean score of each projection, and for SHARES growing shares of its weights what share of the score goes with the
    lowest of each output: a layer each."""
    means: dict[tuple[int, str], float] = {}
    shares: dict[tuple[int, str], list[float]] = {}

    def take(place: int, name: str, scored: torch.Tensor) -> None:
        values = np.sort(scored.float().numpy(), axis=1)
        together = values.sum(0, dtype=np.float64).cumsum()
        ends = [int(values.shape[1] * part / SHARES) for part in range(SHARES)]
        means[place, name] = float(values.mean())
        shares[place, name] = [float(together[end - 1] / together[-1]) if end else 0.0 for end in ends]

    yield from weight_scores(model, plan, packs, method, take)
    names = list(dict.fromkeys(name for _, name in means))
    layers = range(plan.depth)
    return {
        "projections": names,
        "means": [[means[place, name] for name in names] for place in layers],
        "lost": [[shares[place, name] for name in names] for place in layers],
    }


def _without_head(model: Model, layer: int, head: int, heads: int) -> Plan:
    whole = untouched(model.spec.depth)
    trimmed = Trim(heads=tuple(other for other in range(heads) if other != head))
    blocks = tuple(replace(block, trim=trimmed) if block.home == layer else block for block in whole.blocks)
    return replace(whole, blocks=blocks)
