"""A run's lines, told to a tracker as well: the same numbers as in metrics.jsonl, a step each. Trackers are imported when they are used."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from engine.errors import SettingsError, reason_of
from engine.recover.runs import Run
from engine.settings import Registry

Numbers = Mapping[str, float]
Opened = tuple[Callable[[Numbers, int], object], Callable[[], object]]  # what takes the numbers of a step, and what ends it
TRACKERS: Registry[Callable[[Run], Opened]] = Registry("tracker")
_PROJECT = "layerscope"


def require_tracker(name: str) -> None:
    """Raise SettingsError unless there is such a tracker, and it is installed."""
    TRACKERS.require(name)
    if importlib.util.find_spec(name) is None:
        raise SettingsError(f"--track {name} needs {name}, which is not installed; pip install {name}")


@contextmanager
def tracked(run: Run) -> Iterator[None]:
    """Tell a run's lines to the tracker that was asked for, if any. One that fails is told in run.json and no more; the run goes on."""
    name = run.record["track"]
    if name == "none":
        yield
        return
    end: Callable[[], object] = str
    try:
        tell, end = TRACKERS.require(name).run(run)
    except Exception as error:  # a tracker is a program of somebody else's
        run.note(track_error=reason_of(error))
    else:
        run.also = _guarded(run, tell)
    try:
        yield
    finally:
        run.also = None
        with suppress(Exception):
            end()


def _guarded(run: Run, tell: Callable[[Numbers, int], object]) -> Callable[[Mapping[str, Any]], None]:
    def guarded(line: Mapping[str, Any]) -> None:
        try:
            tell(numbers_in(line), int(line["step"]))
        except Exception as error:  # as above
            run.also = None
            run.note(track_error=reason_of(error))

    return guarded


def numbers_in(line: Mapping[str, Any], under: str = "") -> dict[str, float]:
    """Return the numbers of a line, those within others by both names: kind/ratio."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found |= numbers_in(value, f"{name}/")
        elif isinstance(value, int | float) and f"{under}{name}" != "step":
            found[f"{under}{name}"] = float(value)
    return found


def _asked(run: Run) -> dict[str, Any]:
    record = run.record
    return {name: record[name] for name in ("name", "text", "train", "loss", "budget", "asked", "recipe") if name in record}


@TRACKERS.register("trackio", "trackio's own database on this machine")
def _trackio(run: Run) -> Opened:
    import trackio

    trackio.init(project=_PROJECT, name=run.folder.name, config=_asked(run), resume="allow", embed=False)
    return lambda numbers, step: trackio.log(dict(numbers), step=step), trackio.finish


@TRACKERS.register("tensorboard", "the folder tensorboard in the run's own")
def _tensorboard(run: Run) -> Opened:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.folder / "tensorboard"))

    def tell(numbers: Numbers, step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return tell, writer.close


@TRACKERS.register("wandb", "Weights & Biases; WANDB_MODE=offline keeps it on this machine")
def _wandb(run: Run) -> Opened:
    import wandb

    opened = wandb.init(project=_PROJECT, name=run.folder.name, dir=str(run.folder), config=_asked(run))
    return lambda numbers, step: opened.log(dict(numbers), step=step), opened.finish
