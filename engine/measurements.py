"""Measurements of models on disk: JSON values by key and name, in one sqlite3 database of the cache folder, never pickle.

Several processes and threads read and write at the same time. A killed process leaves the database intact, and loses its last value at
worst. A database that is damaged, or that another program made, is set aside and a new one begins. No failure here stops a measurement.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import re
import secrets
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from engine.cache import SCHEMA, Key, cache_folder, spare
from engine.errors import LayerscopeError, reason_of

FILE = "measurements.sqlite"
_ASIDE = f"{FILE}.damaged-"
_PARTS = ("-shm", "-wal", "")  # file suffixes; the log is renamed before the database, so that a new database never finds an old log
_OURS = 0x4C594552  # the application_id of our databases
_WAIT = 5.0  # seconds to wait for other processes
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}  # our SQL is valid, so an error means a wrong schema
_CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE measurement (key TEXT, name TEXT, definition TEXT, value TEXT, mark TEXT, PRIMARY KEY (key, name)) WITHOUT ROWID;
PRAGMA application_id = {_OURS};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""
_OLD = (
    "acceptance-*",
    "evaluation",
    "*-costs",
    "perplexity",
    "profiles",
    "similarity",
    "weights",
)  # cache folders of versions before the database
_OLD_NAME = re.compile(r"[0-9a-f]{64}\.jsonl?")
log = logging.getLogger("layerscope")


class Measurements:
    """The measurements under one key, by name. Values that were read or added are kept in memory."""

    def __init__(self, key: Key) -> None:
        self._key, self._definition = key.digest, key.definition
        self._known: dict[str, Any] = {}
        self._rows: dict[str, tuple[bytes, bytes]] | None = None  # text and mark of rows that were read but not yet requested

    def get(self, name: str) -> Any | None:
        """Return the value stored under a name; None if it is missing or damaged."""
        if name not in self._known:
            if self._rows is None:
                self._rows = self._read("key = ?", self._key)  # reading all rows takes little longer than one
            found = self._rows.pop(name, None) or self._read("key = ? AND name = ?", self._key, name).get(name)  # perhaps added since
            if found is None or found[1] != self._mark(name, found[0]):
                return None
            self._known[name] = json.loads(found[0])
        return self._known[name]

    def _read(self, where: str, *values: str) -> dict[str, tuple[bytes, bytes]]:
        try:
            rows = _store.run(f"SELECT name, value, mark FROM measurement WHERE {where}", *values)
        except (sqlite3.Error, OSError):
            return {}
        return {name.decode(errors="replace"): (value, mark) for name, value, mark in rows if type(name) is type(value) is bytes}

    def add(self, name: str, value: Any) -> None:
        """Store a value, in memory and on disk."""
        self._known[name] = value
        spare(lambda: self._keep(name, json.dumps(value).encode()))

    def _keep(self, name: str, text: bytes) -> None:
        values = (self._key, name, self._definition, text.decode(), self._mark(name, text).decode())
        try:
            _store.run("INSERT OR REPLACE INTO measurement VALUES (?, ?, ?, ?, ?)", *values)
        except sqlite3.Error as error:
            raise LayerscopeError(
                "{path} cannot be written: {reason}; make room, or set LAYERSCOPE_CACHE to another folder",
                path=cache_folder() / FILE,
                reason=reason_of(error),
            ) from error

    def _mark(self, name: str, text: bytes) -> bytes:
        """Return a checksum of a row: sqlite3 does not detect all damage."""
        return hashlib.sha256(b"\n".join((self._key.encode(), name.encode(), text))).hexdigest()[:16].encode()


def obsolete_files() -> list[Path]:
    """Return the files in the cache that are no longer read: measurements of older versions, and databases set aside."""
    return sorted((*_old(), *cache_folder().glob(f"{_ASIDE}*")))


def _old() -> list[Path]:
    return [path for kind in _OLD for path in cache_folder().glob(f"{kind}/*") if _OLD_NAME.fullmatch(path.name)]


class _ForeignError(sqlite3.DatabaseError):
    """The database was made by another program or version."""


class _Store:
    """This process's connection to the database of the cache folder, opened on first use, and again if another file takes its place."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: dict[int, tuple[Path, tuple[int, int], sqlite3.Connection]] = {}  # by process: a fork must not use its parent's

    def run(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        """Run one statement, which is a transaction, and return its rows, text as bytes.

        Raises:
            sqlite3.Error, OSError: the database cannot be read or written.
        """
        with self._lock:
            try:
                return self._connection().execute(statement, values).fetchall()
            except sqlite3.Error as error:
                if not _damaged(error):
                    raise
                self._replace()
                return self._connection().execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if found := self._open.pop(os.getpid(), None):
                found[2].close()

    def _connection(self) -> sqlite3.Connection:
        path = cache_folder() / FILE
        found = self._open.get(os.getpid())
        if not found or found[:2] != (path, _identity(path)):
            self.close()
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path):
                connection = _opened(path)
                self._open[os.getpid()] = found = (path, _identity(path), connection)
        return found[2]

    def _replace(self) -> None:
        """Set the damaged database aside, if no other process did."""
        path, identity, _ = self._open[os.getpid()]
        self.close()
        with _locked(path):
            if _identity(path) == identity:
                _set_aside(path)


def _opened(path: Path) -> sqlite3.Connection:
    """Return a connection to the database at a path, which is created if needed; the caller holds its lock."""
    if any(os.path.lexists(f"{path}{part}") and not Path(f"{path}{part}").is_file() for part in _PARTS):
        _set_aside(path)  # a folder, a pipe or a device
    if not path.exists() and _old():
        log.warning(
            "layerscope: warning: measurements in %s by an older version are no longer read; layerscope doctor --clear removes them",
            path.parent,
        )
    try:
        return _connected(path)
    except sqlite3.Error as error:
        if not _damaged(error):
            raise
        _set_aside(path)
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = bytes  # damaged text may not be UTF-8
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last values, nothing else
        made_by = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if made_by == [0, 0] and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            connection.executescript(_CREATE)
        elif made_by != [_OURS, SCHEMA]:
            raise _ForeignError("made by another program or version")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_aside(path: Path) -> None:
    aside = path.with_name(_ASIDE + secrets.token_hex(4))
    for part in _PARTS:
        with suppress(FileNotFoundError):
            os.rename(f"{path}{part}", f"{aside}{part}")
    log.warning("layerscope: warning: %s is damaged or foreign; it is now %s, and a new database is created", path, aside.name)


def _damaged(error: sqlite3.Error) -> bool:
    return isinstance(error, _ForeignError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _identity(path: Path) -> tuple[int, int]:
    """Return a file's device and inode, which change if another file takes its place."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def _locked(path: Path) -> FileLock:
    """Return the lock that a process holds while it creates a database or sets one aside."""
    return FileLock(path.with_suffix(".lock"), timeout=_WAIT)


_store = _Store()
atexit.register(_store.close)
