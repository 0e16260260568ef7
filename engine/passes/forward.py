"""The only forward passes: one recorded pass over the source, and passes over plans that resume from it.

LaCo's pointer only moves down, so every layer below it is still the source's. The recorded pass keeps the input of each source layer; a
plan then costs only its blocks from the first changed one up, and the model is never copied.
"""

import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.func import functional_call

from engine.errors import SourceError
from engine.model_lock import check_cancelled
from engine.models.families import blocks_of, final_norm_of
from engine.models.texts import Pack
from engine.plans.surgery import Mixer
from engine.types import Block, Model


@dataclass(frozen=True, eq=False, slots=True)
class Capture:
    """The record of one source pass over a pack.

    `states[i]` [1, tokens, hidden] is the raw residual stream that enters layer i, `states[depth]` the output of the last layer. `calls[i]`
    are the other arguments of layer i (positions, masks by its type); `final` is the last state after the final norm.
    """

    pack: Pack
    states: tuple[torch.Tensor, ...]
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    final: torch.Tensor


class Called(Protocol):
    """A record with the blocks' arguments over a pack: a Capture or BlockInputs."""

    @property
    def calls(self) -> tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]:
        """The arguments of each layer except the state."""


def state_of(output: Any) -> torch.Tensor:
    """Return the hidden state of a layer's output; some families wrap it in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def work_of_pass(model: Model, tokens: int) -> float:
    """Return the work of one pass over the source in parameters times tokens; multiplied by the model's pace it is seconds."""
    return tokens * sum(model.spec.block_parameters)


@torch.no_grad()
def capture(model: Model, pack: Pack) -> Capture:
    """Run the source once over a pack and record the input of each layer; the time it takes is added to the model's paces.

    Raises:
        SourceError: the model's own states are not finite.
    """
    states: list[torch.Tensor] = []
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    last: list[torch.Tensor] = []

    def entering(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check_cancelled()
        rest = dict(kwargs)
        states.append(args[0] if args else rest.pop("hidden_states"))
        calls.append((args[1:], rest))

    layers, norm = blocks_of(model.network), final_norm_of(model.network)
    hooks = [layer.register_forward_pre_hook(entering, with_kwargs=True) for layer in layers]
    hooks.append(layers[-1].register_forward_hook(lambda _m, _a, output: last.append(state_of(output))))
    try:
        body = model.network.base_model
        device = model.source.device
        began = time.perf_counter()
        final = body(input_ids=pack.ids.to(device), position_ids=pack.positions.to(device), use_cache=False).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    if not torch.isfinite(last[0]).all():
        raise SourceError("the model's hidden states are not finite in {dtype}; try float32 or bfloat16", dtype=model.spec.dtype)
    model.paces.append((time.perf_counter() - began) / work_of_pass(model, pack.ids.shape[1]))
    assert torch.equal(norm(last[0]), final), "the final norm of the architecture table is not the network's last step"
    return Capture(pack, (*states, last[0]), tuple(calls), final)


class Trails:
    """A cache of states along recent plans, so that plans with the same leading blocks share that work, with identical bits.

    In a T map most candidates fold the same layers at the bottom and differ only further up. The cache holds at most `budget` bytes; the
    least recently used states are evicted first.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._states: OrderedDict[tuple[int, tuple[Block, ...]], torch.Tensor] = OrderedDict()
        self._bytes = 0

    def longest(self, record: Capture, blocks: tuple[Block, ...], start: int, state: torch.Tensor) -> tuple[int, torch.Tensor]:
        """Return how many leading blocks need not be run, and the state after them; at least `start` and its `state`."""
        while start < len(blocks) and (key := (id(record), blocks[: start + 1])) in self._states:
            self._states.move_to_end(key)
            start, state = start + 1, self._states[key]
        return start, state

    def leave(self, record: Capture, leading: tuple[Block, ...], state: torch.Tensor) -> None:
        """Cache the state after these leading blocks."""
        key = (id(record), leading)
        if (old := self._states.pop(key, None)) is not None:
            self._bytes -= old.nbytes
        self._states[key] = state
        self._bytes += state.nbytes
        while self._bytes > self._budget:
            _, oldest = self._states.popitem(last=False)
            self._bytes -= oldest.nbytes


@torch.no_grad()
def run_block(model: Model, mixer: Mixer, block: Block, state: torch.Tensor, record: Called) -> torch.Tensor:
    """Run one block of a plan on a state [1, tokens, hidden], with its home's norms, type and mask."""
    check_cancelled()  # a whole pass over a large model would delay a cancel too long
    layer, (args, kwargs) = blocks_of(model.network)[block.home], record.calls[block.home]
    overrides = mixer.overrides(block)
    if not overrides:
        return state_of(layer(state, *args, **kwargs))
    return state_of(functional_call(layer, overrides, (state, *args), kwargs))


@torch.no_grad()
def resume(
    model: Model, mixer: Mixer, record: Capture, blocks: tuple[Block, ...], prefix: int, trails: Trails | None = None
) -> torch.Tensor:
    """Return the raw last state of the plan with these blocks, of which the first `prefix` are the source's own.

    It starts from the recorded input of source layer `prefix`, or from the longest cached trail of a plan with the same leading blocks.
    """
    start, state = prefix, mixer.cutter.silenced(record.states[prefix], blocks[0].trim if blocks else None)
    if trails is not None:
        start, state = trails.longest(record, blocks, prefix, state)
    for place in range(start, len(blocks)):
        state = run_block(model, mixer, blocks[place], state, record)
        if trails is not None:
            trails.leave(record, blocks[: place + 1], state)
    return state


@torch.no_grad()
def normed(model: Model, state: torch.Tensor, blocks: tuple[Block, ...] = ()) -> torch.Tensor:
    """Return the last state of the plan with these blocks after the final norm."""
    final = final_norm_of(model.network)(state)
    trim = blocks[0].trim if blocks else None
    if trim is None or not trim.plain or trim.channels is None:
        return final
    return final * math.sqrt(len(trim.channels) / state.shape[-1])  # the masked form of a norm with unchanged gains


@torch.no_grad()
def logits_of(model: Model, final: torch.Tensor) -> torch.Tensor:
    """Return next-token logits [..., vocabulary] of a final state that has passed the final norm."""
    logits = model.network.get_output_embeddings()(final)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
