"""Open a model: resolve its source to a folder of safetensors, check memory, read it."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from engine.cache import content_key, file_digest
from engine.errors import SourceError, reason_of
from engine.jobs import Job, Progress, in_fresh_process
from engine.messages import Message
from engine.model_lock import Turn
from engine.models.checks.accounting import patterns
from engine.models.devices import require_dtype
from engine.models.families import architecture_of
from engine.models.files.naming import frequencies_in, masks_in, require_causal, require_finite, require_frequencies
from engine.models.files.tensors import places_in, read_tensor
from engine.models.files.weights import weight_files
from engine.models.inspection import inspect_folder, inspect_gguf, read_config, require_memory
from engine.models.library import remember
from engine.models.sources import base_of_adapter, converted_folder, download, merged_folder
from engine.types import Model, ModelSource, ModelSpec
from engine.untrusted import ForeignError, object_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_TRIED = "Words, 12 단어,\n☃ and what no vocabulary has: \U000e0041"  # some tokenizers fail only on unknown characters
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

# Valid ranges of a generation config; transformers' own validation accepts num_beams = 100000, -1 and "x".
_WHOLE = {
    "max_length": (1, math.inf), "max_new_tokens": (1, math.inf), "min_length": (0, math.inf), "min_new_tokens": (0, math.inf),
    "num_beams": (1, 64), "num_beam_groups": (1, 64), "num_return_sequences": (1, 64), "top_k": (0, math.inf),
    "no_repeat_ngram_size": (0, math.inf), "encoder_no_repeat_ngram_size": (0, math.inf),
}  # fmt: skip
_REAL = {
    "temperature": (0, 100), "top_p": (0, 1), "min_p": (0, 1), "top_h": (0, 1), "typical_p": (0, 1),
    "epsilon_cutoff": (0, 1), "eta_cutoff": (0, 1), "penalty_alpha": (0, 1), "repetition_penalty": (0, 100),
    "encoder_repetition_penalty": (0, 100), "length_penalty": (-100, 100), "diversity_penalty": (0, 100),
    "guidance_scale": (0, 100), "max_time": (0, math.inf),
}  # fmt: skip
_FLAGS = ("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values", "return_dict_in_generate")
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
_LISTS = ("eos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")  # one token or a list
_TOKENS = (*_SPECIAL, *_LISTS, "forced_bos_token_id", "decoder_start_token_id")


def resolve(source: ModelSource) -> Job[tuple[Path, ModelSpec]]:
    """Return the local folder with a source's safetensors, and its spec; convert or download them first if necessary.

    Raises:
        SourceError: the source cannot be opened.
        MemoryLimitError: there is not enough memory.
    """
    if source.kind == "hub":
        yield Progress(Message("Downloading {location}", location=source.location))
        folder = download(source)
    elif source.kind == "folder":
        folder = Path(source.location)
    elif source.kind == "adapter":
        folder = yield from merged(source)
    else:
        folder = yield from converted(source)
    return folder, inspected(folder, source)[1]


def converted(source: ModelSource) -> Job[Path]:
    """Return the local folder with a GGUF source's weights as float32 safetensors; convert them first if necessary.

    Raises:
        SourceError: the file cannot be opened.
        MemoryLimitError: there is not enough memory.
    """
    gguf = Path(source.location)
    folder = converted_folder(gguf)
    if not folder.exists():
        yield Progress(Message("Checking {gguf_name}", gguf_name=gguf.name))
        require_memory(inspect_gguf(gguf, replace(source, dtype="float32")), "converting this GGUF file")
        yield from in_fresh_process("engine.models.gguf.convert", {"gguf": str(gguf), "target": str(folder)}, "Converting")
    return folder


def merged(source: ModelSource) -> Job[Path]:
    """Return the local folder of a model with its adapter merged in; merge it first if necessary.

    Raises:
        SourceError: the adapter or its base model cannot be read.
        MemoryLimitError: there is not enough memory.
    """
    adapter = Path(source.location)
    base = base_of_adapter(adapter)
    folder = merged_folder(adapter, base)
    if not folder.exists():
        _, spec = inspect_folder(base, replace(source, kind="folder", location=str(base), dtype="auto"))
        require_memory(spec, "merging this adapter")
        request = {"adapter": str(adapter), "base": str(base), "target": str(folder)}
        yield from in_fresh_process("engine.models.merge", request, "Merging")
    return folder


def inspected(folder: Path, source: ModelSource) -> tuple[Any, ModelSpec]:
    """Return the config and spec of a source whose safetensors lie in `folder`; see `inspect_folder`.

    A merged model's spec also has the omitted tensors of the adapter's base model, and the notes about it.
    """
    config, spec = inspect_folder(folder, source)
    if source.kind != "adapter":
        return config, spec
    base = base_of_adapter(Path(source.location))
    _, below = inspect_folder(base, replace(source, kind="folder", location=str(base), dtype="auto"))
    notes = [Message("the adapter's base model: {note}", note=note) for note in below.notes]
    return config, replace(spec, left_out=(*below.left_out, *spec.left_out), notes=(*notes, *spec.notes))


def open_model(source: ModelSource, check: Callable[[ModelSpec], object] | None = None) -> Job[Model]:
    """Open a model for reading: float weights in `source.dtype` on `source.device`, in evaluation mode.

    `check` gets the spec before any weight is read, and may raise.

    Raises:
        SourceError: the files cannot be read, or weights are missing.
        UnsupportedModelError: the family is not supported.
        MemoryLimitError: there is not enough memory.
    """
    folder, spec = yield from resolve(source)
    require_memory(spec)
    require_dtype(source.device, spec.dtype)
    if check is not None:
        check(spec)
    yield Progress(Message("Reading {parameters:.0f} million parameters", parameters=spec.parameters / 1e6))
    network = read_network(folder, spec.dtype, source.trust_remote_code).to(source.device)
    yield Progress(Message("Reading the tokenizer"))
    tokenizer = read_tokenizer(folder, source.trust_remote_code)
    yield Progress(Message("Computing the fingerprint"))
    opened = Model(source, spec, folder, network.config, network, tokenizer, fingerprint_of(folder), Turn())
    remember(source, spec.name, spec.model_type)
    return opened


def read_tokenizer(folder: Path, trust_remote_code: bool = False, **options: Any) -> Any:
    """Read a folder's tokenizer and tokenise a sample with it.

    Raises:
        SourceError: there is no working tokenizer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code, **options)
        tokenizer(_TRIED)
    except Exception as error:  # tokenizer files fail in many ways
        raise SourceError("the tokenizer in {folder} cannot be read: {reason}", folder=folder, reason=reason_of(error)) from error
    return tokenizer


