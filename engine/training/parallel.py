"""Training in several processes: torchrun or `accelerate launch` starts them and sets the environment; torch's FSDP2 shards large tensors.
In a single process every function here does nothing, or works on plain tensors.

All processes take the same steps on separate rows and make the same decisions: everything that depends on a clock, a file or free memory is
decided by the first process (`agreed`). Only the first writes to the run's folder, except for checkpoints, of which each process writes its
shards.
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
_PATIENCE = timedelta(days=1)  # the others wait while the first evaluates and writes


def size() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """Return the rank of this process, starting at 0."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def first() -> bool:
    """Return whether this is the process that decides and writes."""
    return rank() == 0


def device_of(name: str) -> str:
    """Return this process's device: with several processes, each has its own GPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if size() > 1 and name.startswith("cuda") else name


@contextmanager
def together() -> Iterator[None]:
    """Join the other processes, if there are any, and leave them afterwards; all but the first then exit.

    They exit at once: gloo's threads may outlive their group, and now and then one of them aborts an interpreter that shuts down slowly
    (torch 2.13), after which torchrun also stops the first process.
    """
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
    """Wait until all processes reach this point."""
    agreed(None)


def agreed(value: T) -> T:
    """Return the first process's value."""
    if size() == 1:
        return value
    said = [value]
    torch.distributed.broadcast_object_list(said, 0, device=torch.device("cpu"))
    return said[0]


@contextmanager
def turn() -> Iterator[None]:
    """Run the block in the first process, then in the first of every machine, then in all others, so that later ones find files that
    earlier ones wrote."""
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
    """Return this process's rows of a batch."""
    return rows.chunk(size())[rank()]


class _Root(nn.Module):
    """The unit sharded as a whole, except for the blocks, which are sharded separately: during its forward everything but the blocks is
    unsharded."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()


def sharded(networks: Mapping[nn.Module, Iterable[nn.Module]], device: str) -> Callable[[Callable[[], Any]], Any]:
    """Shard networks over the processes, each block separately; return a function that runs work on them. Their parameters are new objects
    afterwards."""
    from torch.distributed.fsdp import fully_shard

    mesh = torch.distributed.init_device_mesh(device.partition(":")[0], (size(),))
    for blocks in networks.values():
        for block in blocks:
            fully_shard(block, mesh=mesh)
    root = _Root(networks)
    fully_shard(root, mesh=mesh, reshard_after_forward=True)  # otherwise its unsharded weights would stay, and be stale after the next step
    return root


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return the unsharded tensor; all processes must call this."""
    if size() == 1:
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a tensor sharded like another one."""
    if size() == 1:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(tensor, DTensor) or not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


def write_shards(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write each process's shards into a folder, which exists once all are written; as safetensors, by torch.distributed.checkpoint.

    Raises:
        TrainingError: the disk is full, or the folder cannot be written to.
    """
    from torch.distributed import checkpoint

    aside = folder.with_name(f".{folder.name}")
    try:
        checkpoint.save(dict(tensors), storage_writer=checkpoint.HuggingFaceStorageWriter(str(aside), save_distributed=True))
    except (OSError, checkpoint.CheckpointException) as error:
        raise TrainingError(
            "{file} cannot be written: {reason}; the previous file is kept", file=folder, reason=reason_of(error)
        ) from error
    wait()
    if first():
        shutil.rmtree(folder, ignore_errors=True)  # the checkpoint a run was resumed from, when it reaches that step again
        os.rename(aside, folder)


def read_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Read saved shards into tensors and return them; the number of processes may have changed."""
    from torch.distributed import checkpoint

    checkpoint.load(tensors, storage_reader=checkpoint.HuggingFaceStorageReader(str(folder)))
    return tensors
