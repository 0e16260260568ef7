"""Runtime estimates before a job starts, from the pace of the open model's last passes on this machine."""

import json
import math
from collections.abc import Callable
from typing import Any

from engine.cache import plain
from engine.jobs import Job, Progress
from engine.messages import Message
from engine.passes.forward import capture
from ui.page.bench.workbench import Workbench


def when_paced(bench: Workbench, component: str, facts: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the estimates that `told` gives. Before the model's first pass it returns nothing: a job times the model, then sets the
    component's value."""
    meter = bench.open_meter()

    def job() -> Job[None]:
        yield Progress(Message("Running the texts through the model"))
        with meter.model.lock:
            capture(meter.model, meter.captures[0].pack)

    if math.isfinite(meter.model.pace):
        return facts()
    bench.submit("pace", job, lambda _: bench.page.put(component, "value", json.dumps(plain(facts()))), yielding=True)
    return {}
