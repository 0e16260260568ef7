"""Wanda, GBLM, magnitude and SparseGPT transcribed naively: float64, one text at a time, a hook on every Linear, sorts.

Both conventions follow the published, maintained code. Statistics inside a block are those before it is pruned, on inputs from the pruned
blocks before it. SparseGPT's threshold is "at or below the sorted score of number int(numel * sparsity)", so each block of 128 columns
loses one weight more than that.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.models.families import blocks_of

Prune = Callable[[torch.Tensor, list[torch.Tensor], torch.Tensor | None], torch.Tensor]  # weight, inputs of each text, gradient


def projections(block: Any) -> dict[str, Any]:
    """The Linear and Conv1D modules of a block."""
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def canonical(module: Any) -> torch.Tensor:
    """A module's weight as [out, in]."""
    return module.weight.detach().T.clone() if isinstance(module, Conv1D) else module.weight.detach().clone()


def pruned(network: Any, texts: list[torch.Tensor], prune: Prune, gradients: dict[str, torch.Tensor] | None = None) -> Any:
    """A float64 copy of a network, pruned block by block by `prune`, which is given each projection and returns its new weight."""
    network = copy.deepcopy(network).double()
    for index, block in enumerate(blocks_of(network)):
        read: dict[str, list[torch.Tensor]] = {name: [] for name in projections(block)}
        hooks = [
            module.register_forward_hook(lambda _m, args, _o, inputs=inputs: inputs.append(args[0].detach()[0].double()))
            for module, inputs in zip(projections(block).values(), read.values(), strict=True)
        ]
        with torch.no_grad():
            for ids in texts:  # whole forward passes: the blocks before are pruned by now
                network(input_ids=ids, use_cache=False)
        for hook in hooks:
            hook.remove()
        for name, module in projections(block).items():
            gradient = None if gradients is None else gradients[f"{index}.{name}"]
            weight = prune(canonical(module), read[name], gradient)
            module.weight.data = weight.T if isinstance(module, Conv1D) else weight
    return network


def loss_gradients(network: Any, texts: list[torch.Tensor], norm: str) -> dict[str, torch.Tensor]:
    """The sum of |100 g| over the texts (l1), or the root of the sum of (100 g)^2 (l2), for each projection [out, in]."""
    network = copy.deepcopy(network).double()
    found: dict[str, torch.Tensor] = {}
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    for ids in texts:
        network.zero_grad()
        network(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        for index, block in enumerate(blocks_of(network)):
            for name, module in projections(block).items():
                gradient = module.weight.grad.T if isinstance(module, Conv1D) else module.weight.grad
                size = (100 * gradient).abs() if norm == "l1" else (100 * gradient).square()
                found[f"{index}.{name}"] = found.get(f"{index}.{name}", 0) + size
    return found if norm == "l1" else {name: total.sqrt() for name, total in found.items()}


def wanda_norm(inputs: list[torch.Tensor]) -> torch.Tensor:
    """sqrt of the running mean over texts of the sum over tokens of x^2."""
    running = torch.zeros(inputs[0].shape[1], dtype=torch.float64)
    for number, x in enumerate(inputs):
        running = running * number / (number + 1) + x.norm(dim=0) ** 2 / (number + 1)
    return running.sqrt()


def cut(scores: torch.Tensor, sparsity: float, n: int = 0, m: int = 0) -> torch.Tensor:
    """Which weights go: the lowest of each row by a stable sort, or the n lowest of every m columns."""
    gone = torch.zeros_like(scores, dtype=torch.bool)
    if m:
        for start in range(0, scores.shape[1], m):
            order = scores[:, start : start + m].sort(dim=1, stable=True).indices[:, :n]
            gone.scatter_(1, start + order, True)
        return gone
    return gone.scatter_(1, scores.sort(dim=1, stable=True).indices[:, : int(scores.shape[1] * sparsity)], True)


def sparsegpt(
    weight: torch.Tensor, inputs: list[torch.Tensor], sparsity: float, n: int = 0, m: int = 0, damping: float = 0.01
) -> torch.Tensor:
    """The new weight, a column at a time over all the columns after it."""
    hessian = sum(2.0 / len(inputs) * x.T @ x for x in inputs)
    assert isinstance(hessian, torch.Tensor)
    dead = hessian.diagonal() == 0
    hessian[dead, dead] = 1.0
    weight = weight.clone()
    weight[:, dead] = 0.0
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    gone = torch.zeros_like(weight, dtype=torch.bool)
    for column in range(weight.shape[1]):
        if m and column % m == 0:
            few = slice(column, column + m)
            scores = weight[:, few] ** 2 / upper.diagonal()[few] ** 2
            gone[:, few] = cut(scores, 0, n, m)
        elif not m and column % 128 == 0:
            few = slice(column, min(column + 128, weight.shape[1]))
            scores = weight[:, few] ** 2 / upper.diagonal()[few] ** 2
            gone[:, few] = scores <= scores.flatten().sort().values[int(scores.numel() * sparsity)]
        error = torch.where(gone[:, column], weight[:, column], 0.0) / upper[column, column]
        weight[:, column:] -= error[:, None] * upper[column, column:]
        weight[gone[:, column], column] = 0.0
    return weight
