"""Relate the tensor names in a checkpoint's files to the parameters of its network."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from engine.errors import SourceError
from engine.models.families import architecture_of
from engine.models.files.tensors import TensorPlace

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

HEAD = "lm_head.weight"
_FREQUENCIES = "rotary_emb.inv_freq"
_ROWS = 4096  # rows compared at a time
# A module next to the base model whose name begins like one of its parts, such as embed_layernorm.
_PART = re.compile(r"(?:embed|emb|wte|wpe|norm|layernorm|layer_norm|ln|layers?|blocks?)(?:_|s?$|\d)|.*(?:norm|embeddings?)$")


def require_one_naming(network: "PreTrainedModel", names: Iterable[str]) -> None:
    """Raise SourceError unless all names carry the network's base prefix, such as `model.`, or none does.

    transformers adds or removes this prefix silently, so two names could mean one parameter.
    """
    stem, names = network.base_model_prefix, sorted(names)
    parts = "|".join(re.escape(name) for name in dict(network.get_submodule(stem).named_children()))
    bare = [name for name in names if re.match(rf"(?:{parts})\.", name)]
    whole = [name for name in names if name.startswith(f"{stem}.")]
    inner = rf"(.+?\.){stem}\.(?:{parts})\.|({stem}\.)lm_head\." if bare or whole else rf"(.+?\.)(?:{stem}\.)?(?:{parts})\."
    if wrapped := next((found for name in names if (found := re.match(inner, name))), None):
        raise SourceError(
            "the tensor {name} has the prefix {prefix}, which transformers does not write; remove it from the tensors' names",
            name=wrapped.string,
            prefix=wrapped[1] or wrapped[2],
        )
    if bare and whole:
        raise SourceError(
            "some tensor names begin with {prefix} and some do not, such as {whole} and {bare}; use one form for all names",
            prefix=f"{stem}.",
            whole=whole[0],
            bare=bare[0],
        )


def of_the_network(network: "PreTrainedModel", name: str) -> bool:
    """Return whether a tensor belongs to the network itself: below its base model, its head, no module at all, or a norm or an embedding
    of its own. Other heads and extra models, such as a multi-token predictor, do not."""
    stem, first = network.base_model_prefix, name.partition(".")[0]
    base = network.get_submodule(stem)
    return "." not in name or first in (stem, "lm_head") or first in dict(base.named_children()) or bool(_PART.match(first))


def head_ties(config: "PretrainedConfig", places: Mapping[str, TensorPlace]) -> bool:
    """Return whether a config's tie of head and embedding holds for the files: they hold the embedding alone, or an equal head.

    Raises:
        SourceError: the files hold the head alone.
    """
    full = f"{architecture_of(config).embedding}.weight"
    held = next((name for name in (full, full.partition(".")[2]) if name in places), None)
    if HEAD not in places or not config.tie_word_embeddings:
        return bool(config.tie_word_embeddings)
    if held is None:
        raise SourceError(
            "the configuration ties {head} to {embedding}, but the weights contain only {head}; rename it to {embedding}",
            head=HEAD,
            embedding=full,
        )
    return _equal(HEAD, held, places)


def _equal(one: str, other: str, places: Mapping[str, TensorPlace]) -> bool:
    first, second = places[one], places[other]
    if (first.shape, first.dtype) != (second.shape, second.dtype) or not first.shape:
        return False
    with safe_open(first.file, framework="pt") as left, safe_open(second.file, framework="pt") as right:
        ours, theirs = left.get_slice(one), right.get_slice(other)
        steps = range(0, first.shape[0], _ROWS)
        return all(torch.equal(ours[start : start + _ROWS], theirs[start : start + _ROWS]) for start in steps)


def frequencies_in(names: Iterable[str]) -> list[str]:
    """Return the names of stored rotary frequencies."""
    return [name for name in names if name.endswith(_FREQUENCIES)]


def require_frequencies(network: "PreTrainedModel", stored: Mapping[str, torch.Tensor]) -> None:
    """Raise SourceError where rotary frequencies stored in the files differ from those of the config.

    Old checkpoints store them (`inv_freq`); transformers ignores the stored ones and computes them from the config.
    """
    computed = [buffer.float().cpu() for name, buffer in network.named_buffers() if name.endswith("inv_freq")]
    for name, tensor in stored.items():
        if not any(one.shape == tensor.shape and torch.allclose(one, tensor.float(), rtol=1e-2) for one in computed):
            raise SourceError("the rotary frequencies in {name} contradict the configuration; correct its rope settings", name=name)


def masks_in(config: "PretrainedConfig", names: Iterable[str]) -> list[str]:
    """Return the names of stored attention masks."""
    row = architecture_of(config)
    stem = re.escape(row.blocks.partition(".")[0])
    blocks = re.escape(row.blocks.partition(".")[2])
    ends = "|".join(map(re.escape, row.masks))
    return [name for name in names if row.masks and re.fullmatch(rf"(?:{stem}\.)?{blocks}\.\d+\.(?:{ends})", name)]


def require_causal(stored: Mapping[str, torch.Tensor]) -> None:
    """Raise SourceError where a stored attention mask is not causal; transformers ignores it and uses a causal one."""
    for name, tensor in stored.items():
        mask = tensor.reshape(-1, tensor.shape[-1]) != 0 if tensor.dim() > 1 else None
        if mask is not None and not torch.equal(mask, torch.ones_like(mask).tril()):
            raise SourceError("{name} contains an attention mask that is not causal; only causal attention is supported", name=name)


def require_finite(network: "PreTrainedModel") -> None:
    """Raise SourceError where a parameter holds a value that is not a finite number."""
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            raise SourceError(
                "{name} contains values that are not finite in {dtype}; download the weights again, or open them in another dtype",
                name=name,
                dtype=str(parameter.dtype).removeprefix("torch."),
            )
