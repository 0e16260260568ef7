"""Run a plan block by block over texts, observing the inputs of its projections; a block may be changed before the walk continues.

Memory holds only the states between two blocks and the observer's sums. No pass over the source is needed.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from engine.errors import SourceError
from engine.jobs import Job, Progress
from engine.messages import Message
from engine.model_lock import check_cancelled
from engine.models.families import Architecture, blocks_of
from engine.models.texts import Pack
from engine.passes.forward import Called, run_block
from engine.plans.surgery import Mixer
from engine.types import Block, Model

# Called with a reader's name (see `readers`), its input [tokens, width] in the trimmed shape, and the pack.
See = Callable[[str, torch.Tensor, Pack], object]


def readers(row: Architecture) -> dict[str, tuple[str, ...]]:
    """Group a block's projections by their input, in execution order: the first projection that reads an input, and all that read
    the same."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, (_, reads) in row.projections.items():
        found.setdefault((name.rpartition(".")[0], reads), []).append(name)
    return {names[0]: tuple(names) for names in found.values()}


@dataclass(frozen=True, eq=False, slots=True)
class BlockInputs:
    """The inputs of a model's blocks over a pack: the state [1, tokens, hidden] before the first, and each block's other arguments
    (positions, masks by its type)."""

    pack: Pack
    state: torch.Tensor
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]


@torch.no_grad()
def block_inputs(model: Model, pack: Pack) -> BlockInputs:
    """Return the inputs of the source's blocks; no block is run."""
    states: list[torch.Tensor] = []
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def instead(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        states.append(hidden_states)
        calls.append((args, kwargs))
        return hidden_states

    layers, device = blocks_of(model.network), model.source.device
    with model.lock, ExitStack() as stack:
        for layer in layers:
            layer.forward = instead
            stack.callback(layer.__dict__.pop, "forward")
        model.network.base_model(input_ids=pack.ids.to(device), position_ids=pack.positions.to(device), use_cache=False)
    return BlockInputs(pack, states[0], tuple(calls))


class _EnoughError(Exception):
    """The last watched input was seen; the block's output is not needed."""


class Walk:
    """Walks over the blocks of a plan; all packs go through one block before the next."""

    def __init__(self, model: Model, packs: Sequence[Pack], blocks: Sequence[Block]) -> None:
        self.model, self.mixer = model, Mixer(model.network, keep=0)
        self._inputs = tuple(readers(self.mixer.cutter.row))
        self.openings = [block_inputs(model, pack) for pack in packs]
        trim = blocks[0].trim
        self.states = [self.mixer.cutter.silenced(one.state, trim) for one in self.openings]
        self.place = 0

    @property
    def packs(self) -> list[Pack]:
        """The packs of the walk."""
        return [one.pack for one in self.openings]

    def watch(self, block: Block, see: See, only: Sequence[str] | None = None) -> Job[None]:
        """Pass the inputs of a block's projections to `see`, without advancing; `only` selects some of the inputs (see `readers`).

        It stops before the last watched projection computes anything.
        """
        yield from self._run(block, see, tuple(only or self._inputs), keep=False)

    def step(self, block: Block, see: See | None = None) -> Job[None]:
        """Advance over a block, passing its projections' inputs to `see`."""
        yield from self._run(block, see, self._inputs if see else (), keep=True)
        self.place += 1

    def go_on(self, states: Sequence[torch.Tensor]) -> None:
        """Advance over a block that was run elsewhere, to the states [1, tokens, hidden] after it, one per pack."""
        self.states = list(states)
        self.place += 1

    def _run(self, block: Block, see: See | None, inputs: tuple[str, ...], keep: bool) -> Job[None]:
        for number, one in enumerate(self.openings):
            yield Progress(Message("Layer {home}", home=block.home), number / len(self.openings))
            with self.model.lock:
                state = self._block(block, number, one, see, inputs, keep)
            if state is not None:
                if not bool(torch.isfinite(state).all()):
                    raise SourceError("the plan's hidden states are not finite in {dtype}; try float32", dtype=self.model.spec.dtype)
                self.states[number] = state

    @torch.no_grad()
    def _block(
        self, block: Block, number: int, one: BlockInputs, see: See | None, inputs: tuple[str, ...], keep: bool
    ) -> torch.Tensor | None:
        layer, cutter = blocks_of(self.model.network)[block.home], self.mixer.cutter

        def watcher(name: str, last: bool) -> Callable[..., None]:
            kept = cutter.kept(cutter.row.projections[name][1], block.trim) if block.trim else None

            def capture(_module: Any, args: tuple[torch.Tensor, ...]) -> None:
                check_cancelled()
                x = args[0].reshape(-1, args[0].shape[-1])
                assert see is not None
                see(name, x if kept is None else x.index_select(1, kept.to(x.device)), one.pack)
                if last:
                    raise _EnoughError

            return capture

        with ExitStack() as stack:
            for name in inputs:
                hook = watcher(name, last=not keep and name == inputs[-1])
                stack.callback(layer.get_submodule(name).register_forward_pre_hook(hook).remove)
            try:
                return run_block(self.model, self.mixer, block, self.states[number], one)
            except _EnoughError:
                return None


@torch.no_grad()
def run_traced(
    model: Model, mixer: Mixer, block: Block, state: torch.Tensor, record: Called, names: Sequence[str], before: str | None = None
) -> tuple[torch.Tensor | None, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Run a block; return its output and, for the named projections, input and output: [1, tokens, width] in the source's shapes. With
    `before`, stop before that projection: its input is returned twice, and the block's output is None."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    layer = blocks_of(model.network)[block.home]

    def watcher(name: str) -> Callable[..., None]:
        return lambda _module, args, output: seen.update({name: (args[0], output)})

    def stop(_module: Any, args: tuple[torch.Tensor, ...]) -> None:
        seen[before or ""] = (args[0], args[0])
        raise _EnoughError

    with ExitStack() as stack:
        for name in names:
            stack.callback(layer.get_submodule(name).register_forward_hook(watcher(name)).remove)
        if before is not None:
            stack.callback(layer.get_submodule(before).register_forward_pre_hook(stop).remove)
        try:
            return run_block(model, mixer, block, state, record), seen
        except _EnoughError:
            return None, seen
