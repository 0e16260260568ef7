"""Where a run stands, on disk: one safetensors file a checkpoint, written aside and renamed, so that a file that is there is whole."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from engine.errors import TrainingError

KEEP = 2
_NAME = "step-{:08d}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, str]) -> None:
    """Write tensors and what is said about them to a file, which is the old one or all of the new one, whenever the power goes.

    Raises:
        TrainingError: the disk is full, or the folder cannot be written to.
    """
    aside = path.with_name(f".{path.name}")
    try:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, aside, dict(about))
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise TrainingError(f"{path} cannot be written: {error}; what was there before is kept") from error


def about(path: Path) -> dict[str, str]:
    """Return what a file of tensors says about itself."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a checkpoint, and let those before the last KEEP go."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / _NAME.format(step), tensors, {"step": str(step)})
    for old in checkpoints(folder)[:-KEEP]:
        old.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, the latest last."""
    return sorted(folder.glob(_NAME.replace("{:08d}", "*")))


def latest(folder: Path) -> tuple[int, dict[str, torch.Tensor]] | None:
    """Return the steps that were done and what `Learner.state` returned, of the last checkpoint that can be read; None without one."""
    for path in reversed(checkpoints(folder)):
        try:
            return int(about(path)["step"]), load_file(path)
        except (OSError, SafetensorError, KeyError, ValueError):
            continue
    return None
