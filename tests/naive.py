"""LaCo as its authors published it, transcribed naively: deep copies, one sentence at a time, two full forward passes per trial."""

import copy
from typing import Any

import torch

from engine.models.families import architecture_of, blocks_of


def token_ids(tokenizer: Any, texts: tuple[str, ...]) -> list[torch.Tensor]:
    """Return each text's token ids, [1, tokens]."""
    return [torch.tensor([tokenizer(text)["input_ids"]]) for text in texts]


def remove(network: Any, gone: list[int]) -> None:
    """Take blocks out of a network; config and layer indices follow, so that it runs as it should."""
    blocks = blocks_of(network)
    for index in sorted(gone, reverse=True):
        del blocks[index]
    types = getattr(network.config, "layer_types", None)
    if types:
        network.config.layer_types = [kind for index, kind in enumerate(types) if index not in gone]
    setattr(network.config, architecture_of(network.config).depth_key, len(blocks))
    for index, block in enumerate(blocks):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index


def merge(network: Any, base: int, absorbed: int, rule: str) -> Any:
    """Return a deep copy in which `absorbed` blocks above `base` are folded into it."""
    result = copy.deepcopy(network)
    blocks, row = blocks_of(result), architecture_of(result.config)
    group = [blocks[base + offset] for offset in range(absorbed + 1)]
    survivor = {"keep-last": base + absorbed}.get(rule, base)
    with torch.no_grad():
        for name in row.projections if rule in ("reference", "paper", "mean") else ():
            for kind in ("weight", "bias"):
                tensors = [getattr(block.get_submodule(name), kind, None) for block in group]
                if tensors[0] is None:
                    continue
                base_value = tensors[0].clone()
                if rule == "reference":  # the published loop, which overwrites as it goes
                    for tensor in tensors[1:]:
                        tensors[0].add_(tensor - tensors[0])
                elif rule == "paper":
                    tensors[0].add_(sum(tensor - base_value for tensor in tensors[1:]))
                else:
                    tensors[0].copy_(sum(tensors) / len(tensors))
    remove(result, [base + offset for offset in range(absorbed + 1) if base + offset != survivor])
    return result


@torch.no_grad()
def last_states(network: Any, sentences: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return each sentence's last hidden states as Hugging Face gives them: after the final norm."""
    return [network(ids, output_hidden_states=True).hidden_states[-1] for ids in sentences]


def cosines(source: list[torch.Tensor], candidate: list[torch.Tensor], per_token: bool = False) -> list[float]:
    """Return, a sentence each, the cosine of two models' last hidden states."""
    if per_token:
        return [torch.cosine_similarity(a, b, dim=-1).mean().item() for a, b in zip(source, candidate, strict=True)]
    return [torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item() for a, b in zip(source, candidate, strict=True)]


def layer_collapse(
    network: Any,
    tokenizer: Any,
    texts: tuple[str, ...],
    C: int,
    I: int,
    T: float,
    lowest: int,
    highest: int,
    rule: str,
    per_token: bool = False,
) -> tuple[list[tuple[int, int, float, bool, int]], Any]:
    """Return the trials (pointer, absorbed, similarity, accepted, depth after) and the model they end with."""
    sentences = token_ids(tokenizer, texts)
    current, trials, pointer = network, [], highest - C
    while pointer >= lowest:
        absorbed = min(C - 1, len(blocks_of(current)) - pointer - 1)
        candidate = merge(current, pointer, absorbed, rule)
        values = cosines(last_states(network, sentences), last_states(candidate, sentences), per_token)
        accepted = sum(values) / len(values) > T
        if accepted:
            current = candidate
        trials.append((pointer, absorbed, sum(values) / len(values), accepted, len(blocks_of(current))))
        pointer -= I if accepted else 1
    return trials, current
