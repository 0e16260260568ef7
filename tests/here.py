"""Run in this process what normally runs in a subprocess: the same code, without the seconds that a process takes to start."""

import json
from typing import Any

from engine.export.checkpoint import verify
from engine.jobs import Job
from engine.models import merge
from engine.models.gguf import convert
from engine.recover.run import recovery
from engine.recover.shear import shearing

TASKS = {
    "engine.export.checkpoint.verify": verify.check,
    "engine.models.gguf.convert": convert.convert,
    "engine.models.merge": merge.merge,
    "engine.recover.run.recovery": recovery.recover,
    "engine.recover.shear.shearing": shearing.answer,
}


def here(module: str, request: dict[str, Any], _: str) -> Job[dict[str, Any]]:
    """Do what `engine.jobs.in_fresh_process` would, on what the request is once it was written down and read."""
    return (yield from TASKS[module](json.loads(json.dumps(request))))
