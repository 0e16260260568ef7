"""The only forward passes: one over the source that leaves a record, and many that resume from it.

LaCo's pointer only moves down, so every layer below it is still the source's. What entered each source layer is kept;
a plan then costs only its blocks from the first changed one upwards, and no model is ever copied.
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
    """What one pass of the source over a pack left behind.

    `states[i]` [1, tokens, hidden] entered layer i, `states[depth]` left the last one: the raw residual stream.
    `calls[i]` are the other arguments layer i was called with (positions, masks by its type); `final` is the last state
    after the final norm.
    """

    pack: Pack
    states: tuple[torch.Tensor, ...]
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    final: torch.Tensor


class Called(Protocol):
    """What has been called over a pack: a Capture, or what else knows the blocks' arguments."""

    @property
    def calls(self) -> tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]:
        """The arguments of each layer beside the state."""


def state_of(output: Any) -> torch.Tensor:
    """Return the hidden state of what a layer returned, which some families wrap in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def work_of_pass(model: Model, tokens: int) -> float:
    """Return the work of one pass over the source, in parameters times tokens; times the model's pace it is seconds."""
    return tokens * sum(model.spec.block_parameters)


@torch.no_grad()
def capture(model: Model, pack: Pack) -> Capture:
    """Run the source once over a pack and keep what entered each layer; how long that took becomes the model's pace.

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
        raise SourceError(f"the model's hidden states are not finite numbers in {model.spec.dtype}; try float32 or bfloat16")
    model.paces.append((time.perf_counter() - began) / work_of_pass(model, pack.ids.shape[1]))
    assert torch.equal(norm(last[0]), final), "the final norm of the architecture table is not the network's last step"
    return Capture(pack, (*states, last[0]), tuple(calls), final)


class Trails:
    """The states along recently run plans, so that plans with the same leading blocks share that work, exactly.

    In a T map most candidates fold the same layers at the bottom and differ only further up. Holds `budget` bytes at
    most; the least recently used states go first.
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
        """Remember the state after these leading blocks."""
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
    check_cancelled()  # a pass over a large model takes longer than anybody waits for a cancel
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

    Starts from what entered source layer `prefix` in the recorded pass, or from the longest trail that an earlier plan
    with the same leading blocks has left.
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
    return final * math.sqrt(len(trim.channels) / state.shape[-1])  # the masked form of a norm whose gains are as they were


@torch.no_grad()
def logits_of(model: Model, final: torch.Tensor) -> torch.Tensor:
    """Return next-token logits [..., vocabulary] of a final state that has passed the final norm."""
    logits = model.network.get_output_embeddings()(final)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
