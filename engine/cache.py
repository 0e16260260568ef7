"""Content-addressed results on disk. JSON only, never pickle; a result appears whole or not at all.

What was measured of a model lies under a `Key`, which says everything that the numbers depend on. A formula that is corrected gets
another version, and with it another key: an old number is never returned for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from engine.atomic import replacing
from engine.errors import LayerscopeError

if TYPE_CHECKING:
    from engine.types import Model

SCHEMA = 1  # of what the cache holds: how keys are made, and how values are written
log = logging.getLogger("layerscope")
_said = False  # that the cache cannot be written


def cache_folder() -> Path:
    """Return the folder of all cached results: $LAYERSCOPE_CACHE, or what platformdirs says."""
    return Path(os.environ.get("LAYERSCOPE_CACHE") or platformdirs.user_cache_dir("layerscope"))


def content_key(*parts: Any) -> str:
    """Return the SHA-256 of JSON-able parts, in a canonical form."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Definition:
    """What is measured: its name, and the version of its formula, which rises whenever the formula would give another number.

    `uses` are the definitions that its numbers come from.
    """

    name: str
    version: int = 1
    uses: tuple[Definition, ...] = ()

    def __str__(self) -> str:
        used = ", ".join(map(str, self.uses))
        return f"{self.name} {self.version}" + (f" ({used})" if used else "")


@dataclass(frozen=True, slots=True)
class Key:
    """What a measurement depends on: the model's fingerprint, where and in which dtype it ran, the texts (the fingerprint of their
    tokens), the definition with its version and those of what it uses, and the schema of the cache. `kind` names its folder."""

    kind: str
    model: str
    device: str
    dtype: str
    texts: str
    definition: str
    schema: int = SCHEMA

    @property
    def digest(self) -> str:
        """The name of the file that holds what is known."""
        return content_key(*astuple(self))


def key_of(model: Model, definition: Definition, texts: Any = ()) -> Key:
    """Return the key of what is measured of a model by a definition; `texts` are the tokens, JSON-able, none where none are read."""
    device, dtype = model.source.device, model.spec.dtype
    return Key(definition.name, model.fingerprint, device, dtype, content_key(texts), str(definition), SCHEMA)


def plain(value: Any, digits: int | None = None) -> Any:
    """Return what JSON can hold of a value: mappings, lists, floats (of so many digits where given); NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {key: plain(item, digits) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item, digits) for item in value]
    if isinstance(value, float):
        return None if not math.isfinite(value) else value if digits is None else float(f"{value:.{digits}g}")
    return value


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never half of it. A link, a pipe or a device in its place gives
    way to it.

    Raises:
        OSError: it cannot be written; what was there before is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_marked(path: Path, value: Any) -> None:
    """Write a JSON-able value into a file of its own, with a mark by which `read_marked` knows that it is as it was written.

    Raises:
        OSError: it cannot be written; what was there before is.
    """
    write_whole(path, json.dumps({"mark": _mark(value), "value": value}))


def read_marked(path: Path) -> Any | None:
    """Return what `write_marked` wrote into a file; None where there is none, or it is not as it was written."""
    try:
        found = json.loads(_text(path))
        return found["value"] if found["mark"] == _mark(found["value"]) else None
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def load_result(kind: str, key: str) -> Any | None:
    """Return the cached JSON value of this kind and key, or None where there is none, or it is not as it was written."""
    return read_marked(cache_folder() / kind / f"{key}.json")


def save_result(kind: str, key: str, value: Any) -> None:
    """Keep a JSON-able value under its kind and key.

    Raises:
        LayerscopeError: the cache cannot be written.
    """
    path = cache_folder() / kind / f"{key}.json"
    try:
        write_marked(path, value)
    except OSError as error:
        raise LayerscopeError(
            f"{path} cannot be written: {error.strerror}; make room, or set LAYERSCOPE_CACHE to another folder"
        ) from error


def load_measured(key: Key) -> Any | None:
    """Return what was measured under a key, or None, as `load_result` does."""
    return load_result(key.kind, key.digest)


def save_measured(key: Key, value: Any) -> None:
    """Keep what was measured, if it can be kept (see `spare`)."""
    spare(lambda: save_result(key.kind, key.digest, value))


def spare(keep: Callable[[], None]) -> None:
    """Keep what can be measured again, if it can be kept; where it cannot, that is said once, and the work goes on."""
    global _said
    try:
        keep()
    except (LayerscopeError, OSError) as error:
        if not _said:
            log.warning("layerscope: warning: what is measured is not kept for another time: %s", error)
        _said = True


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""  # neither a pipe nor a device, which may not end


def _mark(value: Any) -> str:
    """Return a fingerprint of a value as JSON holds it: one that was read and is as it was written has the same."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


class Ledger:
    """An append-only memo of many small measurements under one key: one JSON line each, so that an interrupted task loses none.

    A line that was cut off by a crash, or is not as it was written, is passed over. Several processes may append to one ledger.
    """

    def __init__(self, key: Key) -> None:
        self._path = cache_folder() / key.kind / f"{key.digest}.jsonl"
        self._known: dict[str, Any] = {}
        lines: list[str] = []
        with suppress(OSError):
            lines = _text(self._path).splitlines()
        for line in lines:
            with suppress(ValueError, TypeError, RecursionError):
                name, value, mark = json.loads(line)
                if mark == _mark([name, value]):
                    self._known[name] = value

    def __len__(self) -> int:
        return len(self._known)

    def get(self, name: str) -> Any | None:
        """Return what is known under a name, or None."""
        return self._known.get(name)

    def add(self, name: str, value: Any) -> None:
        """Remember a value, in memory and on disk."""
        self._known[name] = value
        spare(lambda: self._append(json.dumps([name, value, _mark([name, value])])))

    def _append(self, line: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(self._path) and not self._path.is_file():  # a pipe would be waited for
            self._path.unlink()
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" * (file.tell() > 0 and not self._ends_a_line()) + line + "\n")

    def _ends_a_line(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def file_digest(path: Path) -> str:
    """Return a file's SHA-256, remembered as long as its size and time of change stay the same."""
    status = path.stat()
    key = content_key(str(path.resolve()), status.st_size, status.st_mtime_ns)
    known = load_result("digests", key)
    if known is None:
        with path.open("rb") as file:
            known = hashlib.file_digest(file, "sha256").hexdigest()
        digest = known
        spare(lambda: save_result("digests", key, digest))
    return str(known)
