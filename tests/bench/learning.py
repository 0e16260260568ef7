"""What recovery brings the demo, pruned to 24 layers by block influence: losses at equal tokens and in equal minutes (two seeds each),
and the cost of a step relative to one of the student alone. Half of the text is the source's own, half Python's manual, which every
Python has. Ratios are perplexity as a multiple of the source's on held-out text: of the training kind / the bundled evaluation text."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pydoc_data import topics
from typing import Any

from engine.corpus.domains import RowReader
from engine.jobs import drain
from engine.judge.objectives import Objective
from engine.methods.depth.shortgpt import least_influence
from engine.models.texts import bundled
from engine.recover.distill.student import student_of, trained
from engine.recover.run.recovery import _opened, recover
from engine.recover.run.runs import Run
from engine.recover.run.settings import RecoverySettings
from engine.recover.run.start import begin
from engine.recover.run.training_context import TrainingContext
from engine.settings import NoSettings
from engine.training.loop import Learner
from engine.training.precision import casting, quickest
from engine.types import Model, Plan

Row = Callable[[str, str, str, bool], None]
SEEDS = (0, 1)
TOKENS, BAR_TOKENS = 12_000, 30_000
HELD, OTHER = 1.40, 1.97  # bars after BAR_TOKENS


def learning(model: Model, row: Row, folder: Path) -> None:
    """Measure it all; about forty minutes on two cores."""
    folder.mkdir(parents=True, exist_ok=True)
    manual = folder / "manual.jsonl"
    manual.write_text("".join(json.dumps({"text": text}) + "\n" for _, text in sorted(topics.topics.items())), encoding="utf-8")
    plan = drain(least_influence(Objective(model, bundled("english", "practice")), 24, NoSettings()))

    def run(name: str, **asked: Any) -> Run:
        settings = RecoverySettings(**{"tokens": TOKENS, "rows": 2, **asked})
        begun = begin(model.source, model.spec, plan, ["self", str(manual)], settings, folder / f"{name}-{settings.seed}")
        drain(recover({"folder": str(begun.folder)}))
        return begun

    def after(runs: list[Run]) -> dict[str, list[float]]:
        return {kind: [run.record.after[kind].ratio for run in runs] for kind in ("kind", "other")}

    def compared(what: str, one: list[Run], other: list[Run]) -> None:
        ours, theirs = after(one), after(other)
        shares = {kind: statistics.mean(ours[kind]) / statistics.mean(theirs[kind]) for kind in ours}
        print(f"     {what}: {_told(ours)} / {_told(theirs)}")
        row(f"perplexity, {what}: text of the kind, other text", " ".join(f"{share:.3f}" for share in shares.values()), "report", True)

    steps(model, plan, run("measured", measure=True), row)
    long = [run("long", tokens=BAR_TOKENS, seed=seed) for seed in SEEDS]
    found = after(long)
    for kind, bar in (("kind", HELD), ("other", OTHER)):
        row(f"{BAR_TOKENS} tokens, 24 layers by block influence, {kind}", _told({kind: found[kind]}), f"<= {bar}", max(found[kind]) <= bar)
    whole = [run("kl", seed=seed) for seed in SEEDS]
    compared(f"kl / ce, {TOKENS} tokens", whole, [run("ce", loss="ce", seed=seed) for seed in SEEDS])
    minutes = statistics.mean(sum(line["seconds"] for line in one.lines() if "loss" in line) for one in whole) / 60
    for train in ("lora", "seams"):
        compared(
            f"{train} / all, {minutes:.1f} minutes",
            [run(train, train=train, tokens=None, minutes=minutes, seed=seed) for seed in SEEDS],
            whole,
        )


def steps(model: Model, plan: Plan, run: Run, row: Row) -> None:
    """Measure a step with its teacher beside the way forth and back of the student alone, by cross entropy."""
    opened, recipe = drain(_opened(run)), run.record.recipe
    student = student_of(model, plan)
    school = TrainingContext(run, opened.model, plan, RowReader(opened.rows, 0), student, trained(student, plan, "all"), opened.held)
    learner = Learner(school.parameters, replace(recipe, rate=0.0))
    batch = opened.rows.batch(0, recipe.rows, 0)

    def alone(autocast: str) -> None:
        with casting("cpu", autocast):
            loss = student(input_ids=batch.ids, position_ids=batch.positions, labels=batch.ids, use_cache=False).loss
        loss.backward()

    teaching, (autocast, _) = school.teaching(recipe), quickest(alone, "cpu")

    def timed(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    pairs = [(timed(lambda: learner.learn(school.losses(teaching, recipe, 0))), timed(lambda: alone(autocast))) for _ in range(7)][1:]
    share = statistics.median([step / forth for step, forth in pairs])
    row("a step with its teacher / forth and back of the student alone", f"{share:.2f}", "<= 1.5", share <= 1.5)


def _told(found: dict[str, list[float]]) -> str:
    return ", ".join(" ".join(f"{ratio:.3f}" for ratio in ratios) for ratios in found.values())
