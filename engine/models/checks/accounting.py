"""Check a checkpoint's tensors and settings against what its stock class reads.

Every tensor, every setting and every weight file is either used or named in an error or a note. The missing, unexpected and mismatched
tensors that transformers reports are computed from the file headers, before any weight is read.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from engine.errors import SourceError, UnsupportedModelError, reason_of
from engine.messages import Message
from engine.models.checks.rope import require_rope_kept
from engine.models.checks.settings import unread_settings
from engine.models.families import Architecture, architecture_of, depth_of
from engine.models.files.naming import HEAD, frequencies_in, head_ties, masks_in, of_the_network, require_one_naming
from engine.models.files.tensors import TensorPlace

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_SHOWN = 8  # name patterns in one message
_NUMBER = re.compile(r"\.\d+\.")


@dataclass(frozen=True, slots=True)
class Account:
    """The result of the check: the stock network of the config on the meta device, the tensors it does not read, and notes for the user
    about unread files and settings."""

    network: "PreTrainedModel"
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def settle(config: "PretrainedConfig", places: Mapping[str, TensorPlace]) -> Any:
    """Make a config agree with the files: tie the head only where the files do, take a missing dtype from the majority of the numbers, and
    drop a padding token that the vocabulary lacks.

    Raises:
        SourceError: the files hold a tied head without its embedding.
    """
    config.tie_word_embeddings = head_ties(config, places)
    if config.dtype is None:
        sizes: Counter[torch.dtype] = Counter()
        for place in places.values():
            sizes[place.dtype] += prod(place.shape) if place.dtype.is_floating_point else 0
        config.dtype = sizes.most_common(1)[0][0] if sizes.total() else torch.float32
    if config.dtype == torch.float64:  # no model runs in it here
        config.dtype = torch.float32
    if getattr(config, "rope_parameters", None):  # as a network does again; only then may a length next to them change them
        config.standardize_rope_params()
    if not 0 <= (getattr(config, "pad_token_id", None) or 0) < config.vocab_size:
        config.pad_token_id = None
    return config


def account(
    folder: Path, values: Mapping[str, Any], config: "PretrainedConfig", places: Mapping[str, TensorPlace], trust_remote_code: bool
) -> Account:
    """Account for every tensor in a folder's files and for every setting of its config (`values` as written, `config` as parsed).

    Raises:
        SourceError: tensors are missing, have the wrong shape or are not floats; the depth differs; or the class does not read a tensor
            that changes what the model computes. The message gives both numbers, or the tensors' names.
    """
    row = architecture_of(config)
    _require_same_depth(config, row, places)
    duplicate = {HEAD} & set(places) if config.tie_word_embeddings else set()
    network, info = _loaded_headers(config, {name: place for name, place in places.items() if name not in duplicate}, trust_remote_code)
    require_one_naming(network, places)
    require_rope_kept(values, config, network)
    stray = set(info["unexpected_keys"])
    stray |= set(_passed_over(network, places, stray))
    known = {*masks_in(config, places), *frequencies_in(places), *duplicate}  # each is compared with what the network uses
    _require_read(network, row, sorted(stray - known), values)
    if missing := sorted(info["missing_keys"]):
        raise SourceError(
            "the weights in {folder} are incomplete; tensors missing or of the wrong shape: {count}, such as {patterns}",
            folder=folder,
            count=len(missing),
            patterns=patterns(missing),
        )
    _require_shapes(config, row, sorted(info["mismatched_keys"]))
    stray |= duplicate
    _require_floats(places, stray)
    notes = [*_unread_files(folder, places), *_unread_tensors(network, sorted(stray - known)), *unread_settings(values, config)]
    return Account(network, tuple(sorted(stray)), tuple(notes))


def patterns(names: Iterable[str]) -> str:
    """Return names for a message; tensors that differ only in their layer become one pattern with a count."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_NUMBER.sub(".*.", name, count=1), []).append(name)
    shown = [f"{pattern} ({len(found)})" if len(found) > 1 else found[0] for pattern, found in groups.items()]
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")


def empty_network(config: "PretrainedConfig", trust_remote_code: bool = False) -> Any:
    """Return the network of a config on the meta device, with its tied tensors tied.

    Raises:
        SourceError: no model can be built from the config.
    """
    try:
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        network.tie_weights()
    except Exception as error:  # a config may contain anything
        raise SourceError("transformers cannot build a model from the configuration: {reason}", reason=reason_of(error)) from error
    return network


def _loaded_headers(config: "PretrainedConfig", places: Mapping[str, TensorPlace], trust_remote_code: bool) -> tuple[Any, dict[str, Any]]:
    """Load tensors without storage through transformers; return the network and the loading info."""
    tensors = {name: torch.empty(place.shape, dtype=config.dtype, device="meta") for name, place in places.items()}
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None) or type(empty_network(config, trust_remote_code))
    try:
        loaded: Any = kind.from_pretrained(
            None, config=config, state_dict=tensors, output_loading_info=True, device_map={"": "meta"}, ignore_mismatched_sizes=True
        )
    except Exception as error:  # a config may contain anything
        raise SourceError("transformers cannot build a model from the configuration: {reason}", reason=reason_of(error)) from error
    return loaded


