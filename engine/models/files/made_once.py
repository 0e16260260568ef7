"""Folders in the cache that are made once, by whichever process comes first."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.atomic import making
from engine.errors import SourceError
from engine.jobs import Job


def made_once(target: Path, make: Callable[[Path], Job[None]]) -> Job[dict[str, Any]]:
    """Make a folder with `make`, which is given a temporary path, unless it is there already; return the answer of a conversion.

    Raises:
        SourceError: the cache has no room for the result.
    """
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock"):  # one at a time, to save memory; the second caller may find the folder already there
            if not target.exists():
                with making(target.parent, ".partial-") as temporary:
                    yield from make(temporary / target.name)
                    os.rename(temporary / target.name, target)
    except OSError as error:
        raise SourceError(
            "{path} cannot be written: {reason}; make room, or set LAYERSCOPE_CACHE to another folder",
            path=target.parent,
            reason=error.strerror,
        ) from error
    return {"folder": str(target)}
