"""Places to make something at, aside from where it will be: gone in the end, or removed by who comes next where the maker was killed.

The maker holds a lock on such a folder, which the system lets go of when a process dies, however it dies."""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_LOCK = ".lock"
_YOUNG = 60.0  # seconds in which a folder may be without its lock: it is made before it is locked


@contextmanager
def making(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a new folder in `parent`, which is there; those of this prefix that others left when they were killed are removed."""
    sweep(parent, prefix)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    try:
        with FileLock(folder / _LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside a file to write at. It takes the file's place in the end; after an error what was there before still is."""
    beside = path.with_name(f".{path.name[:40]}-{secrets.token_hex(4)}.tmp")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def sweep(parent: Path, prefix: str) -> list[Path]:
    """Remove the folders of a prefix that nobody holds any more; return them."""
    gone = abandoned(parent, prefix)
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    return gone


def abandoned(parent: Path, prefix: str) -> list[Path]:
    """Return the folders of a prefix that nobody holds any more."""
    return [folder for folder in sorted(parent.glob(f"{prefix}*")) if folder.is_dir() and not folder.is_symlink() and not _held(folder)]


def _held(folder: Path) -> bool:
    with suppress(OSError):
        if not (folder / _LOCK).exists():
            return time.time() - folder.stat().st_mtime < _YOUNG
        try:
            with FileLock(folder / _LOCK, timeout=0):
                return False
        except Timeout:
            return True
    return True
