"""Send a run's metrics to a tracker too: the same numbers as in metrics.jsonl, by step. Trackers are imported only when used."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from engine.errors import SettingsError, reason_of
from engine.recover.run.records import run_to_json
from engine.recover.run.runs import Run
from engine.settings import Registry

Numbers = Mapping[str, float]
# a function that logs the numbers of a step, and one that ends the tracking
Opened = tuple[Callable[[Numbers, int], object], Callable[[], object]]
TRACKERS: Registry[Callable[[Run], Opened]] = Registry("tracker")
_PROJECT = "layerscope"


def require_tracker(name: str) -> None:
    """Raise SettingsError unless the tracker exists and is installed."""
    TRACKERS.require(name)
    if importlib.util.find_spec(name) is None:
        raise SettingsError("--track {name} needs the package {name}, which is not installed; run: pip install {name}", name=name)


@contextmanager
def tracked(run: Run) -> Iterator[None]:
    """Send a run's metrics to the requested tracker, if any. If it fails, the error is recorded in run.json and the run continues without
    it."""
    name = run.record.track
    if name == "none":
        yield
        return
    end: Callable[[], object] = str
    try:
        report, end = TRACKERS.require(name).run(run)
    except Exception as error:  # trackers may raise anything
        run.note(track_error=reason_of(error))
    else:
        run.also = _guarded(run, report)
    try:
        yield
    finally:
        run.also = None
        with suppress(Exception):
            end()


def _guarded(run: Run, report: Callable[[Numbers, int], object]) -> Callable[[Mapping[str, Any]], None]:
    def guarded(line: Mapping[str, Any]) -> None:
        try:
            report(numbers_in(line), int(line["step"]))
        except Exception as error:  # trackers may raise anything
            run.also = None
            run.note(track_error=reason_of(error))

    return guarded


def numbers_in(line: Mapping[str, Any], under: str = "") -> dict[str, float]:
    """Return the numbers in a line; nested ones are named by both keys: kind/ratio."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found |= numbers_in(value, f"{name}/")
        elif isinstance(value, int | float) and f"{under}{name}" != "step":
            found[f"{under}{name}"] = float(value)
    return found


def _asked(run: Run) -> dict[str, Any]:
    record = run_to_json(run.record)
    return {name: record[name] for name in ("name", "text", "train", "loss", "budget", "asked", "recipe") if name in record}


@TRACKERS.register("trackio", "the trackio database on this machine")
def _trackio(run: Run) -> Opened:
    import trackio

    trackio.init(project=_PROJECT, name=run.folder.name, config=_asked(run), resume="allow", embed=False)
    return lambda numbers, step: trackio.log(dict(numbers), step=step), trackio.finish


@TRACKERS.register("tensorboard", "the folder tensorboard inside the run's folder")
def _tensorboard(run: Run) -> Opened:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.folder / "tensorboard"))

    def log(numbers: Numbers, step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return log, writer.close


@TRACKERS.register("wandb", "Weights & Biases; WANDB_MODE=offline keeps the data on this machine")
def _wandb(run: Run) -> Opened:
    import wandb

    opened = wandb.init(project=_PROJECT, name=run.folder.name, dir=str(run.folder), config=_asked(run))
    return lambda numbers, step: opened.log(dict(numbers), step=step), opened.finish
