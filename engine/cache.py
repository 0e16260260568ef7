"""The cache folder: content-addressed results in files, JSON only, never pickle, written atomically; and the keys of measurements.

Measurements of a model are stored under a `Key` (see `engine.measurements`), which includes everything that the numbers depend on. A
corrected formula gets a new version and therefore a new key, so that its old numbers are never returned.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from engine.atomic import replacing
from engine.errors import LayerscopeError

if TYPE_CHECKING:
    from engine.types import Model

SCHEMA = 2  # version of the cache: how keys are made, and how values are written
log = logging.getLogger("layerscope")
_said = False  # whether the warning about an unwritable cache was shown


def cache_folder() -> Path:
    """Return the folder of all cached results: $LAYERSCOPE_CACHE, or platformdirs' default."""
    return Path(os.environ.get("LAYERSCOPE_CACHE") or platformdirs.user_cache_dir("layerscope"))


def content_key(*parts: Any) -> str:
    """Return the SHA-256 of the canonical JSON of some parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Definition:
    """What is measured: its name, and the version of its formula, which increases whenever the formula's numbers change.

    `uses` are the definitions that its numbers depend on.
    """

    name: str
    version: int = 1
    uses: tuple[Definition, ...] = ()

    def __str__(self) -> str:
        used = ", ".join(map(str, self.uses))
        return f"{self.name} {self.version}" + (f" ({used})" if used else "")


@dataclass(frozen=True, slots=True)
class Key:
    """Everything that a measurement depends on: the model's fingerprint, device and dtype, the texts (the fingerprint of their tokens), the
    definition with its version and those it uses, and the schema of the cache."""

    model: str
    device: str
    dtype: str
    texts: str
    definition: str
    schema: int = SCHEMA

    @property
    def digest(self) -> str:
        """The key in the database."""
        return content_key(*astuple(self))


def key_of(model: Model, definition: Definition, texts: Any = ()) -> Key:
    """Return the key of a measurement of a model; `texts` are its tokens as JSON values, or () if it reads none."""
    device, dtype = model.source.device, model.spec.dtype
    return Key(model.fingerprint, device, dtype, content_key(texts), str(definition), SCHEMA)


def plain(value: Any, digits: int | None = None) -> Any:
    """Return a value as JSON values: mappings, lists, floats (rounded to `digits` significant digits if given); NaN and infinity become
    None."""
    if isinstance(value, Mapping):
        return {key: plain(item, digits) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item, digits) for item in value]
    if isinstance(value, float):
        return None if not math.isfinite(value) else value if digits is None else float(f"{value:.{digits}g}")
    return value


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically: a reader sees the old one or the new one. A link, a pipe or a device in its place is replaced.

    Raises:
        OSError: the file cannot be written; the old one is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_marked(path: Path, value: Any) -> None:
    """Write a JSON value into a file with a checksum for `read_marked`.

    Raises:
        OSError: the file cannot be written; the old one is kept.
    """
    write_whole(path, json.dumps({"mark": _mark(value), "value": value}))


def read_marked(path: Path) -> Any | None:
    """Return the value that `write_marked` wrote into a file; None if the file is missing or corrupted."""
    try:
        found = json.loads(_text(path))
        return found["value"] if found["mark"] == _mark(found["value"]) else None
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def load_result(kind: str, key: str) -> Any | None:
    """Return the cached JSON value of this kind and key; None if it is missing or corrupted."""
    return read_marked(cache_folder() / kind / f"{key}.json")


def save_result(kind: str, key: str, value: Any) -> None:
    """Store a JSON value under its kind and key.

    Raises:
        LayerscopeError: the cache cannot be written.
    """
    path = cache_folder() / kind / f"{key}.json"
    try:
        write_marked(path, value)
    except OSError as error:
        raise LayerscopeError(
            "{path} cannot be written: {reason}; make room, or set LAYERSCOPE_CACHE to another folder", path=path, reason=error.strerror
        ) from error


def spare(keep: Callable[[], None]) -> None:
    """Store something that can be recomputed; if that fails, warn once and continue."""
    global _said
    try:
        keep()
    except (LayerscopeError, OSError) as error:
        if not _said:
            log.warning("layerscope: warning: measurements are not stored: %s", error)
        _said = True


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""  # a pipe or a device may never end


def _mark(value: Any) -> str:
    """Return a checksum of a value's JSON, which reading and writing do not change."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return a file's SHA-256, cached while its size and modification time stay the same."""
    status = path.stat()
    key = content_key(str(path.resolve()), status.st_size, status.st_mtime_ns)
    known = load_result("digests", key)
    if known is None:
        with path.open("rb") as file:
            known = hashlib.file_digest(file, "sha256").hexdigest()
        digest = known
        spare(lambda: save_result("digests", key, digest))
    return str(known)
