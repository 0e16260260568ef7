"""Describe a model before any of its weights is read: its checked config, its sizes and its name."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from engine.errors import MemoryLimitError, SourceError, UnsupportedModelError, reason_of
from engine.messages import Message
from engine.models.checks.accounting import account, empty_network, settle
from engine.models.checks.bounds import require_bounded, require_bounded_gguf
from engine.models.checks.kinds import require_kinds
from engine.models.checks.rope import require_rope_read
from engine.models.checks.settings import readable, require_settings
from engine.models.devices import free_bytes
from engine.models.families import architecture_of, blocks_of, depth_of, layer_types_of, require_text_model, row_of
from engine.models.files.tensors import TensorPlace, places_in
from engine.models.gguf.config import gguf_config
from engine.models.gguf.file import read_header
from engine.models.gguf.keys import require_accounted
from engine.models.library import CONFIG_BYTES, DEMO_BASE_MODEL, json_in, only_adapter, require_code_allowed
from engine.models.shapes import block_terms, outer_terms, shape_of
from engine.models.sources import COMPANIONS
from engine.types import ModelSource, ModelSpec
from engine.untrusted import LARGE, ForeignError, object_in, require_regular, text_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_READ = ("config.json", "README.md", *COMPANIONS)  # files of a folder that Layerscope or transformers reads
# The caller, not the config, decides how a model runs and what it returns: another attention may compile or download code.
_OF_A_RUN = {
    "_attn_implementation": None,
    "return_dict": True,
    "output_attentions": False,
    "tie_last_hidden_states": None,
    "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False,
}
_NO_NAMES = {
    "",
    "model",
    "models",
    "checkpoint",
    "snapshot",
    "weights",
    "main",
    "hf",
    "export",
    "exported",
    "output",
    "final",
    "best",
    "latest",
}
_HEADROOM = 1.15  # memory needed relative to the weights: activations, a few mixed blocks and the interpreter


def read_config(folder: Path, trust_remote_code: bool = False) -> Any:
    """Return the transformers config in a folder, checked to be of a supported family.

    Raises:
        SourceError: the config is missing or cannot be read, or the model needs its own code.
        UnsupportedModelError: the family or a setting is not supported.
    """
    values = _allowed(folder, trust_remote_code)
    require_text_model(values.get("model_type"), values.get("text_config"))
    row_of(str(values["model_type"]))
    places = places_in(folder)
    _require_sound(folder, values, places)
    return settle(_parsed(folder, values, trust_remote_code), places)


def _require_sound(folder: Path, values: dict[str, Any], places: dict[str, TensorPlace]) -> None:
    """Raise SourceError where a config has a setting out of its range, or one that no stock class follows."""
    try:
        require_bounded(values, (place.shape for place in places.values()))
        require_kinds(values)
        require_settings(values)
        require_rope_read(values)
    except UnsupportedModelError as error:
        raise UnsupportedModelError("{folder}: {error}", folder=folder, error=error) from error


def _allowed(folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    """Return a folder's config as a JSON object, after checking that it needs no untrusted code."""
    values = config_in(folder)
    require_code_allowed(folder, trust_remote_code)
    return values


def _parsed(folder: Path, values: dict[str, Any], trust_remote_code: bool) -> Any:
    """Return a config parsed by transformers: from the values that were checked, or by trusted code of the folder."""
    try:
        if trust_remote_code and "auto_map" in values:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
        else:
            config = CONFIG_MAPPING[values["model_type"]].from_dict(readable(values))
    except Exception as error:  # transformers' parsers raise arbitrary errors
        kind = values.get("model_type")
        about = f" (model_type {kind!r})" if kind else ""
        raise SourceError(
            "the configuration in {where}{about} cannot be read: {reason}", where=folder, about=about, reason=reason_of(error)
        ) from error
    architecture_of(config)
    for name in [*_OF_A_RUN, *(name for name in vars(config) if name.startswith("output_"))]:
        if hasattr(config, name):
            setattr(config, name, _OF_A_RUN.get(name, False))
    return config


def inspect_folder(folder: Path, source: ModelSource) -> tuple[Any, ModelSpec]:
    """Return a local checkpoint's config and spec, from its config and its file headers alone.

    Raises:
        SourceError: as `read_config` and `weight_files`, or the config asks for larger sizes than the tensors allow.
        UnsupportedModelError: the family or a setting is not supported.
    """
    values = _allowed(folder, source.trust_remote_code)
    try:
        places = places_in(folder)
    except UnsupportedModelError as error:
        raise UnsupportedModelError("{folder}: {error}", folder=folder, error=error) from error
    _require_sound(folder, values, places)
    config = settle(_parsed(folder, values, source.trust_remote_code), places)
    found = account(folder, values, config, places, source.trust_remote_code)
    spec = _describe(config, found.network, source)
    return config, replace(spec, left_out=found.left_out, notes=found.notes)


