"""A GGUF file's header: its metadata by key and its tensors by name. Tensor data is read only on request."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFEndian, GGUFReader, GGUFValueType, Keys, ReaderTensor

from engine.errors import SourceError, UnsupportedModelError, reason_of
from engine.messages import Message
from engine.models.families import row_of

FAMILIES = {"gemma3": "gemma3_text"}  # transformers' family names, where they differ from GGUF's
_WHOLE = (
    GGUFValueType.UINT8, GGUFValueType.INT8, GGUFValueType.UINT16, GGUFValueType.INT16, GGUFValueType.UINT32, GGUFValueType.INT32,
    GGUFValueType.UINT64, GGUFValueType.INT64,
)  # fmt: skip
_REAL = (GGUFValueType.FLOAT32, GGUFValueType.FLOAT64)
_PER_LAYER = ("{arch}.attention.head_count", "{arch}.attention.head_count_kv", "{arch}.feed_forward_length")  # may be lists
_NO_TOKEN = (-1, 2**32 - 1)  # llama.cpp's id of no token


class HeaderReader(GGUFReader):
    """The library's reader over a plain view of the mapped file: numpy slices a memmap several times slower."""

    @property  # type: ignore[override]  # the library declares the memmap
    def data(self) -> np.ndarray:
        return self._bytes

    @data.setter
    def data(self, mapped: np.ndarray) -> None:
        self._bytes = mapped.view(np.ndarray)

    def _get(self, offset: Any, *args: Any, **options: Any) -> Any:
        """Raise ValueError past the end of the file; the library would return empty reads, as often as a corrupted count asks."""
        if offset >= len(self._bytes):
            raise ValueError("it ends before its header does")
        return super()._get(offset, *args, **options)

    def _build_tensors(self, start_offs: int, fields: list[Any]) -> None:
        """Raise ValueError where a tensor does not follow the one before, as general.alignment asks; numpy's error names neither."""
        try:
            super()._build_tensors(start_offs, fields)
        except ValueError as error:
            how = f"with general.alignment = {self.alignment}, its tensors lie beyond its end"
            raise ValueError(how if "reshape" in str(error) else str(error)) from error
        expected = start_offs
        for tensor in self.tensors:
            if tensor.data_offset != expected:
                at, due = tensor.data_offset - start_offs, expected - start_offs
                raise ValueError(f"{tensor.name} lies at byte {at}, and by general.alignment = {self.alignment} it belongs at byte {due}")
            expected += -(-tensor.n_bytes // int(self.alignment)) * int(self.alignment)


@dataclass(frozen=True)
class GgufFile:
    """The header of a file of a supported family. `tensors` are the gguf library's, by name."""

    path: Path
    reader: GGUFReader
    architecture: str
    tensors: dict[str, ReaderTensor]

    @property
    def arch(self) -> MODEL_ARCH:
        """The gguf library's number of the architecture."""
        return next(number for number, name in MODEL_ARCH_NAMES.items() if name == self.architecture)

    def key(self, name: str) -> str:
        """Return a key with `{arch}` filled in."""
        return name.replace("{arch}", self.architecture)

    def value(self, name: str) -> Any:
        """Return a key's value, or None if the key is missing; a float32 is returned as the shortest decimal that equals it."""
        field = self.reader.get_field(self.key(name))
        if field is None:
            return None
        held = field.contents()
        return _shortest(held) if field.types[-1] == GGUFValueType.FLOAT32 else held

    def whole(self, name: str) -> int | None:
        """Return a key's integer, which must be the same for every layer where it is a list; None if the key is missing.

        Raises:
            SourceError: the value is not a finite number, or a list not as long as the model is deep.
            UnsupportedModelError: layers have different values.
        """
        return self._number(name, _WHOLE)

    def real(self, name: str) -> float | None:
        """Return a key's number; see `whole`."""
        found = self._number(name, (*_WHOLE, *_REAL))
        return None if found is None else float(found)

    def above(self, name: str, least: float) -> float | None:
        """Return a key's number, which must exceed `least`; see `whole`."""
        found = self.real(name)
        if found is not None and not found > least:
            raise self.unread(name, found, Message("it must be a number above {least:g}", least=least))
        return found

    def token(self, name: str) -> int | None:
        """Return the id of a special token by its name (bos, eos, padding, unknown), or None where the file names no such token."""
        found = self.whole(f"tokenizer.ggml.{name}_token_id")
        return None if found in _NO_TOKEN else found

    def typed(self, name: str, *types: GGUFValueType) -> Any:
        """Return a key's value of a type, or a list (ARRAY, then the type of its items); None if the key is missing.

        Raises:
            SourceError: the value is of another type.
        """
        held, key = self.value(name), self.key(name)
        if held is not None and self.reader.fields[key].types != [*types]:
            kind = " ".join(one.name for one in types)
            raise SourceError("{path}: {key} is {held!r}; expected a value of type {kind}", path=self.path, key=key, held=str(held)[:80],
                              kind=kind)  # fmt: skip
        return held

    def _number(self, name: str, kinds: tuple[GGUFValueType, ...]) -> Any:
        held, key = self.value(name), self.key(name)
        if held is None:
            return None
        several = held if isinstance(held, list) else [held]
        listed = isinstance(held, list) and (name not in _PER_LAYER or not held)
        if listed or self.reader.fields[key].types[-1] not in kinds or not all(map(math.isfinite, several)):
            raise SourceError("{path}: {key} is {held!r}; expected a number", path=self.path, key=key, held=str(held)[:80])
        if isinstance(held, list) and len(held) != (depth := self.whole("{arch}.block_count")):
            raise SourceError(
                "{path}: {key} has {count} numbers, but the model has {depth} blocks",
                path=self.path,
                key=key,
                count=len(held),
                depth=depth,
            )
        if len(set(several)) > 1:
            raise self.unread(key, held, Message("its layers differ and cannot be mixed"))
        return several[0]

    def unread(self, name: str, value: Any, reason: str) -> UnsupportedModelError:
        """Return the error that refuses a key, with its value and the reason."""
        return UnsupportedModelError(
            "{path}: {key} = {value} is not supported: {reason}", path=self.path, key=self.key(name), value=str(value)[:80], reason=reason
        )

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return a tensor's shape in torch's order, or None if there is no such tensor."""
        found = self.tensors.get(tensor)
        return None if found is None else tuple(reversed(found.shape.tolist()))


def _shortest(value: Any) -> Any:
    """Return the shortest decimal that equals a float32: 1e-05 for 9.999999747378752e-06."""
    return [_shortest(one) for one in value] if isinstance(value, list) else float(str(np.float32(value)))


def read_header(path: Path) -> GgufFile:
    """Read a GGUF file's header.

    Raises:
        SourceError: the file is broken, or part of a split file.
        UnsupportedModelError: the family is not supported.
    """
    try:
        reader = HeaderReader(path)
        architecture = reader.fields[Keys.General.ARCHITECTURE].contents()
        parts = reader.get_field(Keys.Split.LLM_KV_SPLIT_COUNT)
        count = parts.contents() if parts else 1
    except Exception as error:  # the reader raises arbitrary errors on broken bytes
        raise SourceError("{gguf} is truncated, corrupted or not a language model: {reason}", gguf=path, reason=reason_of(error)) from error
    row_of(FAMILIES.get(architecture, architecture))
    if architecture not in MODEL_ARCH_NAMES.values():
        raise UnsupportedModelError("the GGUF library has no names for the tensors of '{architecture}'", architecture=architecture)
    if isinstance(count, int) and count > 1:
        raise SourceError("{path} is one part of a split GGUF file; join the parts first (llama-gguf-split --merge)", path=path)
    if reader.endianess != GGUFEndian.LITTLE:
        raise UnsupportedModelError("{path} is big-endian (most significant byte first), which is not supported", path=path)
    return GgufFile(path, reader, architecture, {tensor.name: tensor for tensor in reader.tensors})
