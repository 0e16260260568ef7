"""A run in a process of its own: its memory comes back, whoever asked stays quick, and a crash is told and resumable."""

from typing import Any

from engine.errors import TrainingError
from engine.jobs import Job, in_fresh_process
from engine.recover.runs import Run


def apart(run: Run, module: str) -> Job[dict[str, Any]]:
    """Go on with a run by a module that answers requests for a folder, and return its answer.

    Raises:
        LayerscopeError: what it reports. TrainingError: it died.
    """
    try:
        return dict((yield from in_fresh_process(module, {"folder": str(run.folder)}, "Starting")))
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1][:300]
        raise TrainingError(f"the process that learned has died ({why}); resume it, and it goes on from its last checkpoint") from error
