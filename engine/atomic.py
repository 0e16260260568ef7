"""Temporary folders and files for atomic writes. They are removed at the end, or by the next process if their owner was killed.

The owner locks such a folder; the system releases the lock however the process dies.
"""

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
_YOUNG = 60.0  # seconds for which a folder may have no lock yet: it is created before it is locked


@contextmanager
def making(parent: Path, prefix: str) -> Iterator[Path]:
    """Create a temporary folder in `parent`, which must exist; folders with this prefix left by killed processes are removed."""
    sweep(parent, prefix)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    try:
        with FileLock(folder / _LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to a file. At the end it replaces the file; after an error the old file is still there."""
    temporary = path.with_name(f".{path.name[:40]}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(parent: Path, prefix: str) -> list[Path]:
    """Remove the folders of a prefix that no process has locked; return them."""
    gone = abandoned(parent, prefix)
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    return gone


def abandoned(parent: Path, prefix: str) -> list[Path]:
    """Return the folders of a prefix that no process has locked."""
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