def config_in(folder: Path) -> dict[str, Any]:
    """Return a folder's config as a JSON object.

    Raises:
        SourceError: the config is missing or cannot be read, or a companion file is not a regular file.
    """
    if not (folder / "config.json").exists():
        raise SourceError(only_adapter(folder) or Message("{folder} does not contain a model: config.json is missing", folder=folder))
    try:
        for file in sorted({path for pattern in _READ for path in folder.glob(pattern)}):
            require_regular(file, LARGE)
        file = folder / "config.json"
        return object_in(file, CONFIG_BYTES)
    except ForeignError as error:
        raise SourceError("{path} cannot be read: {error}", path=file, error=error) from error
    except OSError as error:
        raise SourceError("{path} cannot be read: {error}", path=folder, error=reason_of(error)) from error


def inspect_gguf(gguf: Path, source: ModelSource) -> ModelSpec:
    """Return a GGUF file's spec, from its header alone."""
    require_bounded_gguf(gguf)
    header = read_header(gguf)
    require_accounted(header)
    config = gguf_config(header)
    architecture_of(config)
    return describe_config(config, source)


def describe_config(config: "PretrainedConfig", source: ModelSource) -> ModelSpec:
    """Return the spec of the model that a config describes, counted on a network without storage."""
    return _describe(config, empty_network(config, source.trust_remote_code), source)


def _describe(config: "PretrainedConfig", network: "PreTrainedModel", source: ModelSource) -> ModelSpec:
    if not len(blocks_of(network)):
        raise SourceError("the configuration describes a model without layers")
    row, blocks = architecture_of(config), blocks_of(network)
    dtype = source.dtype if source.dtype != "auto" else str(config.dtype or torch.float32).removeprefix("torch.")
    return ModelSpec(
        model_type=config.model_type,
        name=name_of(source, config.model_type),
        depth=depth_of(config),
        hidden_size=config.hidden_size,
        parameters=sum(p.numel() for p in network.parameters()),
        block_parameters=tuple(sum(p.numel() for p in block.parameters()) for block in blocks),
        layer_types=layer_types_of(config),
        dtype=dtype,
        bytes_per_parameter=getattr(torch, dtype).itemsize,
        available_bytes=free_bytes(source.device),
        shape=shape_of(config),
        block_terms=block_terms(row, blocks[0].named_parameters()),
        outer_terms=outer_terms(row, network.named_parameters(), config.hidden_size),
    )


def name_of(source: ModelSource, model_type: str) -> str:
    """Return a model's name: its Hub id or file name. Where a folder's name is uninformative ("qwen", "checkpoint-500", a snapshot's hash),
    the title of its model card or the name in its config."""
    if source.kind == "demo":
        return DEMO_BASE_MODEL.split("/")[1]
    place = Path(source.location)
    if source.kind == "hub":
        return source.location
    if source.kind != "folder" or not _says_nothing(place.name, model_type):
        return place.name
    known = (name for name in (_title_of_card(place), _named_by_config(place)) if name and not _says_nothing(name, model_type))
    return next(known, place.name)


def _says_nothing(name: str, model_type: str) -> bool:
    letters, family = (re.sub("[^a-z]", "", text.lower()) for text in (name, model_type))
    sized = re.search(r"\d(\.\d+)?[bmk](?![a-z])", name.lower())
    return bool(re.fullmatch("[0-9a-f]{40}", name)) or (not sized and (letters in _NO_NAMES or family.startswith(letters)))


def _title_of_card(folder: Path) -> str | None:
    try:
        text = text_in(folder / "README.md")
    except (OSError, ForeignError):
        return None
    title = re.search(r"^model_name:\s*(.+)$|^#\s+(.+)$", text, re.MULTILINE)
    return (title[1] or title[2]).strip(" '\"")[:80] if title else None


def _named_by_config(folder: Path) -> str | None:
    name = json_in(folder / "config.json").get("_name_or_path")
    return name.rstrip("/").split("/")[-1] if isinstance(name, str) else None


def require_memory(spec: ModelSpec, what: str = Message("the model")) -> None:
    """Raise MemoryLimitError, with the numbers, if the weights exceed the free memory."""
    needed = int(spec.bytes * _HEADROOM)
    if needed > spec.available_bytes:
        smaller = Message(" or choose bfloat16") if spec.bytes_per_parameter > 2 else ""
        raise MemoryLimitError(
            "{what} needs about {needed:.1f} GB in {dtype} ({parameters:.2f} billion parameters), but only "
            "{available_bytes:.1f} GB are free; free some memory{smaller}",
            what=what,
            needed=needed / 1e9,
            dtype=spec.dtype,
            parameters=spec.parameters / 1e9,
            available_bytes=spec.available_bytes / 1e9,
            smaller=smaller,
        )
