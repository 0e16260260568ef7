"""How long something will take, told before it is begun: at the pace of the open model's last passes on this machine."""

import json
import math
from collections.abc import Callable
from typing import Any

from engine.cache import plain
from engine.jobs import Job, Progress
from engine.passes.forward import capture
from ui.page.bench.workbench import Workbench


def when_paced(bench: Workbench, component: str, told: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is told of times; nothing where the model has not run yet: then it is timed, and the component told."""
    meter = bench.open_meter()

    def job() -> Job[None]:
        yield Progress("Running the texts through the model")
        with meter.model.lock:
            capture(meter.model, meter.captures[0].pack)

    if math.isfinite(meter.model.pace):
        return told()
    bench.submit("pace", job, lambda _: bench.page.put(component, "value", json.dumps(plain(told()))), yielding=True)
    return {}
