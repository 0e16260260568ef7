"""Several processes learn as one: torchrun or `accelerate launch` starts them and says so in the environment; torch's FSDP2 shards what
is large over them. Alone, every function here does nothing, or what it says on plain tensors.

All processes take the same steps on rows of their own, and come to the same decisions: whatever hangs on a clock, a file or a free byte
is decided by the first of them (`agreed`). The first alone writes into the run's folder, but for checkpoints, of which each process
writes its shards.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from engine.errors import TrainingError, reason_of

T = TypeVar("T")
_PATIENCE = timedelta(days=1)  # the first judges and writes by itself while the others wait


def size() -> int:
    """Return how many processes learn together."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """Return which of them this is, from 0 on."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def first() -> bool:
    """Return whether this is the one that decides and writes."""
    return rank() == 0


def device_of(name: str) -> str:
    """Return the device of this process, where they were asked to learn on one: each has a GPU of its own."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if size() > 1 and name.startswith("cuda") else name


@contextmanager
def together() -> Iterator[None]:
    """Join the other processes, if there are any, and part from them; all but the first end with that.

    They end at once: gloo's threads may outlive their group, and an interpreter that takes its time to end is now and then aborted by
    one of them (torch 2.13), whereupon torchrun stops the first too."""
    if size() == 1:
        yield
        return
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    yield
    torch.distributed.destroy_process_group()
    if not first():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def wait() -> None:
    """Wait until all processes are here."""
    agreed(None)


def agreed(value: T) -> T:
    """Return what the first process says."""
    if size() == 1:
        return value
    said = [value]
    torch.distributed.broadcast_object_list(said, 0, device=torch.device("cpu"))
    return said[0]


@contextmanager
def turn() -> Iterator[None]:
    """Let the first process do something, then the first of every machine, then all others: what one has put on a disk the next finds."""
    before = 0 if first() else 1 if os.environ.get("LOCAL_RANK") == "0" else 2
    for _ in range(before):
        wait()
    yield
    for _ in range(2 - before):
        wait()


def mean(value: float) -> float:
    """Return the mean of a number over all processes."""
    if size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    torch.distributed.all_reduce(total)
    return float(total) / size()


def own(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of a batch that this process learns from."""
    return rows.chunk(size())[rank()]


class _Root(nn.Module):
    """What is sharded as one, but for the blocks, which are by themselves: whatever runs inside has all of it but the blocks whole."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()


def sharded(networks: Mapping[nn.Module, Iterable[nn.Module]], device: str) -> Callable[[Callable[[], Any]], Any]:
    """Shard networks over the processes, each of their blocks by itself; return what runs work on them. Their parameters are other
    objects afterwards."""
    from torch.distributed.fsdp import fully_shard

    mesh = torch.distributed.init_device_mesh(device.partition(":")[0], (size(),))
    for blocks in networks.values():
        for block in blocks:
            fully_shard(block, mesh=mesh)
    root = _Root(networks)
    fully_shard(root, mesh=mesh, reshard_after_forward=True)  # whole once nothing runs in it, it would be stale after the next step
    return root


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with the shards of all processes in it; all of them have to ask."""
    if size() == 1:
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a tensor sharded as another is."""
    if size() == 1:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(tensor, DTensor) or not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


def write_shards(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write each process's shards into a folder, which is there when all are; in safetensors, by torch.distributed.checkpoint.

    Raises:
        TrainingError: the disk is full, or the folder cannot be written to.
    """
    from torch.distributed import checkpoint

    aside = folder.with_name(f".{folder.name}")
    try:
        checkpoint.save(dict(tensors), storage_writer=checkpoint.HuggingFaceStorageWriter(str(aside), save_distributed=True))
    except (OSError, checkpoint.CheckpointException) as error:
        raise TrainingError(f"{folder} cannot be written: {reason_of(error)}; what was there before is kept") from error
    wait()
    if first():
        shutil.rmtree(folder, ignore_errors=True)  # the one that a run went on from, when it comes there again
        os.rename(aside, folder)


def read_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Read into tensors what was written of such, by as many processes or by another number of them, and return them."""
    from torch.distributed import checkpoint

    checkpoint.load(tensors, storage_reader=checkpoint.HuggingFaceStorageReader(str(folder)))
    return tensors
