"""Judging plans and comparing them: what the Compare tab asks for."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from engine.cache import plain
from engine.errors import LayerscopeError, PlanError
from engine.export.checkpoint import versions
from engine.export.pictures import Other
from engine.export.report import report_html
from engine.jobs import Job, Progress, as_part, scaled
from engine.judge.cost import practice_texts
from engine.judge.evaluation import Evaluation, Judge
from engine.judge.objectives import Objective
from engine.judge.similarity import blocks_key
from engine.methods.laco import mean_and_spread
from engine.plans.files import plan_from_json
from engine.plans.words import weigh
from engine.recover.effort import judging
from engine.recover.repair import REPAIRS, WHOLE, repair, require_repairable, seconds_for, work_of
from engine.search.ablation_rows import Ablation
from engine.search.ablations import ablate, require_ablation
from engine.types import Calibration, Plan
from ui.page.bench.board import Board, by_protocol
from ui.page.bench.exploring import profile_job
from ui.page.bench.measuring import Measurement, cost, measurement
from ui.page.bench.pacing import when_paced
from ui.page.bench.timing import Timing
from ui.page.bench.workbench import Workbench
from ui.text.messages import label_teller
from ui.text.tables import ON_BOARD, sheet, table
from ui.text.wire import ablation_to_json, evaluation_to_json


class Comparison:
    """The Compare tab of one workbench: judges plans, keeps the board of the open model, repairs, reports."""

    def __init__(self, bench: Workbench, timing: Timing) -> None:
        self.bench, self.timing = bench, timing
        self._judge: Judge | None = None
        self._judge_of: tuple[int, str, int] | None = None
        self._repaired: tuple[str, Plan, Plan] | None = None  # which choice was repaired last, that plan, and the repaired one
        bench.when_opened(self._opened)
        bench.when_mapped(self.tell_map)
        bench.when_shown(self._shown)

    @property
    def board(self) -> Board:
        """The board of the open model."""
        return Board(self.bench.open_meter().model.fingerprint)

    def _opened(self) -> None:
        self._repaired = None
        for component, prop, nothing in (("repaired", "value", "{}"), ("ablation", "data", ""), ("report", "value", "{}")):
            self.bench.page.put(component, prop, nothing)
        self.bench.page.put("fold", "judged", "{}")
        self.shown()

    def shown(self) -> None:
        """Tell the page what is on the board."""
        model, spec = self.bench.open_meter().model, self.bench.open_meter().model.spec
        rows = []
        entries = self.board.entries()
        marks, protocols = by_protocol(entries)
        for name, entry in entries.items():
            plan = plan_from_json(entry["plan"])
            parameters, size = weigh(spec, plan)
            rows.append({"name": name, **entry, "depth": plan.depth, "parameters": parameters, "bytes": size, "mark": marks.get(name, "")})
        data = {"model": model.spec.name, "depth": spec.depth, "parameters": spec.parameters, "entries": rows, "protocols": protocols}
        data["sheet"] = sheet(table("board", rows), ON_BOARD)
        self.bench.page.put("board", "data", json.dumps(plain(data)))
        self.bench.page.put("board", "stale", "no")

    def judge(self, choice: str, threshold: float, texts: Calibration, tokens: int, also: Sequence[str] = (), **options: Any) -> None:
        """Pin the plan that Fold shows, and measure in one task what it costs and whatever of `measuring.ALSO` is wanted too."""
        plan, _ = self.bench.chosen(choice, threshold)
        label, model = self.bench.label_of(choice, plan), self.bench.open_meter().model
        wanted = [cost(self._judge_for(texts, tokens), plan), *(measurement(what, model, plan, options) for what in also)]
        self.board.pin(plan, label)
        self.shown()
        self._measure("judge", plan, label, wanted)

    def judge_map(self, texts: Calibration, tokens: int) -> None:
        """Judge every plan of the T map, the cheapest first; each is on the board as soon as it is judged.

        Raises:
            LayerscopeError: there is no map yet.
        """
        if self.bench.map is None:
            raise LayerscopeError("there is no T map yet; wait for it, or choose other settings")
        judge, board = self._judge_for(texts, tokens), self.board
        plans = {step.proposal.plan.blocks: step.proposal.plan for step in self.bench.map.steps}
        todo = sorted((plan for plan in plans.values() if plan.prefix < plan.depth), key=lambda plan: plan.depth - plan.prefix)

        def job() -> Job[None]:
            for number, plan in enumerate(todo):
                measuring = self._measuring(board, plan, self.bench.label_of("map", plan), [cost(judge, plan)])
                yield from as_part(measuring, f"Plan {number + 1} of {len(todo)} ({plan.depth} layers)", number, len(todo))

        self.bench.submit("judge-map", job, lambda _: None, urgent=True, yielding=True)

    def _measure(self, kind: str, plan: Plan, label: str, wanted: list[Measurement]) -> None:
        board = self.board
        self.bench.submit(kind, lambda: self._measuring(board, plan, label, wanted), lambda _: None, urgent=True, yielding=True)

    def _measuring(self, board: Board, plan: Plan, label: str, wanted: list[Measurement]) -> Job[None]:
        """Measure what is wanted in turn. Each result is on the board at once and off the list, so that a task that was
        interrupted goes on from there."""
        parts = len(wanted)
        for place in range(parts):
            found = yield from as_part(wanted[0](), "", place, parts)
            yield Progress("", (place + 1) / parts)  # who cancelled wants nothing more
            wanted.pop(0)
            board.pin(plan, label, **found)
            self.shown()
            self.tell_map()

    def tell_map(self) -> None:
        """Tell the Fold tab which plans of its map were judged, and with what outcome."""
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
        """Return what is known of a plan's cost, speed and memory, as an export keeps it."""
        found = self.board.entries().get(blocks_key(plan.blocks), {}).get("evaluation")
        return {**({"evaluation": found} if found else {}), **self.timing.of(plan)}

    def repair(self, choice: str, threshold: float, kind: str, texts: Calibration, judged: int, **settings: Any) -> None:
        """Repair the plan that Fold shows without training, judge it before and after, and show it."""
        asked = REPAIRS.require(kind).asked(settings)
        plan, _ = self.bench.chosen(choice, threshold)
        require_repairable(plan, kind)
        label, model = self.bench.label_of(choice, plan), self.bench.open_meter().model
        judge, board = self._judge_for(texts, judged), self.board
        practice = practice_texts(self.bench.texts.name)

        def job() -> Job[tuple[Evaluation, Plan, Evaluation]]:
            objective = Objective(model, practice, "kl", asked.tokens)
            share = work_of(model, plan, kind, objective.tokens)
            share /= share + judging(model, plan, judged)
            found = yield from scaled(repair(objective, plan, kind), 0.0, share)
            before = yield from scaled(judge.judge(plan), share, (1 + share) / 2)
            return before, found, (yield from scaled(judge.judge(found), (1 + share) / 2, 1.0))

        def done(result: tuple[Evaluation, Plan, Evaluation]) -> None:
            before, found, after = result
            board.pin(plan, label, evaluation=evaluation_to_json(before))
            board.pin(found, f"{label}, repaired ({kind})", evaluation=evaluation_to_json(after))
            self.shown()
            self._repaired = (choice, plan, found)
            self.bench.show_found(found)
            self.bench.page.put("repaired", "value", json.dumps(plain(_repair_facts(before, found, after, kind, practice))))

        self.bench.submit("repair", job, done, urgent=True)

    def repair_times(self, choice: str, threshold: float, judged: int, **settings: Any) -> dict[str, Any]:
        """Return how many seconds each kind of repair of the plan that Fold shows takes here, judging on so many tokens too, and with how
        many practice tokens; nothing where the model has not run yet: then it is timed, and the page told.

        Raises:
            PlanError: there is no such plan yet.
        """
        plan, _ = self.bench.chosen(choice, threshold)
        meter, practice = self.bench.open_meter(), practice_texts(self.bench.texts.name)
        kinds = [kind for kind in REPAIRS if _takes(kind, plan)]
        used = {kind: Objective(meter.model, practice, "kl", REPAIRS[kind].asked(settings).tokens).tokens for kind in kinds}

        def told() -> dict[str, Any]:
            seconds = {kind: seconds_for(meter.model, plan, kind, used[kind], judged) for kind in kinds}
            return {"tokens": max(used.values(), default=0), "seconds": seconds}

        return when_paced(self.bench, "repair_times", told)

    def undo_repair(self) -> None:
        """Show the plan again that was repaired last.

        Raises:
            PlanError: nothing was repaired.
        """
        if self._repaired is None:
            raise PlanError("there is no repair to undo")
        choice, plan, _ = self._repaired
        self._forget_repair()
        if choice == "found":
            self.bench.show_found(plan)
        else:
            self.bench.page.move("plan", choice)

    def _shown(self, *_plans: Plan) -> None:
        """What is trimmed, pruned or found after a repair is no repaired plan any more: there is nothing to undo."""
        if self._repaired is not None and self.bench.found is not self._repaired[2]:
            self._forget_repair()

    def _forget_repair(self) -> None:
        self._repaired = None
        self.bench.page.put("repaired", "value", "{}")

    def report(
        self, choice: str, threshold: float, texts: Calibration, tokens: int, also: Sequence[str] = (), language: str = "en", **options: Any
    ) -> None:
        """Make the report of the plan that Fold shows: one HTML file. What it costs is measured first, and of `measuring.ALSO`
        what is wanted and nobody has measured; what is not wanted is told where it is known."""
        plan, known = self.bench.chosen(choice, threshold)
        label, profile, frontier = self.bench.label_of(choice, plan), self.bench.profile, self.bench.map
        meter, judge, board = self.bench.open_meter(), self._judge_for(texts, tokens), self.board
        model, name = meter.model, board.pin(plan, label, **self.timing.of(plan))
        missing = [what for what in also if what not in board.entries()[name]]
        wanted = [cost(judge, plan), *(measurement(what, model, plan, options) for what in missing)]

        def job() -> Job[str]:
            shown = profile or (yield from profile_job(self.bench))
            yield from self._measuring(board, plan, label, wanted)
            entry, found = board.entries().get(name, {}), (yield from judge.judge(plan))
            similarity = mean_and_spread(meter.measure(plan.blocks, plan.prefix), self.bench.settings.similarity)[0]
            facts = {"trials": len(known.get("trials", ())), "similarity": similarity, "versions": versions()}
            facts |= {"calibration": meter.calibration, "evaluation": texts}
            beside = {field: entry.get(field) for field in ("samples", "speed", "memory", "tasks")}
            told = {"facts": facts, "others": self._beside(board, name, found, language), "language": language}
            return report_html(model.spec, model.source, model.fingerprint, plan, shown, found, frontier, **beside, **told)

        def done(text: str) -> None:
            file = {"id": os.urandom(8).hex(), "name": f"layerscope-{plan.depth}-layers.html", "text": text}
            self.bench.page.put("download", "data", json.dumps(file))

        self.shown()
        self.bench.submit("report", job, done, urgent=True)

    def _beside(self, board: Board, name: str, evaluation: Evaluation, language: str) -> list[Other]:
        """Return the other plans of the board that were judged by the same protocol, for the report's picture."""
        spec, tell, protocol = self.bench.open_meter().model.spec, label_teller(language), plain(asdict(evaluation.protocol))
        found = []
        for other, entry in board.entries().items():
            judged = entry.get("evaluation")
            if other != name and judged and judged["protocol"] == protocol:
                plan, cost = plan_from_json(entry["plan"]), judged["perplexity"]
                figures = (math.nan if value is None else value for value in (cost["ratio"], *cost["interval"]))
                found.append((tell(entry["label"] or plan.method), plan.depth, weigh(spec, plan)[0], *figures))
        return found

    def ablate(self, name: str, threshold: float, texts: Calibration, tokens: int) -> None:
        """Run one of the LaCo paper's ablations around the settings on Fold."""
        require_ablation(name)
        meter, judge = self.bench.open_meter(), self._judge_for(texts, tokens)
        settings = replace(self.bench.settings, T=threshold).checked(meter.model.spec.depth)

        def done(found: Ablation) -> None:
            shown = plain(ablation_to_json(found))
            rows = table("ablation", shown["rows"])
            self.bench.page.put("ablation", "data", json.dumps({**shown, "sheet": sheet(rows, list(rows))}))

        self.bench.submit("ablation", lambda: ablate(name, meter, judge, settings), done, urgent=True, yielding=True)

    def _judge_for(self, texts: Calibration, tokens: int) -> Judge:
        model = self.bench.open_meter().model
        wanted = (id(model), texts.fingerprint, tokens)
        if self._judge is None or wanted != self._judge_of:
            self._judge, self._judge_of = Judge(model, texts, limit=tokens), wanted
        return self._judge

    def act(self, what: str, name: str, **options: Any) -> None:
        """Do what a button below the board says for the plan of this name: show or remove it, or measure one of `measuring.ALSO`."""
        if what == "show":
            self.bench.show_found(self.board.plan(name))
        elif what == "remove":
            self.board.remove(name)
            self.shown()
            self.tell_map()
        else:
            model, plan = self.bench.open_meter().model, self.board.plan(name)
            self._measure(what, plan, "", [measurement(what, model, plan, options)])


def _takes(kind: str, plan: Plan) -> bool:
    """True where a plan can be repaired so."""
    try:
        require_repairable(plan, kind)
    except PlanError:
        return False
    return True


def _repair_facts(before: Evaluation, found: Plan, after: Evaluation, kind: str, practice: Calibration) -> dict[str, Any]:
    """Return what the page says of a repair: what it did on the text it was chosen on, and on the text that judges."""
    solved = sum(len(block.refits) + len(block.trim.refits if block.trim else ()) for block in found.blocks) if kind in WHOLE else 0
    return {
        "before": before.ratio,
        "after": after.ratio,
        "texts": before.protocol.texts,
        "seams": len(found.repairs),
        "solved": solved,  # projections, where the layers after seams were solved again
        "kind": kind,
        "tokens": before.protocol.tokens,
        "practice": practice.name,
        "practice_before": found.repairs[0].before if found.repairs else None,
        "practice_after": found.repairs[-1].after if found.repairs else None,
        "worse": bool(found.repairs or solved) and not after.ratio <= before.ratio,
    }
