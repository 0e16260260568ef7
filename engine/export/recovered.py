"""What a run has learned becomes a checkpoint: in the run's own folder, checked by a fresh process before it is one."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine.corpus.reading import name_of
from engine.errors import LayerscopeError, TrainingError
from engine.export.checkpoint import Check, ExportReport, companions_of, furnish, record_of, verify
from engine.jobs import Job, Progress, scaled
from engine.models.loading import fingerprint_of, resolve
from engine.models.sources import read_config
from engine.recover.recovery import recover
from engine.recover.run_process import apart
from engine.recover.runs import Run
from engine.training.parallel import first, size


@dataclass(frozen=True, slots=True)
class RecoveryReport(ExportReport):
    """What was checked of a recovered checkpoint, and what it went through: text, loss, tokens, seconds, the gaps before and after."""

    told: Mapping[str, Any]


def recovered(run: Run) -> Job[RecoveryReport | None]:
    """Learn in a process of its own until the run's budget is spent, and make the checkpoint of it; None where the run was paused. Of
    several processes that learn together the first makes it; for the others it is None.

    Raises:
        LayerscopeError: what went wrong, which the folder keeps; it can be resumed.
    """
    if not first():
        yield from _follow(run)
        return None
    if run.state == "done" and not run.probe.exists():
        raise TrainingError(f"{run.folder} is finished already; open it like any model")
    try:
        if not run.probe.exists() and (yield from scaled(_learn(run), 0.0, 0.95)) == "paused":
            return None
        return (yield from scaled(_finish(run), 0.95, 1.0))
    except LayerscopeError as error:
        if run.state != "running":  # somebody else's, whose folder this is no matter of
            run.failed(str(error))
        raise


def _learn(run: Run) -> Job[str]:
    """Learn in a process of its own, or as the first of several that were started for it; return "paused" or "learned"."""
    answer = yield from (apart(run, "engine.recover.recovery") if size() == 1 else recover({"folder": str(run.folder)}))
    return str(answer["state"])


def _follow(run: Run) -> Job[None]:
    """Learn with the first of several processes, which finishes what comes of it."""
    if not run.probe.exists():
        yield from recover({"folder": str(run.folder)})


def _finish(run: Run) -> Job[RecoveryReport]:
    """Check the weights in a fresh process, and make the folder theirs."""
    if "checks" not in run.record:
        checks = yield from _checked(run)
        run.note(checks=[asdict(check) for check in checks])  # so that moving may be cut off, and go on
    for path in sorted(run.weights.glob("*"), key=lambda path: path.name == "config.json"):  # with its config it is a model
        os.replace(path, run.folder / path.name)
    yield Progress("Tidying up", 0.99)
    run.note(text=[*map(name_of, run.record["text"])])  # the folder may go to others now
    run.tidy()
    files = tuple((path.name, path.stat().st_size) for path in sorted(run.folder.iterdir()) if path.is_file())
    record = run.record
    return RecoveryReport(str(run.folder), tuple(Check(**check) for check in record["checks"]), files, _told(record, run)["recovery"])


def _checked(run: Run) -> Job[tuple[Check, ...]]:
    """Put what goes with the weights beside them, and return what a fresh process finds of them."""
    record = run.record
    source, plan = run.source, run.plan()
    folder, spec = yield from resolve(source)
    config, about = read_config(run.weights), _told(record, run)
    kept = record_of(source, spec, plan, fingerprint_of(folder), folder, config.dtype, about)
    kept["lineage"].append({"step": "recovery", **about["recovery"]})
    notes = furnish(run.weights, source, folder, spec, plan, companions_of(folder), kept, config)
    checks = yield from verify(folder, plan, run.weights, source.trust_remote_code, probe=run.probe)
    return (*checks, *notes)


def _told(record: dict[str, Any], run: Run) -> dict[str, Any]:
    """Return what a checkpoint says of how it learned."""
    lines = [line for line in run.lines() if "loss" in line]
    own = {"text": [*map(name_of, record["text"])], "train": record["train"], "loss": record["loss"], "best": record["best"]}
    spent = {"tokens": lines[-1]["tokens"] if lines else 0, "seconds": round(sum(line["seconds"] for line in lines), 1)}
    own |= {name: record[name] for name in ("missing", "correction") if name in record}
    return {"recovery": {**own, **spent, "recipe": record["recipe"], "before": record["before"], "after": record["after"]}}
