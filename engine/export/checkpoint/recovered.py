"""Turn a recovery run's weights into a checkpoint in the run's own folder, after checks in a fresh process."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.corpus.reading import name_of
from engine.errors import LayerscopeError, TrainingError
from engine.export.checkpoint.export import ExportReport, add_companion_files, companions_of, layerscope_record, verify
from engine.jobs import Job, Progress, scaled
from engine.messages import Message
from engine.models.inspection import read_config
from engine.models.loading import fingerprint_of, resolve
from engine.recover.run.records import run_to_json
from engine.recover.run.recovery import recover
from engine.recover.run.run_process import apart
from engine.recover.run.runs import Run
from engine.training.parallel import first, size
from engine.types import Check


@dataclass(frozen=True, slots=True)
class RecoveryReport(ExportReport):
    """A recovered checkpoint's checks and training record: text, loss, tokens, seconds, and the gaps before and after."""

    summary: Mapping[str, Any]


def recovered(run: Run) -> Job[RecoveryReport | None]:
    """Train in a separate process until the run's budget is spent, then make the checkpoint; return None if the run was paused.

    If several processes train together, the first makes the checkpoint; the others return None.

    Raises:
        LayerscopeError: the run failed; the error is stored in its folder, and it can be resumed.
    """
    if not first():
        yield from _follow(run)
        return None
    if run.state == "done" and not run.probe.exists():
        raise TrainingError("{folder} is already finished; open it like any model", folder=run.folder)
    try:
        if not run.probe.exists() and (yield from scaled(_learn(run), 0.0, 0.95)) == "paused":
            return None
        return (yield from scaled(_finish(run), 0.95, 1.0))
    except LayerscopeError as error:
        if run.state != "running":  # a running run belongs to another process, so its folder is not touched
            run.failed(error.message)
        raise


def _learn(run: Run) -> Job[str]:
    """Train in a separate process, or as the first of several started together; return "paused" or "learned"."""
    answer = yield from (apart(run, "engine.recover.run.recovery") if size() == 1 else recover({"folder": str(run.folder)}))
    return str(answer["state"])


def _follow(run: Run) -> Job[None]:
    """Train along with the first of several processes, which makes the checkpoint."""
    if not run.probe.exists():
        yield from recover({"folder": str(run.folder)})


def _finish(run: Run) -> Job[RecoveryReport]:
    """Check the weights in a fresh process, and move them to the run's folder."""
    if run.record.checks is None:
        checks = yield from _checked(run)
        run.note(checks=checks)  # so that an interrupted move can be resumed
    # config.json last: with it the folder is a model
    for path in sorted(run.weights.glob("*"), key=lambda path: path.name == "config.json"):
        os.replace(path, run.folder / path.name)
    yield Progress(Message("Cleaning up"), 0.99)
    run.note(text=tuple(map(name_of, run.record.text)))  # the folder may be shared from now on
    run.tidy()
    files = tuple((path.name, path.stat().st_size) for path in sorted(run.folder.iterdir()) if path.is_file())
    return RecoveryReport(str(run.folder), run.record.checks or (), files, _told(run)["recovery"])


def _checked(run: Run) -> Job[tuple[Check, ...]]:
    """Add the companion files to the weights, and return the checks of a fresh process."""
    source, plan = run.source, run.plan()
    folder, spec = yield from resolve(source)
    config, about = read_config(run.weights), _told(run)
    kept = layerscope_record(source, spec, plan, fingerprint_of(folder), folder, config.dtype, about)
    kept["lineage"].append({"step": "recovery", **about["recovery"]})
    notes = add_companion_files(run.weights, source, folder, spec, plan, companions_of(folder), kept, config)
    checks = yield from verify(folder, plan, run.weights, source.trust_remote_code, probe=run.probe)
    return (*checks, *notes)


def _told(run: Run) -> dict[str, Any]:
    """Return a checkpoint's record of its training."""
    record = run_to_json(run.record)
    lines = [line for line in run.lines() if "loss" in line]
    own = {"text": [*map(name_of, record["text"])], "train": record["train"], "loss": record["loss"], "best": record["best"]}
    spent = {"tokens": lines[-1]["tokens"] if lines else 0, "seconds": round(sum(line["seconds"] for line in lines), 1)}
    own |= {name: record[name] for name in ("missing", "correction") if name in record}
    return {"recovery": {**own, **spent, "recipe": record["recipe"], "before": record["before"], "after": record["after"]}}
