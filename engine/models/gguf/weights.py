"""Map a GGUF file's weights to transformers' names. Tensors that the model does not have are refused by name."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gguf import dequantize, get_tensor_name_map

from engine.errors import SourceError, UnsupportedModelError
from engine.models.families import depth_of
from engine.models.gguf.file import GgufFile
from engine.models.gguf.rope import rotary_tensors

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_SPARE = re.compile(r"blk\.\d+\.attn_rot_embd\.weight")  # angles stored by old files, unused
_SPLIT = ("attn_q", "attn_k", "attn_v")  # the parts of phi3's fused projection


def empty_network(config: "PretrainedConfig") -> Any:
    """Return the stock network of a config, without storage."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    network.tie_weights()
    return network


def sources_of(gguf: GgufFile, network: "PreTrainedModel") -> dict[str, tuple[str, ...]]:
    """Return, for each parameter of a network, the file's tensors it is built from; an empty tuple means a bias of zeros.

    Raises:
        UnsupportedModelError: the network does not have one of the tensors.
        SourceError: a tensor is missing or has the wrong shape.
    """
    names = get_tensor_name_map(gguf.arch, depth_of(network.config))
    found, missing = {}, []
    for name, parameter in network.named_parameters():
        tensor = names.get_name(name, try_suffixes=(".weight", ".bias")) or name
        made_of = _made_of(gguf, tensor, tuple(parameter.shape))
        if made_of is None:
            missing.append(tensor)
        else:
            found[name] = made_of
    used = {tensor for made_of in found.values() for tensor in made_of} | rotary_tensors(gguf)
    strange = [name for name in gguf.tensors if name not in used and not _SPARE.fullmatch(name)]
    if strange:
        raise UnsupportedModelError(
            "{path}: the tensor {strange} is not supported (unsupported tensors: {count}): the stock class of {model_type} does not use it",
            path=gguf.path,
            strange=strange[0],
            count=len(strange),
            model_type=network.config.model_type,
        )
    if missing:  # transformers would initialise them at random
        raise SourceError(
            "{path} lacks tensors that this model needs: {count}, such as {missing}",
            path=gguf.path,
            count=len(missing),
            missing=missing[0],
        )
    return found


def _made_of(gguf: GgufFile, tensor: str, wanted: tuple[int, ...]) -> tuple[str, ...] | None:
    """Return the tensors that a parameter is built from, or None where the file lacks them."""
    parts = tuple(tensor.replace("attn_qkv", part) for part in _SPLIT)
    if tensor not in gguf.tensors and "attn_qkv" in tensor and all(part in gguf.tensors for part in parts):
        return parts
    shape = gguf.shape(tensor)
    if shape is None:
        return () if tensor.endswith(".bias") and gguf.architecture != "gpt2" else None
    if gguf.architecture == "gpt2" and _transposed(tensor):
        shape = shape[::-1]
    if shape != wanted:
        raise SourceError(
            "{path}: the tensor {tensor} has shape {shape}; the metadata implies {wanted}",
            path=gguf.path,
            tensor=tensor,
            shape=shape,
            wanted=wanted,
        )
    return (tensor,)


def weights_of(gguf: GgufFile, network: "PreTrainedModel") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each parameter's name and its dequantised values in float32."""
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    for name, made_of in sources_of(gguf, network).items():
        parts = [_numbers(gguf, tensor) for tensor in made_of]
        values = np.concatenate(parts) if parts else np.zeros(shapes[name], np.float32)
        yield name, torch.from_numpy(np.ascontiguousarray(values).reshape(shapes[name]))


def _numbers(gguf: GgufFile, name: str) -> np.ndarray:
    """Return a tensor's values in the stock class's layout, undoing the changes of llama.cpp's converter."""
    tensor = gguf.tensors[name]
    try:
        values = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
    except NotImplementedError as error:
        kind = tensor.tensor_type.name
        raise UnsupportedModelError(
            "{name} in {file_name} has dtype {kind}, which is not supported", name=name, file_name=gguf.path, kind=kind
        ) from error
    if not np.isfinite(values).all():
        raise SourceError("{path}: {name} contains numbers that are not finite", path=gguf.path, name=name)
    if gguf.architecture == "llama" and ".attn_q." in name:
        return _turned_back(values, gguf.whole("{arch}.attention.head_count") or 1)
    if gguf.architecture == "llama" and ".attn_k." in name:
        heads = gguf.whole("{arch}.attention.head_count_kv") or gguf.whole("{arch}.attention.head_count")
        return _turned_back(values, heads or 1)
    if gguf.architecture == "gemma3" and name.endswith("norm.weight"):
        return values - 1
    return values.T if gguf.architecture == "gpt2" and _transposed(name) else values


def _turned_back(values: np.ndarray, heads: int) -> np.ndarray:
    """Return rows in transformers' order: llama.cpp rotates neighbouring channels, transformers the two halves of a head."""
    return values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _transposed(name: str) -> bool:
    return name.startswith("blk.") and name.endswith(".weight") and "norm" not in name
