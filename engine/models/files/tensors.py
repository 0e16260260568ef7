"""Read and write safetensors one tensor at a time, never the whole model.

The safetensors library writes only tensors that are all in memory. The format is a length, a JSON header and the bytes, so this module
writes files itself and reads them with the library.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import safe_open

from engine.errors import ExportError, UnsupportedModelError
from engine.models.files.weights import headers_in

_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_DTYPES = {short: getattr(torch, name) for name, short in _NAMES.items()}
_CHUNK = 1 << 20  # elements


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """A tensor's file, dtype and shape, known from the header alone."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor to write: its dtype, its shape, and the function that makes it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], torch.Tensor]

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self.dtype.itemsize * int(torch.Size(self.shape).numel())


def places_in(folder: Path) -> dict[str, TensorPlace]:
    """Return every tensor of a checkpoint by name, read from the headers alone.

    Raises:
        SourceError: as `weight_files`.
        UnsupportedModelError: a tensor's dtype is not supported, such as FP8.
    """
    places: dict[str, TensorPlace] = {}
    for name, file, view in headers_in(folder):
        if view.get_dtype() not in _DTYPES:
            raise UnsupportedModelError(
                "{name} in {file_name} has dtype {kind}, which is not supported",
                name=name,
                file_name=file.name,
                kind=view.get_dtype(),
            )
        places[name] = TensorPlace(file, _DTYPES[view.get_dtype()], tuple(view.get_shape()))
    return places


def read_tensor(name: str, place: TensorPlace) -> torch.Tensor:
    """Return one tensor; its file stays mapped only while the tensor exists."""
    with safe_open(place.file, framework="pt") as opened:
        return opened.get_tensor(name)


def write_shards(folder: Path, outputs: dict[str, Output], shard_bytes: int) -> Iterator[int]:
    """Write tensors into model*.safetensors shards of at most `shard_bytes` each (a larger tensor gets its own shard).

    Each tensor is made once, in order, and cast while writing. Yields the bytes written so far, after each tensor.

    Raises:
        ExportError: a tensor's shape differs from its header.
    """
    split = split_state_dict_into_shards_factory(
        outputs,
        get_storage_size=lambda output: output.bytes,
        get_storage_id=lambda output: None,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    written = 0
    for filename, names in split.filename_to_tensors.items():
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name in names:
            output = outputs[name]
            header[name] = {
                "dtype": _NAMES[str(output.dtype).removeprefix("torch.")],
                "shape": list(output.shape),
                "data_offsets": [offset, offset + output.bytes],
            }
            offset += output.bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with (folder / filename).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                tensor = outputs[name].make()
                if tuple(tensor.shape) != outputs[name].shape:
                    raise ExportError(
                        "the computed tensor {name} has shape {shape}; expected {expected}",
                        name=name,
                        shape=tuple(tensor.shape),
                        expected=outputs[name].shape,
                    )
                _write(file, tensor, outputs[name].dtype)
                written += outputs[name].bytes
                yield written
    if split.is_sharded:
        index = {"metadata": {**split.metadata}, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write(file: Any, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    for part in tensor.flatten().split(_CHUNK):  # in parts, so that a cast never doubles a large tensor
        file.write(memoryview(part.to(dtype).contiguous().view(torch.uint8).numpy()))
