"""A run's checkpoints: one safetensors file each, written to a temporary name and renamed, so that an existing file is complete; several
processes write a folder of such files."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from engine.cache import content_key
from engine.errors import TrainingError, reason_of
from engine.training import parallel
from engine.untrusted import ForeignError, require_regular

KEEP = 2
_NAME = "step-{:08d}"
_MARK = "layerscope"  # metadata key of the checksum over the other metadata, tensor names and shapes


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, str]) -> None:
    """Write tensors and metadata to a file atomically: even after a power failure it is the old file or the complete new one.

    Raises:
        TrainingError: the disk is full, or the folder cannot be written to.
    """
    aside, found = path.with_name(f".{path.name}"), {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    mark = _mark(about, {name: list(tensor.shape) for name, tensor in found.items()})
    try:
        save_file(found, aside, {**about, _MARK: mark})
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise TrainingError("{file} cannot be written: {reason}; the previous file is kept", file=path, reason=error) from error


def about(path: Path) -> dict[str, str]:
    """Return the metadata of a file written by `write_tensors`.

    Raises:
        TrainingError: the file is missing or broken.
    """
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            found = dict(file.metadata() or {})
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - it is no mapping
        if found.pop(_MARK, "") != _mark(found, shapes):
            raise ForeignError("its content has changed since it was written")
    except (OSError, SafetensorError, ForeignError) as error:
        raise TrainingError(
            "{path} cannot be read: {reason}; delete it, and the run continues without it", path=path, reason=reason_of(error)
        ) from error
    return found


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file written by `write_tensors`.

    Raises:
        TrainingError: the file is missing or broken.
    """
    about(path)
    return load_file(path)


def _mark(about: Mapping[str, str], shapes: Mapping[str, list[int]]) -> str:
    return content_key(dict(about), dict(shapes))


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a checkpoint, and remove all but the last KEEP."""
    folder.mkdir(parents=True, exist_ok=True)
    if parallel.first():
        _remove(folder.glob(".step-*"))  # leftovers of a killed process
    parallel.wait()
    name = _NAME.format(step)
    if parallel.size() > 1:
        parallel.write_shards(folder / name, tensors)
    else:
        write_tensors(folder / f"{name}.safetensors", tensors, {"step": str(step)})
    if parallel.first():
        _remove(checkpoints(folder)[:-KEEP])


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, the latest last."""
    return sorted(folder.glob("step-*"))


def latest(folder: Path, state: Callable[[], dict[str, torch.Tensor]] = dict) -> tuple[int, dict[str, torch.Tensor]] | None:
    """Return the number of steps done and the `Learner.state` of the last readable checkpoint; None without one. A checkpoint of several
    processes is read into the tensors that `state` returns."""
    for path in reversed(parallel.agreed(checkpoints(folder))):
        try:
            if path.is_dir():
                return int(path.name.partition("-")[2]), parallel.read_shards(path, state())
            return int(about(path)["step"]), read_tensors(path)
        except (OSError, TrainingError, KeyError, ValueError):
            continue
    return None
