"""The Compare tab: judges plans and compares them."""

import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from engine.cache import plain
from engine.errors import LayerscopeError
from engine.export.checkpoint.export import versions
from engine.export.lineage import lineage_of
from engine.export.report.html import report_html
from engine.export.report.pictures import Other
from engine.jobs import Job, Progress, as_part
from engine.judge.evaluation import Evaluation, Judge
from engine.judge.memory import Memory
from engine.judge.similarity import blocks_key, cached_profile
from engine.judge.speed import Speed
from engine.messages import Message, decode_message, encode_messages
from engine.methods.depth.laco import mean_and_spread
from engine.plans.description import weigh
from engine.plans.files import plan_from_json
from engine.records import from_json
from engine.search.ablation_rows import Ablation, ablation_to_json
from engine.search.ablations import ablate, require_ablation
from engine.types import Plan, TextSet
from engine.untrusted import ForeignError
from ui.page.bench.board import Board, by_protocol
from ui.page.bench.plans.measuring import Measurement, cost, measurement
from ui.page.bench.plans.timing import Timing
from ui.page.bench.workbench import Workbench
from ui.text.messages import method_title, translator
from ui.text.tables import ON_BOARD, sheet, table


class Comparison:
    """The Compare tab of one workbench: judges plans, keeps the open model's board, writes reports."""

    def __init__(self, bench: Workbench, timing: Timing) -> None:
        self.bench, self.timing = bench, timing
        self._judge: Judge | None = None
        self._judge_of: tuple[int, str, int] | None = None
        bench.when_opened(self._opened)
        bench.when_mapped(self.tell_map)

    @property
    def board(self) -> Board:
        """The board of the open model."""
        return Board(self.bench.open_meter().model.fingerprint)

    def _opened(self) -> None:
        for component, prop, nothing in (("ablation", "data", ""), ("report", "value", "{}")):
            self.bench.page.put(component, prop, nothing)
        self.bench.page.put("fold", "judged", "{}")
        self.shown()

    def shown(self) -> None:
        """Send the board to the page."""
        model, spec = self.bench.open_meter().model, self.bench.open_meter().model.spec
        rows = []
        entries = self.board.entries()
        marks, protocols = by_protocol(entries)
        for name, entry in entries.items():
            plan = plan_from_json(entry["plan"])
            parameters, size = weigh(spec, plan)
            label = decode_message(entry["label"] or method_title(plan.method))
            rows.append(
                {
                    "name": name,
                    **entry,
                    "label": label,
                    "depth": plan.depth,
                    "parameters": parameters,
                    "bytes": size,
                    "mark": marks.get(name, ""),
                }
            )
        data = {"model": model.spec.name, "depth": spec.depth, "parameters": spec.parameters, "entries": rows, "protocols": protocols}
        data["sheet"] = sheet(table("board", rows), ON_BOARD)
        self.bench.page.put("board", "data", json.dumps(encode_messages(plain(data))))
        self.bench.page.put("board", "stale", "no")

    def judge(self, choice: str, threshold: float, texts: TextSet, tokens: int, also: Sequence[str] = (), **options: Any) -> None:
        """Pin the plan shown on Fold. One job measures its cost and the measurements of `measuring.ALSO` named in `also`."""
        plan, _ = self.bench.chosen(choice, threshold)
        label, model = self.bench.label_of(choice, plan), self.bench.open_meter().model
        wanted = [cost(self.judge_for(texts, tokens), plan), *(measurement(what, model, plan, options) for what in also)]
        self.board.pin(plan, label)
        self.shown()
        self._measure("judge", plan, label, wanted)

    def judge_map(self, texts: TextSet, tokens: int) -> None:
        """Judge every plan of the T map, cheapest to compute first. Each plan is on the board as soon as it is judged.

        Raises:
            LayerscopeError: there is no map yet.
        """
        if self.bench.map is None:
            raise LayerscopeError("the T map is not ready; wait for it, or choose other settings")
        judge, board = self.judge_for(texts, tokens), self.board
        plans = {step.proposal.plan.blocks: step.proposal.plan for step in self.bench.map.steps}
        todo = sorted((plan for plan in plans.values() if plan.prefix < plan.depth), key=lambda plan: plan.depth - plan.prefix)

        def job() -> Job[None]:
            for number, plan in enumerate(todo):
                measuring = self._measuring(board, plan, self.bench.label_of("map", plan), [cost(judge, plan)])
                yield from as_part(
                    measuring,
                    Message("Plan {number} of {count} ({depth} layers)", number=number + 1, count=len(todo), depth=plan.depth),
                    number,
                    len(todo),
                )

        self.bench.submit("judge-map", job, lambda _: None, urgent=True, yielding=True)

    def _measure(self, kind: str, plan: Plan, label: str, wanted: list[Measurement]) -> None:
        board = self.board
        self.bench.submit(kind, lambda: self._measuring(board, plan, label, wanted), lambda _: None, urgent=True, yielding=True)

    def _measuring(self, board: Board, plan: Plan, label: str, wanted: list[Measurement]) -> Job[None]:
        """Run the measurements in turn. Each result goes to the board and leaves the list at once, so an interrupted job resumes there."""
        parts = len(wanted)
        for place in range(parts):
            found = yield from as_part(wanted[0](), "", place, parts)
            yield Progress("", (place + 1) / parts)  # a cancel takes effect here
            wanted.pop(0)
            board.pin(plan, label, **found)
            self.shown()
            self.tell_map()

    def tell_map(self) -> None:
        """Send the cost ratios of the map's judged plans to the Fold tab."""
        if self.bench.map is None:
            return
        entries = self.board.entries()
        ratios: dict[int, Any] = {}
        for index, step in enumerate(self.bench.map.steps):
            found = entries.get(blocks_key(step.proposal.plan.blocks), {}).get("evaluation")
            if found:
                ratios[index] = found["perplexity"]["ratio"]
        self.bench.page.put("fold", "judged", json.dumps(ratios))

    def known_of(self, plan: Plan) -> dict[str, Any]:
        """Return a plan's known cost, speed and memory, as the fields of a provenance; what cannot be read again is left out."""
        found = {**self.board.entries().get(blocks_key(plan.blocks), {}), **self.timing.of(plan)}
        known = dict[str, Any]()
        for field, kind in (("evaluation", Evaluation), ("speed", Speed), ("memory", Memory)):
            if found.get(field):
                with suppress(ForeignError):
                    known[field] = from_json(kind, found[field])
        return known

    def report(
        self, choice: str, threshold: float, texts: TextSet, tokens: int, also: Sequence[str] = (), language: str = "en", **options: Any
    ) -> None:
        """Write the report of the plan shown on Fold as one HTML file.

        The job measures the cost first, then the measurements in `also` that are missing. Other known measurements are included too.
        """
        plan, known = self.bench.chosen(choice, threshold)
        label, profile, frontier = self.bench.label_of(choice, plan), self.bench.profile, self.bench.map
        meter, judge, board = self.bench.open_meter(), self.judge_for(texts, tokens), self.board
        model, name = meter.model, board.pin(plan, label, **self.timing.of(plan))
        missing = [what for what in also if what not in board.entries()[name]]
        wanted = [cost(judge, plan), *(measurement(what, model, plan, options) for what in missing)]

        def job() -> Job[str]:
            shown = profile or (yield from cached_profile(self.bench.open_meter()))
            yield from self._measuring(board, plan, label, wanted)
            entry, found = board.entries().get(name, {}), (yield from judge.judge(plan))
            similarity = mean_and_spread(meter.measure(plan.blocks, plan.prefix), self.bench.settings.similarity)[0]
            facts = {"trials": len(known.trials or ()), "similarity": similarity, "versions": versions()}
            facts |= {"calibration": meter.calibration, "evaluation": texts}
            measured: dict[str, Any] = {field: entry.get(field) for field in ("samples", "speed", "memory", "tasks")}
            described: dict[str, Any] = {"facts": facts, "others": self._beside(board, name, found, language), "language": language}
            described["lineage"] = lineage_of(model.source, model.folder, model.spec, model.fingerprint)
            return report_html(model.spec, model.source, model.fingerprint, plan, shown, found, frontier, **measured, **described)

        def done(text: str) -> None:
            file = {"id": os.urandom(8).hex(), "name": f"layerscope-{plan.depth}-layers.html", "text": text}
            self.bench.page.put("download", "data", json.dumps(file))

        self.shown()
        self.bench.submit("report", job, done, urgent=True)

    def _beside(self, board: Board, name: str, evaluation: Evaluation, language: str) -> list[Other]:
        """Return the board's other plans with the same protocol, for the report's picture."""
        spec, to_words, protocol = self.bench.open_meter().model.spec, translator(language), plain(asdict(evaluation.protocol))
        found: list[Other] = []
        for other, entry in board.entries().items():
            judged = entry.get("evaluation")
            if other != name and judged and judged["protocol"] == protocol:
                plan, cost = plan_from_json(entry["plan"]), judged["perplexity"]
                ratio, low, high = (math.nan if value is None else value for value in (cost["ratio"], *cost["interval"]))
                label = to_words(decode_message(entry["label"] or method_title(plan.method)))
                found.append((label, plan.depth, weigh(spec, plan)[0], ratio, low, high))
        return found

    def ablate(self, name: str, threshold: float, texts: TextSet, tokens: int) -> None:
        """Run one of the LaCo paper's ablations around the settings on Fold."""
        require_ablation(name)
        meter, judge = self.bench.open_meter(), self.judge_for(texts, tokens)
        settings = replace(self.bench.settings, T=threshold).checked(meter.model.spec.depth)

        def done(found: Ablation) -> None:
            shown = plain(ablation_to_json(found))
            rows = table("ablation", shown["rows"])
            self.bench.page.put("ablation", "data", json.dumps(encode_messages({**shown, "sheet": sheet(rows, list(rows))})))

        self.bench.submit("ablation", lambda: ablate(name, meter, judge, settings), done, urgent=True, yielding=True)

    def judge_for(self, texts: TextSet, tokens: int) -> Judge:
        model = self.bench.open_meter().model
        wanted = (id(model), texts.fingerprint, tokens)
        if self._judge is None or wanted != self._judge_of:
            self._judge, self._judge_of = Judge(model, texts, limit=tokens), wanted
        return self._judge

    def act(self, what: str, name: str, **options: Any) -> None:
        """Handle a button below the board for the plan of this name: show it, remove it, or run one of `measuring.ALSO`."""
        if what == "show":
            self.bench.show_found(self.board.plan(name))
        elif what == "remove":
            self.board.remove(name)
            self.shown()
            self.tell_map()
        else:
            model, plan = self.bench.open_meter().model, self.board.plan(name)
            self._measure(what, plan, "", [measurement(what, model, plan, options)])
