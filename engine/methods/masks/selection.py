"""Select the weights to prune from their scores: the lowest of a row, of a matrix, of the model, or of every m in a row."""

import re
from dataclasses import dataclass

import numpy as np
import torch

from engine.errors import SettingsError
from engine.methods.masks.settings import GROUPS


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many weights to prune: a share, or `n` of every `m` in a row if `m` is not 0; and which compete: the weights of one `output` (a
    row), of one projection (`layer`), or of all projections of the model (`global`)."""

    sparsity: float
    n: int = 0
    m: int = 0
    group: str = "output"


def wanted(sparsity: float | None, pattern: str | None, group: str) -> Wanted:
    """Parse a share in [0, 1), or a pattern such as 2:4, which prunes 2 of every 4.

    Raises:
        SettingsError: neither or both are given, or a value is invalid.
    """
    if group not in GROUPS:
        raise SettingsError("unknown group '{group}'; choose one of {choices}", group=group, choices=", ".join(GROUPS))
    if (sparsity is None) == (not pattern):
        raise SettingsError("name either a sparsity such as 0.5 or a pattern such as 2:4")
    if sparsity is not None:
        if not 0 <= sparsity < 1:
            raise SettingsError("the sparsity is {sparsity:g}; it must be at least 0 and below 1", sparsity=sparsity)
        return Wanted(sparsity, group=group)
    found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", pattern or "")
    n, m = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < n < m:
        raise SettingsError("'{pattern}' is not a valid pattern; write one such as 2:4, which prunes 2 of every 4 weights", pattern=pattern)
    return Wanted(n / m, n, m, group)


def chosen(scores: torch.Tensor, want: Wanted) -> torch.Tensor:
    """Return the weights to prune (bool, in the scores' shape [out, in]): those with the lowest scores, the first of equal ones.

    A row loses int(in * sparsity) weights, a matrix int(out * in * sparsity).

    Raises:
        SettingsError: the pattern does not divide the row.
    """
    rows, columns = scores.shape
    if want.m:
        if columns % want.m:
            raise SettingsError("the pattern {n}:{m} does not divide a projection's {columns} inputs", n=want.n, m=want.m, columns=columns)
        return lowest(scores.reshape(-1, want.m), want.n).reshape(rows, columns)
    if want.group == "output":
        return lowest(scores, int(columns * want.sparsity))
    return lowest(scores.reshape(1, -1), int(rows * columns * want.sparsity)).reshape(rows, columns)


def lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Return a bool tensor that marks the `count` lowest of each row of a matrix; of equal ones the first, as in a stable sort.

    It uses a partition, which is several times faster than a sort.
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    values = scores.cpu().numpy()
    limit = np.partition(values, count - 1, axis=1)[:, count - 1 : count]
    cut = values < limit
    equal = values == limit
    room = count - cut.sum(1)
    tied = equal.sum(1) > room
    cut |= equal & ~tied[:, None]
    if tied.any():
        some = equal[tied]
        cut[tied] |= some & (some.cumsum(1) <= room[tied][:, None])
    return torch.from_numpy(cut).to(scores.device)
