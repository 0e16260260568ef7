"""Cost curves, measured in the background: the points nearest to the page's sliders first, each sent as soon as it is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.cache import Definition, key_of, plain
from engine.jobs import Job, as_part, scaled
from engine.judge.cost import COST, Cost
from engine.measurements import Measurements
from engine.models.texts import Pack
from engine.plans.tensor_store import for_now
from engine.types import Plan
from ui.page.bench.lab.base import Lab
from ui.page.bench.plans.costing import told_of

TOKENS = 3000  # practice tokens that a plan is made with


@dataclass(frozen=True, slots=True)
class Point:
    """A plan whose cost is one point of a curve: its name in the cache, its coordinates for the page, its label in the progress, the
    definition it is made by, and the function that makes it from practice texts."""

    name: str
    labels: tuple[tuple[str, Any], ...]
    label: str
    made_by: Definition
    make: Callable[[Sequence[Pack]], Job[Plan]]


class Curves:
    """The known points of one tab's curves on the open model. Their plans are not kept."""

    def __init__(self, kind: str, lab: Lab) -> None:
        """`kind` names the task and the cache of its costs."""
        self._lab, self._kind = lab, kind
        self._known: dict[str, dict[str, Any]] = {}

    @property
    def points(self) -> list[dict[str, Any]]:
        """The points as the page draws them."""
        return list(self._known.values())

    def forget(self) -> None:
        """Forget all points: the model or its texts have changed."""
        self._known = {}

    def measure(self, points: Sequence[Point]) -> None:
        """Measure points in this order. Cached points are sent at once, also after a cancel."""
        self._lab.bench.submit(self._kind, lambda: self._measuring(points), lambda _: None, yielding=True)

    def _measuring(self, points: Sequence[Point]) -> Job[None]:
        packs = self._lab.packs(TOKENS)
        measured = self._measured_by(points, packs)
        known = {point.name: found for point in points if (found := measured[point.made_by].get(point.name)) is not None}
        self._learn({point.name: {**dict(point.labels), **known[point.name]} for point in points if point.name in known})
        missing = [point for point in points if point.name not in known]
        for number, point in enumerate(missing):
            cost = plain(told_of((yield from as_part(self._cost(point, packs), point.label, number, len(missing)))))
            measured[point.made_by].add(point.name, cost)
            self._learn({point.name: {**dict(point.labels), **cost}})

    def _measured_by(self, points: Sequence[Point], packs: Sequence[Pack]) -> dict[Definition, Measurements]:
        """Return the cached points by definition, for these practice texts and the texts of the cost."""
        model, judge = self._lab.bench.open_meter().model, self._lab.costing.judge()
        texts = [[pack.ids.tolist(), pack.spans] for pack in (*packs, *judge.packs)]
        made_by = {point.made_by for point in points}
        return {one: Measurements(key_of(model, Definition(self._kind, 1, (one, COST)), texts)) for one in made_by}

    def _learn(self, found: dict[str, dict[str, Any]]) -> None:
        self._known = {**self._known, **found}
        self._lab.publish()

    def _cost(self, point: Point, packs: Sequence[Pack]) -> Job[Cost]:
        with for_now():
            plan = yield from scaled(point.make(packs), 0.0, 0.8)
            return (yield from scaled(self._lab.costing.of_one(plan), 0.8, 1.0))
