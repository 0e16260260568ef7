"""Open a model: resolve its source to a folder of safetensors, check that it fits, read it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.cache import content_key, file_digest
from engine.errors import SourceError, first_line
from engine.jobs import Job, Progress, in_fresh_process
from engine.models.families import architecture_of
from engine.models.sources import converted_folder, download, inspect_folder, inspect_gguf, require_memory, weight_files
from engine.turns import Turn
from engine.types import Model, ModelSource, ModelSpec

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def resolve(source: ModelSource) -> Job[tuple[Path, ModelSpec]]:
    """Return the local folder that holds a source's safetensors, and its spec; convert or fetch it first if need be.

    Raises:
        SourceError: nothing there that can be opened. MemoryLimitError: it does not fit.
    """
    if source.kind == "hub":
        yield Progress(f"Fetching {source.location}")
        folder = download(source)
    elif source.kind == "folder":
        folder = Path(source.location)
    else:
        gguf = Path(source.location)
        folder = converted_folder(gguf)
        if not folder.exists():
            yield Progress(f"Looking at {gguf.name}")
            require_memory(inspect_gguf(gguf, replace(source, dtype="float32")), "converting this GGUF file")
            yield from in_fresh_process("engine.models.convert", {"gguf": str(gguf), "target": str(folder)}, "Converting")
    _, spec = inspect_folder(folder, source)
    return folder, spec


def open_model(source: ModelSource, check: Callable[[ModelSpec], object] | None = None) -> Job[Model]:
    """Open a model for reading: float weights in `source.dtype` on `source.device`, in evaluation mode.

    `check` sees the spec before any weight is read, and may refuse it.

    Raises:
        SourceError: the files cannot be read, or weights are missing from them.
        UnsupportedModelError: the family cannot be folded. MemoryLimitError: it does not fit.
    """
    folder, spec = yield from resolve(source)
    require_memory(spec)
    if check is not None:
        check(spec)
    yield Progress(f"Reading {spec.parameters / 1e6:.0f} million parameters")
    network = read_network(folder, spec.dtype).to(source.device)
    yield Progress("Reading the tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizer files fail in many ways
        raise SourceError(f"{folder} has no tokenizer that can be read: {first_line(error)}") from error
    yield Progress("Taking the fingerprint")
    return Model(source, spec, folder, network.config, network, tokenizer, fingerprint_of(folder), Turn())


def load_with_transformers(folder: Path, dtype: Any) -> tuple[Any, dict[str, Any]]:
    """Return what plain transformers makes of a local folder, and its account of missing and unexpected keys."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
    return loaded[0].eval(), loaded[1]


def read_network(folder: Path, dtype: str) -> Any:
    """Read a folder's causal language model in a dtype, in evaluation mode; refuse one with missing weights."""
    try:
        network, info = load_with_transformers(folder, getattr(torch, dtype))
    except Exception as error:  # whatever a malformed checkpoint leads transformers to raise
        raise SourceError(f"the weights in {folder} cannot be read: {first_line(error)}") from error
    missing = sorted(info["missing_keys"]) + [str(item[0]) for item in info.get("mismatched_keys", ())]
    if missing:
        raise SourceError(f"the weights in {folder} are incomplete: {len(missing)} missing or of the wrong shape, such as {missing[0]}")
    architecture_of(network.config)
    return network.requires_grad_(False)


def fingerprint_of(folder: Path) -> str:
    """Return the SHA-256 over a checkpoint's config and weights, by content."""
    files = [folder / "config.json", *weight_files(folder)]
    return content_key(*((file.name, file_digest(file)) for file in files))
