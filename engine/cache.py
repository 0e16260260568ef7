"""Content-addressed results on disk. JSON only, never pickle; a result appears whole or not at all."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs


def cache_folder() -> Path:
    """Return the folder of all cached results: $LAYERSCOPE_CACHE, or what platformdirs says."""
    return Path(os.environ.get("LAYERSCOPE_CACHE") or platformdirs.user_cache_dir("layerscope"))


def content_key(*parts: Any) -> str:
    """Return the SHA-256 of JSON-able parts, in a canonical form."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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
    """Write a text file so that a reader sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:  # a full disk
        os.unlink(temporary)
        raise


def load_result(kind: str, key: str) -> Any | None:
    """Return the cached JSON value of this kind and key, or None where there is none that can be read."""
    try:
        return json.loads((cache_folder() / kind / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def save_result(kind: str, key: str, value: Any) -> None:
    """Keep a JSON-able value under its kind and key."""
    write_whole(cache_folder() / kind / f"{key}.json", json.dumps(value))


class Ledger:
    """An append-only memo of many small results: one JSON line each, so that an interrupted task loses none.

    A line that was cut off by a crash is passed over. Several processes may append to one ledger.
    """

    def __init__(self, kind: str, key: str) -> None:
        self._path = cache_folder() / kind / f"{key}.jsonl"
        self._known: dict[str, Any] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    name, value = json.loads(line)
                    self._known[name] = value
                except (ValueError, TypeError):
                    continue

    def __len__(self) -> int:
        return len(self._known)

    def get(self, name: str) -> Any | None:
        """Return what is known under a name, or None."""
        return self._known.get(name)

    def add(self, name: str, value: Any) -> None:
        """Remember a value, in memory and on disk."""
        self._known[name] = value
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" * (file.tell() > 0 and not self._ends_a_line()) + json.dumps([name, value]) + "\n")

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
        save_result("digests", key, known)
    return known