def load_with_transformers(folder: Path, dtype: Any, trust_remote_code: bool = False, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Load a local folder with plain transformers; return the model and the loading info (missing and unexpected keys).

    With peft installed, transformers would attach an adapter from the folder; `adapter_kwargs` points it to a place that has none.
    """
    nowhere = {"subfolder": "config.json"}
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        output_loading_info=True,
        trust_remote_code=trust_remote_code,
        adapter_kwargs=nowhere,
        **options,
    )
    return loaded[0].eval(), loaded[1]


def read_network(folder: Path, dtype: str, trust_remote_code: bool = False) -> Any:
    """Read a folder's causal language model in a dtype, in evaluation mode.

    Only the special tokens of the folder's generation config are used, so that untrusted settings cannot influence measurements.

    Raises:
        SourceError: the weights cannot be read, or some are missing.
    """
    config = read_config(folder, trust_remote_code)
    tokens, _ = generation_config_in(folder, config)
    try:
        network, info = load_with_transformers(folder, getattr(torch, dtype), trust_remote_code, config=config, generation_config=tokens)
    except Exception as error:  # malformed checkpoints make transformers raise arbitrary errors
        raise SourceError("the weights in {folder} cannot be read: {reason}", folder=folder, reason=reason_of(error)) from error
    missing = sorted(info["missing_keys"]) + [str(item[0]) for item in info.get("mismatched_keys", ())]
    if missing:
        raise SourceError(
            "the weights in {folder} are incomplete; tensors missing or of the wrong shape: {count}, such as {patterns}",
            folder=folder,
            count=len(missing),
            patterns=patterns(missing),
        )
    places = places_in(folder)
    require_frequencies(network, {name: read_tensor(name, places[name]) for name in frequencies_in(places)})
    require_causal({name: read_tensor(name, places[name]) for name in masks_in(config, places)})
    require_finite(network)
    architecture_of(network.config)
    return network.requires_grad_(False)


def generation_config_in(folder: Path, config: "PretrainedConfig") -> tuple[GenerationConfig, str]:
    """Return a generation config with only the special tokens, and what is wrong with the folder's own generation config.

    The second value is "" if the folder's file is valid or missing. Missing or invalid token ids are taken from the model's config.
    """
    file = folder / "generation_config.json"
    try:
        own: dict[str, Any] | None = object_in(file) if file.exists() else {}
    except (OSError, ForeignError):
        own = None
    written = own or {}
    tokens = {}
    for name in _SPECIAL:
        named = [value for value in (written.get(name), getattr(config, name, None)) if value not in (None, [])]
        tokens[name] = next((value for value in named if _may_be(name, value, config)), None)
    return GenerationConfig(**tokens), Message("it is not a JSON object") if own is None else _fault(own, config)


def _fault(own: dict[str, Any], config: "PretrainedConfig") -> str:
    """Return what is wrong with a generation config, by the tables above or as reported by transformers."""
    for name, value in own.items():
        if value is not None and not _may_be(name, value, config):
            return f"{name} is {value!r}"
    try:
        GenerationConfig.from_dict(own).validate(strict=True)
    except Exception as error:  # untrusted values may raise anything
        return " ".join(str(error).split())
    return ""


def _may_be(name: str, value: Any, config: "PretrainedConfig") -> bool:
    if name in _FLAGS:
        return isinstance(value, bool)
    if name in _TOKENS:
        tokens = value if isinstance(value, list) and name in _LISTS else [value]
        return all(type(token) is int and 0 <= token < config.vocab_size for token in tokens)
    if name in _WHOLE or name in _REAL:
        low, high = {**_WHOLE, **_REAL}[name]
        return type(value) in ((int,) if name in _WHOLE else (int, float)) and low <= value <= high
    return True


def fingerprint_of(folder: Path) -> str:
    """Return the SHA-256 of the contents of a checkpoint's config and weights."""
    files = [folder / "config.json", *weight_files(folder)]
    return content_key(*((file.name, file_digest(file)) for file in files))
