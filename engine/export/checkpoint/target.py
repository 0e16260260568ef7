"""Where an export is written: the target appears complete or not at all, and nothing is ever overwritten."""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.atomic import making
from engine.errors import ExportError, reason_of

ASIDE = ".layerscope-"  # name prefix of the folders in which exports are made


def require_free(target: Path) -> None:
    """Create the parent folders of a target.

    Raises:
        ExportError: the target exists, or nothing can be written there.
    """
    try:
        there = target.exists() or target.is_symlink()
        if "\0" in str(target):
            raise ValueError("null byte")
    except (OSError, ValueError) as error:
        raise ExportError("{target!r} cannot be a folder's name", target=str(target)[:200]) from error
    if there:
        raise ExportError("{target} exists already; choose another name, nothing is ever overwritten", target=target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError("{parent} cannot be created: {reason}", parent=target.parent, reason=error.strerror) from error
    if not os.access(target.parent, os.W_OK):
        raise ExportError("{folder} is not writable", folder=target.parent)


def require_disk(target: Path, total: int) -> None:
    """Raise ExportError if `total` bytes do not fit on the disk."""
    free = shutil.disk_usage(target.parent).free
    if total + (64 << 20) > free:
        raise ExportError(
            "the checkpoint needs {total:.2f} GB, but only {free:.2f} GB are free in {parent}",
            total=total / 1e9,
            free=free / 1e9,
            parent=target.parent,
        )


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yield a path next to `target` for a file or a folder. At the end it is renamed to `target`, unless it was `set_aside`; after an error
    nothing is left. Leftovers of killed exports are removed.

    Raises:
        ExportError: `target` has been created meanwhile, or the disk is full.
    """
    try:
        with making(target.parent, ASIDE) as temporary:
            yield temporary / target.name
            if (temporary / target.name).exists():
                require_free(target)
                os.rename(temporary / target.name, target)
    except OSError as error:
        raise ExportError(
            "{target} cannot be written: {reason}; the incomplete files were removed",
            target=target,
            reason=error.strerror or reason_of(error),
        ) from error


def set_aside(partial: Path, target: Path) -> Path:
    """Rename a failed export to NAME.failed, and return the new path."""
    names = (target.with_name(f"{target.stem}.failed{f'-{number}' if number else ''}{target.suffix}") for number in itertools.count())
    aside = next(name for name in names if not name.exists())
    os.rename(partial, aside)
    return aside
