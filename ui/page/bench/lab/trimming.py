"""The Width tab: trims heads, neurons or channels of the plan shown, and measures the cost of several widths by each score."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine.jobs import Job
from engine.messages import Message
from engine.methods.definitions import trim_by
from engine.methods.runtime_estimate import trimming_seconds
from engine.methods.width.compensation import has_bias
from engine.methods.width.scores import AXES, SCORES, require_score, scores_for
from engine.methods.width.settings import TrimSettings
from engine.methods.width.widths import require_width, trim
from engine.models.shapes import facts_of, legal_channels, legal_heads
from engine.models.texts import Pack, tokens_in
from engine.plans.rules import untouched
from engine.types import Model, Plan
from ui.page.bench.lab.base import Lab
from ui.page.bench.plans.costing import Costing
from ui.page.bench.plans.curves import Curves, Point
from ui.page.bench.runtime_estimate import when_paced
from ui.page.bench.workbench import Workbench

SHARES = (0.875, 0.75, 0.5)  # shares of an axis that are kept
# Pairs of a score and a compensation, the quickest first.
ARMS = (("maw", "nothing"), ("minitron", "nothing"), ("flap", "bias"), ("weighted", "refit"))


class Trimming(Lab):
    """Trims the plans of one workbench."""

    def __init__(self, bench: Workbench, costing: Costing) -> None:
        super().__init__(bench, costing)
        self._facts: dict[str, Any] = {}
        self._curves = Curves("width-costs", self)

    def begin(self, model: Model) -> None:
        self._facts = facts_of(model.config, model.spec)
        self._curves.forget()
        for axis in AXES:
            self._range(axis)
        self.bench.page.put("width_by", "value", "sliders")
        self.bench.page.put("trim-times", "value", "{}")

    def _range(self, axis: str) -> None:
        """Set a Width slider to the open model's range."""
        most = self._facts["shape"][axis]
        step = {"heads": self._facts["groups_of"], "neurons": max(1, most // 96), "channels": self._facts["shape"]["heads"]}[axis]
        fixed = axis in self._facts["fixed"]
        for prop, value in (("minimum", min(step, most - 1)), ("maximum", max(most, 2)), ("step", step), ("interactive", not fixed)):
            self.bench.page.put(f"width_{axis}", prop, value)
        self.bench.page.put(f"width_{axis}", "value", most)

    def publish(self) -> None:
        self.bench.show("widths", json.dumps(self._facts))
        self.bench.show("widthcosts", json.dumps(self._curves.points))

    def kept(self, asked: TrimSettings) -> TrimSettings:
        """Return what the sliders ask for, with None for an axis that is not cut."""
        shape = self._facts.get("shape", {})
        whole: dict[str, Any] = {axis: None for axis in AXES if (getattr(asked, axis) or 0) >= shape.get(axis, 0)}
        return replace(asked, **whole)

    def trim(self, choice: str, threshold: float, asked: TrimSettings, tokens: int) -> None:
        """Trim the layers of the plan shown on the page; the trimmed plan becomes the plan shown."""
        kept = self.kept(asked)
        model, shown = self.bench.open_meter().model, self.bench.chosen(choice, threshold)[0]
        plan = shown.deep
        require_width(model, plan, kept)
        for axis in AXES:
            if getattr(kept, axis) is not None:
                require_score(kept.score, axis)

        def job() -> Job[Plan]:
            return (yield from trim(model, plan, self.packs(tokens), kept))

        def done(trimmed: Plan) -> None:
            self.bench.show_found(trimmed)
            if shown.masks:
                self.bench.notify(Message("the trim removed the plan's masks, which belong to its former width; prune again"), trimmed)

        self.bench.submit("trim", job, done, urgent=True)

    def times(self, score: str, compensation: str, tokens: int) -> dict[str, Any]:
        """Return the number of practice tokens that a trim reads where `tokens` are requested, and the seconds it takes here."""
        model, read = self.bench.open_meter().model, tokens_in(self.packs(tokens))
        SCORES.require(score)

        def facts() -> dict[str, Any]:
            return {"tokens": read, "seconds": {"trim": trimming_seconds(model, score, compensation, read)}}

        return when_paced(self.bench, "trim-times", facts)

    def curves(self, kept: TrimSettings) -> None:
        """Measure the cost of a few widths of each axis by each score on the unchanged model, nearest to the sliders first."""
        shape, kept = self._facts["shape"], self.kept(kept)
        now = {axis: getattr(kept, axis) or shape[axis] for axis in AXES}
        asked = [(axis, count) for axis in AXES for count in self._counts(axis, now[axis])]
        asked.sort(key=lambda one: abs(one[1] - now[one[0]]) / shape[one[0]])
        self._curves.measure([self._point(*one, *arm) for one in asked for arm in ARMS if self._serves(one[0], *arm)])

    def _serves(self, axis: str, score: str, compensation: str) -> bool:
        return score in scores_for(axis) and (compensation != "bias" or has_bias(self.bench.open_meter().model, axis))

    def _counts(self, axis: str, now: int) -> list[int]:
        """Return the widths of an axis to measure: the legal ones nearest to SHARES of it, and the slider's."""
        config, whole = self.bench.open_meter().model.config, self._facts["shape"][axis]
        legal = {"heads": lambda: legal_heads(config), "channels": lambda: legal_channels(config, step=self._facts["shape"]["heads"])}
        there = legal[axis]() if axis in legal else range(1, whole + 1)
        nearest = {min(there, key=lambda count: abs(count - share * whole)) for share in SHARES}
        return sorted((nearest | {now} & set(there)) - {whole}, reverse=True)

    def _point(self, axis: str, count: int, score: str, compensation: str) -> Point:
        model, asked = self.bench.open_meter().model, {axis: count, "score": score, "compensation": compensation}
        kept = TrimSettings(**asked, plain=score == "minitron")  # type: ignore[arg-type]

        def make(packs: Sequence[Pack]) -> Job[Plan]:
            return trim(model, untouched(model.spec.depth), packs, kept)

        facts = (("axis", axis), ("count", count), ("score", score), ("beside", compensation))
        return Point(
            f"{axis} {count} {score} {compensation}",
            facts,
            Message("{axis} kept: {count}, {score}", axis=axis, count=count, score=score),
            trim_by(score, compensation),
            make,
        )