def _passed_over(network: "PreTrainedModel", names: Iterable[str], stray: set[str]) -> list[str]:
    """Return the tensors that the class declares unused, such as masks; none where the files name their tensors differently."""
    stem, own, names = f"{network.base_model_prefix}.", network.state_dict(), set(names)
    direct = {*own, *(name.removeprefix(stem) for name in own)}
    tied = {name for name in own if name == "lm_head.weight"}
    if any(name not in names and name.removeprefix(stem) not in names for name in own if name not in tied):
        return []
    return sorted(names - direct - stray)


def _require_same_depth(config: "PretrainedConfig", row: Architecture, names: Iterable[str]) -> None:
    found = re.compile(rf"(?:{re.escape(row.blocks)}|{re.escape(row.blocks.partition('.')[2])})\.(\d+)\.")
    layers = {int(match[1]) for name in names if (match := found.match(name))}
    if layers and max(layers) + 1 != depth_of(config):
        raise SourceError(
            "the configuration says {depth_key} = {depth}, but the weights contain {layers} layers",
            depth_key=row.depth_key,
            depth=depth_of(config),
            layers=max(layers) + 1,
        )


def _require_read(network: "PreTrainedModel", row: Architecture, stray: list[str], values: Mapping[str, Any]) -> None:
    """Raise SourceError if the network does not read a tensor that belongs to its computation."""
    part = [name for name in stray if of_the_network(network, name)]
    if not part:
        return
    modules = {name.rpartition(".")[0] for name in part if name.endswith(".bias")}
    off = [key for key, projections in row.biases.items() if any(module.endswith(tuple(projections)) for module in modules)]
    hint = "".join(
        Message(
            "; {key} is {setting}, so set it to true if the model has these biases",
            key=key,
            setting=json.dumps(bool(values.get(key, False))),
        )
        for key in off
    )
    raise SourceError(
        "the weights contain {count} tensors that {name} does not use: {patterns}{hint}",
        count=len(part),
        name=type(network).__name__,
        patterns=patterns(part),
        hint=hint,
    )


def _require_shapes(config: "PretrainedConfig", row: Architecture, mismatched: list[tuple[str, Any, Any]]) -> None:
    """Raise an error if tensor shapes differ from the config's, with both shapes; UnsupportedModelError names layers that differ in
    width."""
    if not mismatched:
        return
    name, found, wanted = mismatched[0]
    kind = _NUMBER.sub(".*.", name, count=1)
    layers = [int(match[0][1:-1]) for one, *_ in mismatched if _NUMBER.sub(".*.", one, count=1) == kind and (match := _NUMBER.search(one))]
    asked = Message("{name} has shape {found}; the configuration implies {wanted}", name=name, found=tuple(found), wanted=tuple(wanted))
    if layers and len(layers) < depth_of(config):
        listed = ", ".join(map(str, layers[:_SHOWN]))
        raise UnsupportedModelError(
            "the layers differ in width (layers {listed}: {asked}); such layers cannot be mixed", listed=listed, asked=asked
        )
    raise SourceError("the shapes of {count} tensors contradict the configuration: {asked}", count=len(mismatched), asked=asked)


def _require_floats(places: Mapping[str, TensorPlace], stray: set[str]) -> None:
    for name, place in places.items():
        if name not in stray and not place.dtype.is_floating_point and name.endswith((".weight", ".bias")):
            kind = str(place.dtype).removeprefix("torch.")
            raise UnsupportedModelError(
                "{name} in {file_name} has dtype {kind}, which is not supported",
                name=name,
                file_name=place.file.name,
                kind=kind,
            )


def _unread_files(folder: Path, places: Mapping[str, TensorPlace]) -> list[str]:
    read = {place.file.name for place in places.values()}
    adapter = (folder / "adapter_config.json").exists()
    unread = sorted(file.name for file in folder.glob("*.safetensors") if file.name not in read)
    unread = [name for name in unread if not (adapter and name.startswith("adapter_"))]
    notes: list[str] = [Message("weight files that are ignored: {choices}", choices=", ".join(unread[:_SHOWN]))] if unread else []
    if adapter:
        notes.append(Message("this folder also contains an adapter; it is ignored, and the model uses the folder's own weights"))
    return notes


def _unread_tensors(network: "PreTrainedModel", stray: list[str]) -> list[str]:
    return (
        [Message("tensors that {name} does not use and exports omit: {patterns}", name=type(network).__name__, patterns=patterns(stray))]
        if stray
        else []
    )
