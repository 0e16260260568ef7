"""Repairs on Recover: repair the plan shown without training, estimate how long that takes, and undo it."""

import json
from typing import Any

from engine.cache import plain
from engine.errors import PlanError
from engine.jobs import Job, scaled
from engine.judge.cost import practice_texts
from engine.judge.evaluation import Evaluation
from engine.judge.objectives import Objective
from engine.messages import Message
from engine.records import to_json
from engine.recover.repair.runtime_estimate import judging
from engine.recover.repair.seam_maps import REPAIRS, WHOLE, repair, require_repairable, seconds_for, work_of
from engine.types import Plan, TextSet
from ui.page.bench.plans.comparison import Comparison
from ui.page.bench.runtime_estimate import when_paced
from ui.page.bench.workbench import Workbench


class Repairing:
    """Repairs the plans of one workbench, judges the repaired plans and pins them to the board."""

    def __init__(self, bench: Workbench, comparison: Comparison) -> None:
        self.bench, self.comparison = bench, comparison
        self._repaired: tuple[str, Plan, Plan] | None = None  # the last repair: the plan choice, its plan, and the repaired plan
        bench.when_opened(self._forget)
        bench.when_shown(self._shown)

    def repair(self, choice: str, threshold: float, kind: str, texts: TextSet, judged: int, **settings: Any) -> None:
        """Repair the plan shown on Fold without training, judge it before and after, and show the repaired plan.

        Raises:
            PlanError: there is no such plan, or it cannot be repaired this way.
        """
        asked = REPAIRS.require(kind).asked(settings)
        plan, _ = self.bench.chosen(choice, threshold)
        model = self.bench.open_meter().model
        require_repairable(model, plan, kind)
        label = self.bench.label_of(choice, plan)
        judge, board = self.comparison.judge_for(texts, judged), self.comparison.board
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
            board.pin(plan, label, evaluation=to_json(before))
            board.pin(found, Message("{label}, repaired ({kind})", label=label, kind=kind), evaluation=to_json(after))
            self.comparison.shown()
            self._repaired = (choice, plan, found)
            self.bench.show_found(found)
            self.bench.page.put("repaired", "value", json.dumps(plain(_repair_facts(before, found, after, kind, practice))))

        self.bench.submit("repair", job, done, urgent=True)

    def times(self, choice: str, threshold: float, judged: int, **settings: Any) -> dict[str, Any]:
        """Return the estimated seconds of each kind of repair, judging included, and the number of practice tokens.

        Returns nothing before the model's first pass: the model is then timed, and the page gets the estimate later.

        Raises:
            PlanError: there is no such plan yet.
        """
        plan, _ = self.bench.chosen(choice, threshold)
        meter, practice = self.bench.open_meter(), practice_texts(self.bench.texts.name)
        refused = self.refused(choice, threshold)
        kinds = [kind for kind in REPAIRS if kind not in refused]
        used = {kind: Objective(meter.model, practice, "kl", REPAIRS[kind].asked(settings).tokens).tokens for kind in kinds}

        def facts() -> dict[str, Any]:
            seconds = {kind: seconds_for(meter.model, plan, kind, used[kind], judged) for kind in kinds}
            return {"tokens": max(used.values(), default=0), "seconds": seconds}

        return when_paced(self.bench, "repair-times", facts)

    def refused(self, choice: str, threshold: float) -> dict[str, str]:
        """Return the kinds of repair that the plan shown on Fold forbids, each with its reason.

        Raises:
            PlanError: there is no such plan yet.
        """
        plan, model, found = self.bench.chosen(choice, threshold)[0], self.bench.open_meter().model, dict[str, str]()
        for kind in REPAIRS:
            try:
                require_repairable(model, plan, kind)
            except PlanError as reason:
                found[kind] = reason.message
        return found

    def undo(self) -> None:
        """Show the plan before the last repair.

        Raises:
            PlanError: nothing was repaired.
        """
        if self._repaired is None:
            raise PlanError("there is no repair to undo")
        choice, plan, _ = self._repaired
        self._forget()
        if choice == "found":
            self.bench.show_found(plan)
        else:
            self.bench.page.move("plan", choice)

    def _shown(self, *_plans: Plan) -> None:
        """Drop the undo step once another plan than the repaired one is shown as found."""
        if self._repaired is not None and self.bench.found is not self._repaired[2]:
            self._forget()

    def _forget(self) -> None:
        self._repaired = None
        self.bench.page.put("repaired", "value", "{}")


def _repair_facts(before: Evaluation, found: Plan, after: Evaluation, kind: str, practice: TextSet) -> dict[str, Any]:
    """Return what the page shows of a repair: cost before and after, on the practice texts and on the evaluation texts."""
    solved = sum(len(block.refits) + len(block.trim.refits if block.trim else ()) for block in found.blocks) if kind in WHOLE else 0
    return {
        "before": before.perplexity.ratio,
        "after": after.perplexity.ratio,
        "texts": before.protocol.texts,
        "seams": len(found.repairs),
        "solved": solved,  # projections solved again in the layers after seams
        "kind": kind,
        "tokens": before.protocol.tokens,
        "practice": practice.name,
        "practice_before": found.repairs[0].before if found.repairs else None,
        "practice_after": found.repairs[-1].after if found.repairs else None,
        "worse": bool(found.repairs or solved) and not after.perplexity.ratio <= before.perplexity.ratio,
    }
