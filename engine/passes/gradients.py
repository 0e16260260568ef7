"""Compute gradients of the projections' weights text by text. Each is passed on and freed at once, so that memory never holds a full set of
gradients.

`full` differentiates the whole plan's loss. `local` differentiates the norm of one block's output and needs little memory (Wanda++,
2503.04992).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.func import functional_call

from engine.jobs import Job, Progress
from engine.messages import Message
from engine.model_lock import check_cancelled
from engine.models.families import architecture_of, blocks_of
from engine.models.texts import Pack
from engine.passes.forward import state_of
from engine.passes.walk import Walk
from engine.plans.live import live_network
from engine.types import Block, Model, Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# called with a block's place, a weight's name in the block, and the gradient for one text
Take = Callable[[int, str, torch.Tensor], object]


def full(model: Model, plan: Plan, packs: Sequence[Pack], take: Take) -> Job[int]:
    """Pass to `take` the gradient of every text's mean loss (cross entropy of the next token, nats) with respect to each projection's
    weight of a plan, in the trimmed shapes and the stored layout; return the number of texts.

    Each gradient is freed after `take`, so memory holds the weights, the activations and one gradient.
    """
    network, row = live_network(model, plan), architecture_of(model.config)
    texts = [row_ids for pack in packs for row_ids in _rows(pack)]
    with torch.enable_grad():
        for place, block in enumerate(blocks_of(network)):
            for name in row.projections:
                weight = block.get_parameter(f"{name}.weight").requires_grad_(True)
                weight.register_post_accumulate_grad_hook(_shown(take, place, f"{name}.weight"))
    for number, ids in enumerate(texts):
        yield Progress(Message("Gradients, text by text"), number / len(texts))
        with model.lock:
            _backward(network, ids.to(model.source.device))
    return len(texts)


def _shown(take: Take, place: int, name: str) -> Callable[[torch.Tensor], None]:
    def hook(parameter: torch.Tensor) -> None:
        check_cancelled()
        assert parameter.grad is not None
        take(place, name, parameter.grad)
        parameter.grad = None

    return hook


@torch.enable_grad()
def _backward(network: "PreTrainedModel", ids: torch.Tensor) -> None:
    network(input_ids=ids, labels=ids, use_cache=False).loss.backward()


def _rows(pack: Pack) -> Iterator[torch.Tensor]:
    for _, start, stop in pack.spans:
        if stop - start > 1:
            yield pack.ids[:, start:stop]


def local(walk: Walk, block: Block, place: int, take: Take) -> Job[int]:
    """Pass to `take` the gradients of the norm of a block's output over each pack, ||block(x)||; return the number of packs."""
    cutter, layer = walk.mixer.cutter, blocks_of(walk.model.network)[block.home]
    for number, opening in enumerate(walk.openings):
        yield Progress(Message("Layer {home}: gradients", home=block.home), number / len(walk.openings))
        with walk.model.lock:
            names = [f"{name}.weight" for name in cutter.row.projections]
            found = _local_backward(layer, walk.mixer.overrides(block), names, walk.states[number], opening.calls[block.home])
        for name, gradient in zip(names, found, strict=True):
            take(place, name, cutter.cut(name, gradient, block.trim))
    return len(walk.openings)


@torch.enable_grad()
def _local_backward(layer: Any, overrides: dict[str, torch.Tensor], names: list[str], state: torch.Tensor, call: Any) -> Any:
    weights = {name: overrides.get(name, layer.get_parameter(name)).detach().requires_grad_(True) for name in names}
    args, kwargs = call
    output = state_of(functional_call(layer, {**overrides, **weights}, (state.detach(), *args), kwargs))
    return torch.autograd.grad(output.float().norm(), list(weights.values()))
