""" "Shapes for a budget" on Search: ranks all legal shapes near a number of parameters, measures and times the best."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from engine.cache import plain
from engine.errors import PlanError, SettingsError
from engine.jobs import Job, scaled
from engine.judge.cost import place_of, practice_texts
from engine.judge.objectives import Objective
from engine.judge.similarity import blocks_key
from engine.plans.tensor_store import for_now, keep_longer
from engine.search.candidates import keep_fronts, shapes_to_json, timed
from engine.search.settings import ShapesSettings
from engine.search.shapes import Candidate, search_shapes, searched, shaped
from engine.types import Model, Plan, Shape
from ui.page.bench.lab.base import Lab
from ui.text.tables import COLUMNS, sheet, table


class Shaping(Lab):
    """Searches for the shape to cut the open model to. Measured shapes are shown as they come, and stay after a cancel."""

    _found: tuple[Candidate, ...] = ()
    _again: Callable[[Plan, Shape], Job[Plan]]  # makes a measured shape's plan again

    def begin(self, model: Model) -> None:
        self._found = ()

    def publish(self) -> None:
        self.bench.page.put("shapes", "data", json.dumps(plain(self._told()) if self._found else {"rows": []}))

    def search(self, millions: float | None, asked: ShapesSettings, tokens: int) -> None:
        """Measure the most promising shapes of at most `millions` million parameters, and time them if `asked.speed`.

        Raises:
            SettingsError: there is no budget.
        """
        if not millions or not millions > 0:
            raise SettingsError("enter a budget: the model's number of parameters in millions")
        model, share = self.bench.open_meter().model, 0.8 if asked.speed else 1.0
        packs = self.packs(tokens)

        def job() -> Job[None]:
            self._found, self._again = (), lambda plan, shape: shaped(model, plan.deep, shape, packs, asked.refit)
            self.publish()
            layers = searched(Objective(model, practice_texts(self.bench.texts.name), "kl", tokens), asked.seconds)
            run = search_shapes(model, packs, millions * 1e6, self.costing.of_one, self._learn, asked.measured, asked.refit, layers)
            with for_now():
                try:
                    self._learn((yield from scaled(run, 0.0, share)))
                    if asked.speed:
                        yield from scaled(timed(model, self._found, self._learn), share, 1.0)
                finally:  # also after a cancel
                    keep_fronts(self._found)

        self.bench.submit("shapes", job, lambda _: None, urgent=True)

    def show(self, name: str) -> None:
        """Show the plan of a measured shape; it is made again if its tensors were released.

        Raises:
            PlanError: no shape of this name was measured.
        """
        found = next(((one.plan, one.shape) for one in self._found if one.plan and blocks_key(one.plan.blocks) == name), None)
        if found is None:
            raise PlanError("this shape was not measured on the open model; search for shapes again")
        try:
            keep_longer(found[0].tensors)
        except PlanError:
            self.bench.submit("shape", lambda: self._again(*found), self.bench.show_found, urgent=True)
        else:
            self.bench.show_found(found[0])

    def _learn(self, found: Sequence[Candidate]) -> None:
        for one in found:
            if one.plan is not None and one.cost is not None:
                self.costing.learn(one.plan, one.cost)
        self._found = tuple(found)
        self.publish()

    def _told(self) -> dict[str, Any]:
        """Return the chart data: the measured shapes, cheapest first, with ranks from 1."""
        facts, known = shapes_to_json(self._found), [one for one in self._found if one.cost is not None]
        rows = [_ranked(one, row) for one, row in zip(known, facts["shapes"], strict=False)]
        seen = table("shapes", rows)
        fronts = {name: facts[name] for name in ("front", "fast_front", "rankings")}
        return {"rows": rows, "legal": len(self._found), **fronts, "sheet": sheet(seen, list(COLUMNS["shapes"]))}


def _ranked(one: Candidate, row: dict[str, Any]) -> dict[str, Any]:
    """Return a measured shape's row with the name of its plan and the level of its cost."""
    assert one.plan is not None
    assert one.cost is not None
    ranks = {by: row[by] + 1 for by in ("by_estimate", "by_size")}
    return {**row, **ranks, "name": blocks_key(one.plan.blocks), "level": place_of(one.cost.ratio)}
