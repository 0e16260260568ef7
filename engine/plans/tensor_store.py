"""Tensors that a plan cannot recompute from its source, stored on disk by fingerprint.

They are the maps of repairs, refitted projections, masks, and the weights that SparseGPT changed.
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
_fresh: OrderedDict[str, torch.Tensor] = OrderedDict()  # the last few new tensors, in memory until they are kept


_scratch: ContextVar[Path | None] = ContextVar("scratch", default=None)


@contextmanager
def for_now() -> Iterator[None]:
    """Store this thread's tensors in a temporary folder during the block: for plans that are only measured."""
    cache_folder().mkdir(parents=True, exist_ok=True)  # the cache has room; /tmp may be in memory
    with making(cache_folder(), "for-now-") as folder:
        token = _scratch.set(folder)
        try:
            yield
        finally:
            _scratch.reset(token)


def name_tensor(tensor: torch.Tensor) -> str:
    """Return a tensor's fingerprint, which names it in plans, and hold the tensor in memory for a while; see `keep_tensor`.

    The fingerprint is the SHA-256 over shape and bytes, and over the dtype unless it is float32. Float64 is stored as float32.
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
    """Write a tensor named by `name_tensor` to disk; return its fingerprint."""
    _write(mark, tensor_file(mark))
    return mark


def keep_longer(marks: Iterable[str]) -> None:
    """Keep tensors stored during `for_now` after it ends.

    Raises:
        PlanError: a tensor is missing.
    """
    for mark in marks:
        _write(mark, _lasting_file(mark))


def tensor_file(mark: str) -> Path:
    """Return the path of a fingerprint's tensor, whether or not it exists."""
    kept, folder = _lasting_file(mark), _scratch.get()
    return kept if folder is None or kept.is_file() else folder / f"{mark}.safetensors"


def _lasting_file(mark: str) -> Path:
    before = cache_folder() / "repairs" / f"{mark}.safetensors"  # the folder of older versions, which stored only the maps of repairs
    return before if before.is_file() else cache_folder() / "tensors" / f"{mark}.safetensors"


def _write(mark: str, path: Path) -> None:
    with suppress(PlanError):  # a broken file is replaced
        _read(path)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file({"tensor": tensor_of(mark)}, temporary)
    except (OSError, SafetensorError) as error:
        raise PlanError(
            "{path} cannot be written: {reason}; make room, or set LAYERSCOPE_CACHE to another folder", path=path, reason=reason_of(error)
        ) from error


def tensor_of(mark: str) -> torch.Tensor:
    """Return the tensor of a fingerprint.

    Raises:
        PlanError: the tensor is not on this machine, or its file is broken.
    """
    fresh = _fresh.get(mark)
    return _read(tensor_file(mark)) if fresh is None else fresh


@functools.lru_cache(maxsize=_READ)
def _read(path: Path) -> torch.Tensor:
    try:
        require_regular(path)
        (tensor,) = load_file(path).values()
        if _mark(tensor) != path.stem:
            raise ForeignError("its content has changed since it was written")
    except (OSError, ValueError, KeyError, SafetensorError) as error:  # KeyError: a dtype that torch lacks
        raise PlanError(
            "the tensor {stem} of this plan is not on this machine; copy the plan's .tensors.safetensors next to its "
            "file, or create the plan again",
            stem=path.stem[:12],
        ) from error
    return tensor


def require_tensors(marks: Iterable[str]) -> None:
    """Raise PlanError if the tensor of a fingerprint is not on this machine; only file headers are read."""
    for mark in marks:
        if mark not in _fresh:
            try:
                require_regular(tensor_file(mark))
                with safe_open(tensor_file(mark), framework="pt") as opened:
                    opened.keys()
            except (OSError, ForeignError, SafetensorError):
                tensor_of(mark)  # raises PlanError


def pack_tensors(marks: Iterable[str], file: Path) -> None:
    """Write the tensors of these fingerprints into one safetensors file.

    Raises:
        PlanError: a tensor is not on this machine, or the file cannot be written.
    """
    try:
        with replacing(file) as temporary:
            save_file({mark: tensor_of(mark).contiguous() for mark in marks}, temporary)
    except (OSError, SafetensorError) as error:
        raise PlanError("the plan's tensors cannot be written to {file}: {error}", file=file, error=error) from error


def unpack_tensors(file: Path) -> None:
    """Store the tensors of a file written by `pack_tensors`; a missing file is ignored.

    Raises:
        PlanError: the file is broken, or a tensor does not match its fingerprint.
    """
    if not file.exists():
        return
    try:
        require_regular(file)
        found = load_file(file)
    except (OSError, ValueError, KeyError, SafetensorError) as error:  # KeyError: a dtype that torch lacks
        raise PlanError("the plan's tensors in {file} cannot be read: {error}", file=file, error=error) from error
    for mark, tensor in found.items():
        if name_tensor(tensor) != mark:
            raise PlanError("{file} contains a tensor with another fingerprint than its plan names", file=file)
        keep_tensor(mark)
