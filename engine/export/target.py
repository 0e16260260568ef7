"""Where an export may be written, and how it appears there: whole or not at all, and never over anything."""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.atomic import making
from engine.errors import ExportError, reason_of

ASIDE = ".layerscope-"  # how the folders begin that exports are made in


def require_free(target: Path) -> None:
    """Make the folders above a target, and raise ExportError where something is there already or nothing can be written."""
    try:
        there = target.exists() or target.is_symlink()
        if "\0" in str(target):
            raise ValueError("null byte")
    except (OSError, ValueError) as error:
        raise ExportError(f"{str(target)[:200]!r} cannot be a folder's name") from error
    if there:
        raise ExportError(f"{target} exists already; choose another name, nothing is ever overwritten")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{target.parent} cannot be made: {error.strerror}") from error
    if not os.access(target.parent, os.W_OK):
        raise ExportError(f"{target.parent} cannot be written to")


def require_disk(target: Path, total: int) -> None:
    """Raise ExportError where `total` bytes do not fit."""
    free = shutil.disk_usage(target.parent).free
    if total + (64 << 20) > free:
        raise ExportError(f"the checkpoint needs {total / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free in {target.parent}")


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to make a file or a folder at. It becomes `target` in the end, unless it was `set_aside`; after an
    error nothing is left, and what killed exports have left there is removed.

    Raises:
        ExportError: something has come to be at `target` meanwhile, or the disk is full.
    """
    try:
        with making(target.parent, ASIDE) as beside:
            yield beside / target.name
            if (beside / target.name).exists():
                require_free(target)
                os.rename(beside / target.name, target)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror or reason_of(error)}; nothing is left of it") from error


def set_aside(partial: Path, target: Path) -> Path:
    """Give what failed its checks a name that says so, and return it."""
    names = (target.with_name(f"{target.stem}.failed{f'-{number}' if number else ''}{target.suffix}") for number in itertools.count())
    aside = next(name for name in names if not name.exists())
    os.rename(partial, aside)
    return aside
