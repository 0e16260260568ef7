"""What a plan cannot compute again from its source: tensors, kept beside it on the disk and named by their fingerprints.

The map of a repair, a projection that was solved again, which weights a mask leaves, the weights that SparseGPT wrote.
"""

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from engine.atomic import making, replacing
from engine.cache import cache_folder
from engine.errors import PlanError, reason_of
from engine.untrusted import ForeignError, require_regular

_FRESH = 16
_READ = 16
_fresh: OrderedDict[str, torch.Tensor] = OrderedDict()  # tensors that were made and may yet be thrown away; the last few


_scratch: ContextVar[Path | None] = ContextVar("scratch", default=None)


@contextmanager
def for_now() -> Iterator[None]:
    """Keep what this thread keeps meanwhile in a folder that goes in the end: for plans that are only measured."""
    cache_folder().mkdir(parents=True, exist_ok=True)  # there is room; /tmp may lie in memory
    with making(cache_folder(), "for-now-") as folder:
        token = _scratch.set(folder)
        try:
            yield
        finally:
            _scratch.reset(token)


def name_tensor(tensor: torch.Tensor) -> str:
    """Return the fingerprint of a tensor, by which a plan names it, and remember the tensor for a while; see `keep_tensor`.

    It is the SHA-256 over shape and bytes, and over the dtype where that is not float32. Float64 is kept as float32.
    """
    tensor = tensor.detach().cpu()
    tensor = (tensor.to(torch.float32) if tensor.dtype == torch.float64 else tensor).contiguous()
    mark = _mark(tensor)
    _fresh[mark] = tensor
    while len(_fresh) > _FRESH:
        _fresh.popitem(last=False)
    return mark


def _mark(tensor: torch.Tensor) -> str:
    kind = "" if tensor.dtype == torch.float32 else str(tensor.dtype)
    return hashlib.sha256(f"{kind}{tuple(tensor.shape)}".encode() + tensor.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def keep_tensor(mark: str) -> str:
    """Write a tensor that `name_tensor` has named to the disk, to stay; return its name."""
    _write(mark, tensor_file(mark))
    return mark


def keep_longer(marks: Iterable[str]) -> None:
    """Keep tensors that were kept `for_now` beyond it.

    Raises:
        PlanError: one of them is gone.
    """
    for mark in marks:
        _write(mark, _lasting_file(mark))


def tensor_file(mark: str) -> Path:
    """Return where the tensor of a fingerprint is kept, or would be."""
    kept, folder = _lasting_file(mark), _scratch.get()
    return kept if folder is None or kept.is_file() else folder / f"{mark}.safetensors"


def _lasting_file(mark: str) -> Path:
    before = cache_folder() / "repairs" / f"{mark}.safetensors"  # where repairs' maps lay when there was nothing else
    return before if before.is_file() else cache_folder() / "tensors" / f"{mark}.safetensors"


def _write(mark: str, path: Path) -> None:
    with suppress(PlanError):  # what is there and not the tensor gives way to it
        _read(path)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            save_file({"tensor": tensor_of(mark)}, beside)
    except (OSError, SafetensorError) as error:
        raise PlanError(f"{path} cannot be written: {reason_of(error)}; make room, or set LAYERSCOPE_CACHE to another folder") from error


def tensor_of(mark: str) -> torch.Tensor:
    """Return the tensor of a fingerprint.

    Raises:
        PlanError: it is not kept on this machine, or its file is broken.
    """
    fresh = _fresh.get(mark)
    return _read(tensor_file(mark)) if fresh is None else fresh


@functools.lru_cache(maxsize=_READ)
def _read(path: Path) -> torch.Tensor:
    try:
        require_regular(path)
        (tensor,) = load_file(path).values()
        if _mark(tensor) != path.stem:
            raise ForeignError("it is not as it was written")
    except (OSError, ValueError, KeyError, SafetensorError) as error:  # KeyError: a type of numbers that torch has not
        raise PlanError(
            f"the tensor {path.stem[:12]} of this plan is not on this machine; "
            "bring the plan's .tensors.safetensors with its file, or make the plan again"
        ) from error
    return tensor


def require_tensors(marks: Iterable[str]) -> None:
    """Raise PlanError where a tensor of these fingerprints is not kept on this machine; only the files' headers are read."""
    for mark in marks:
        if mark not in _fresh:
            try:
                require_regular(tensor_file(mark))
                with safe_open(tensor_file(mark), framework="pt") as opened:
                    opened.keys()
            except (OSError, ForeignError, SafetensorError):
                tensor_of(mark)  # which says so


def pack_tensors(marks: Iterable[str], file: Path) -> None:
    """Write the tensors of these fingerprints into one safetensors file.

    Raises:
        PlanError: one is not known here, or the file cannot be written.
    """
    try:
        with replacing(file) as beside:
            save_file({mark: tensor_of(mark).contiguous() for mark in marks}, beside)
    except (OSError, SafetensorError) as error:
        raise PlanError(f"the plan's tensors cannot be written to {file}: {error}") from error


def unpack_tensors(file: Path) -> None:
    """Keep the tensors of a file that `pack_tensors` wrote; a file that is not there holds none.

    Raises:
        PlanError: the file is broken, or a tensor in it is not the one its name says.
    """
    if not file.exists():
        return
    try:
        require_regular(file)
        found = load_file(file)
    except (OSError, ValueError, KeyError, SafetensorError) as error:  # KeyError: a type of numbers that torch has not
        raise PlanError(f"{file} holds the plan's tensors and cannot be read: {error}") from error
    for mark, tensor in found.items():
        if name_tensor(tensor) != mark:
            raise PlanError(f"{file} holds a tensor that is not the one its plan names")
        keep_tensor(mark)
