"""The devices torch can compute on, their free memory, and the dtypes they lack."""

import sys
from contextlib import suppress
from dataclasses import dataclass

import psutil
import torch

from engine.errors import SourceError, reason_of


@dataclass(frozen=True, slots=True)
class Device:
    """A device: torch's name for it, its product name, and its free and total memory in bytes."""

    name: str
    title: str
    free: int
    total: int


def device_names() -> tuple[str, ...]:
    """Return cpu, then every cuda:N, then mps where torch has it. This allocates no memory on any of them."""
    cuda = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    return ("cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else []))


def devices() -> tuple[Device, ...]:
    """Return every device with its memory, without GPUs that do not respond."""
    found = []
    for name in device_names():
        with suppress(SourceError):
            title = torch.cuda.get_device_name(name) if name.startswith("cuda") else ""
            found.append(Device(name, title, *_memory(name)))
    return tuple(found)


def free_bytes(name: str) -> int:
    """Return the free bytes of a device.

    Raises:
        SourceError: the device no longer responds.
    """
    return _memory(name)[0]


def peak_bytes(name: str) -> int:
    """Return this process's peak memory in bytes: allocated on a GPU, or resident in main memory."""
    if name.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(name))
    import resource  # missing on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def require_device(name: str) -> None:
    """Raise SourceError unless this machine has a device of this name; "cuda" alone means the current GPU."""
    known = device_names()
    if name not in known and not (name == "cuda" and "cuda:0" in known):
        raise SourceError("there is no device '{name}' on this machine; choose one of {choices}", name=name, choices=", ".join(known))


def require_dtype(name: str, dtype: str) -> None:
    """Raise SourceError, quoting torch, where a device does not support a dtype: mps has no float64, and bfloat16 only on newer systems."""
    try:
        torch.zeros(1, dtype=getattr(torch, dtype), device=name)
    except Exception as error:  # each backend raises its own errors
        raise SourceError(
            "{name} does not support {dtype} ({reason}); choose another number format or device",
            name=name,
            dtype=dtype,
            reason=reason_of(error),
        ) from error


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float64 on its own device, or on the CPU where the device has no float64 (mps)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def _memory(name: str) -> tuple[int, int]:
    """Return free and total bytes. An Apple GPU shares main memory and may use only part of it."""
    if name.startswith("cuda"):
        try:
            free, total = torch.cuda.mem_get_info(name)
        except Exception as error:  # drivers raise many kinds of errors
            raise SourceError("{name} does not answer ({reason}); choose another device", name=name, reason=reason_of(error)) from error
        return int(free), int(total)
    machine = psutil.virtual_memory()
    if name != "mps":
        return int(machine.available), int(machine.total)
    most = int(torch.mps.recommended_max_memory())
    return min(int(machine.available), most - int(torch.mps.driver_allocated_memory())), most
