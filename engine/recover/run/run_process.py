"""Continue a run in a separate process: its memory is freed at the end, the caller stays responsive, and a crash can be reported and
resumed."""

from typing import Any

from engine.errors import TrainingError
from engine.jobs import Job, in_fresh_process
from engine.recover.run.runs import Run


def apart(run: Run, module: str) -> Job[dict[str, Any]]:
    """Continue a run with a module that answers requests for a folder, and return its answer.

    Raises:
        LayerscopeError: the error it reports.
        TrainingError: the process died.
    """
    try:
        return dict((yield from in_fresh_process(module, {"folder": str(run.folder)}, "Starting")))
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1][:300]
        raise TrainingError(
            "the training process has ended unexpectedly ({why}); resume the run to continue from its last checkpoint", why=why
        ) from error
