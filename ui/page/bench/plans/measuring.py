"""Measurements of a plan. Each is a job that returns the fields of its row on the board."""

from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import LayerscopeError
from engine.jobs import Job
from engine.judge.evaluation import Judge
from engine.judge.generation import PROMPTS, generate_beside, verdict
from engine.judge.memory import memory_of
from engine.judge.speed import measure_speed
from engine.judge.tasks import run_tasks
from engine.records import to_json
from engine.types import Model, Plan

Measurement = Callable[[], Job[dict[str, Any]]]


def cost(judge: Judge, plan: Plan) -> Measurement:
    """Return the measurement of the plan's cost on the judge's texts."""

    def job() -> Job[dict[str, Any]]:
        return {"evaluation": to_json((yield from judge.judge(plan)))}

    return job


def _samples(model: Model, plan: Plan) -> Measurement:
    def job() -> Job[dict[str, Any]]:
        samples = yield from generate_beside(model, plan, PROMPTS)
        return {"samples": [to_json(sample) for sample in samples], "verdict": verdict(samples)}

    return job


def _speed(model: Model, plan: Plan, **cache: int) -> Measurement:
    memory = to_json(memory_of(model, plan, **cache))  # before the job, because it may raise

    def job() -> Job[dict[str, Any]]:
        return {"speed": to_json((yield from measure_speed(model, plan))), "memory": memory}

    return job


def _tasks(model: Model, plan: Plan, **which: Any) -> Measurement:
    def job() -> Job[dict[str, Any]]:
        return {"tasks": [to_json(score) for score in (yield from run_tasks(model, plan, **which))]}

    return job


# Optional measurements, by the board field they give. "samples": source and plan continue the same prompts; "speed": speed and memory;
# "tasks": task scores.
ALSO: dict[str, tuple[Callable[..., Measurement], tuple[str, ...]]] = {
    "samples": (_samples, ()),
    "speed": (_speed, ("context", "batch")),
    "tasks": (_tasks, ("names", "limit")),
}


def measurement(what: str, model: Model, plan: Plan, options: Mapping[str, Any]) -> Measurement:
    """Return one of ALSO for a plan. It takes the options that it knows; None keeps the engine's default.

    Raises:
        LayerscopeError: there is no such measurement, or an option is invalid.
    """
    if what not in ALSO:
        raise LayerscopeError("unknown measurement '{what}'", what=what)
    make, known = ALSO[what]
    return make(model, plan, **{name: options[name] for name in known if options.get(name) is not None})
