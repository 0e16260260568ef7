"""A GGUF file's header: its metadata by key, and its tensors by name. Nothing of a tensor is read before somebody asks for its numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFEndian, GGUFReader, GGUFValueType, Keys, ReaderTensor

from engine.errors import SourceError, UnsupportedModelError, reason_of
from engine.models.families import row_of

FAMILIES = {"gemma3": "gemma3_text"}  # transformers' names, where they are not GGUF's
_WHOLE = (
    GGUFValueType.UINT8, GGUFValueType.INT8, GGUFValueType.UINT16, GGUFValueType.INT16, GGUFValueType.UINT32, GGUFValueType.INT32,
    GGUFValueType.UINT64, GGUFValueType.INT64,
)  # fmt: skip
_REAL = (GGUFValueType.FLOAT32, GGUFValueType.FLOAT64)


class Reader(GGUFReader):
    """The library's reader over a plain view of the mapped file: numpy makes slices of a memmap itself several times slower."""

    @property  # type: ignore[override]  # the library declares the memmap
    def data(self) -> np.ndarray:
        return self._bytes

    @data.setter
    def data(self, mapped: np.ndarray) -> None:
        self._bytes = mapped.view(np.ndarray)

    def _get(self, offset: Any, *args: Any, **options: Any) -> Any:
        """Read past no end: the library reads nothing there, as often as a spoilt count says."""
        if offset >= len(self._bytes):
            raise ValueError("it ends before its header does")
        return super()._get(offset, *args, **options)


@dataclass(frozen=True)
class GgufFile:
    """The header of a file whose family is supported. `tensors` are the library's, by name."""

    path: Path
    reader: GGUFReader
    architecture: str
    tensors: dict[str, ReaderTensor]

    @property
    def arch(self) -> MODEL_ARCH:
        """The library's own number of the architecture."""
        return next(number for number, name in MODEL_ARCH_NAMES.items() if name == self.architecture)

    def key(self, name: str) -> str:
        """Return the whole of a key, `{arch}` filled in."""
        return name.replace("{arch}", self.architecture)

    def value(self, name: str) -> Any:
        """Return what a key holds: a float in the fewest digits that say it, None where there is no such key."""
        field = self.reader.get_field(self.key(name))
        if field is None:
            return None
        held = field.contents()
        return _shortest(held) if field.types[-1] == GGUFValueType.FLOAT32 else held

    def whole(self, name: str) -> int | None:
        """Return the whole number that a key holds, for every layer the same; None where there is no such key.

        Raises:
            SourceError: it is no number. UnsupportedModelError: layers differ in it.
        """
        return self._number(name, _WHOLE)

    def real(self, name: str) -> float | None:
        """Return the number that a key holds; see `whole`."""
        return self._number(name, (*_WHOLE, *_REAL))

    def _number(self, name: str, kinds: tuple[GGUFValueType, ...]) -> Any:
        held, key = self.value(name), self.key(name)
        if held is None:
            return None
        if self.reader.fields[key].types[-1] not in kinds or held == []:
            raise SourceError(f"{self.path}: {key} is {str(held)[:80]!r}, and a number belongs there")
        several = held if isinstance(held, list) else [held]
        if len(set(several)) > 1:
            raise self.unread(key, held, "its layers are not alike, and cannot be mixed")
        return several[0]

    def unread(self, name: str, value: Any, reason: str) -> UnsupportedModelError:
        """Return the refusal of a key for a reason, with its value."""
        return UnsupportedModelError(f"{self.path}: {self.key(name)} = {str(value)[:80]} is not read here: {reason}")

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return a tensor's shape as torch says it, None where there is none of the name."""
        found = self.tensors.get(tensor)
        return None if found is None else tuple(reversed(found.shape.tolist()))


def _shortest(value: Any) -> Any:
    """Return the float of the fewest digits that a float32 is: 1e-05 for 9.999999747378752e-06."""
    return [_shortest(one) for one in value] if isinstance(value, list) else float(str(np.float32(value)))


def read_header(path: Path) -> GgufFile:
    """Read a GGUF file's header.

    Raises:
        SourceError: it is broken, or one part of several. UnsupportedModelError: its family cannot be folded.
    """
    try:
        reader = Reader(path)
        architecture = reader.fields[Keys.General.ARCHITECTURE].contents()
        parts = reader.get_field(Keys.Split.LLM_KV_SPLIT_COUNT)
        count = parts.contents() if parts else 1
    except Exception as error:  # the reader raises whatever the broken bytes lead it to
        raise SourceError(f"{path} is truncated, corrupted or not a language model: {reason_of(error)}") from error
    row_of(FAMILIES.get(architecture, architecture))
    if architecture not in MODEL_ARCH_NAMES.values():
        raise UnsupportedModelError(f"the GGUF library has no names for the tensors of '{architecture}'")
    if isinstance(count, int) and count > 1:
        raise SourceError(f"{path} is one part of a split GGUF file; join the parts first (llama-gguf-split --merge)")
    if reader.endianess != GGUFEndian.LITTLE:
        raise UnsupportedModelError(f"{path} holds its numbers most significant byte first, which is not read here")
    return GgufFile(path, reader, architecture, {tensor.name: tensor for tensor in reader.tensors})
