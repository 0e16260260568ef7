"""Refit the projections that read pruned parts to the kept parts, so that the plan's residual stream follows the source's.

A block writes to the residual stream r twice: W x of its attention (o_proj) and W x of its MLP (down_proj). With x the projection's input
in the plan, and y the output that would make the stream equal the source's at the same point,

    W' = W + (Y^T X - W X^T X) (X^T X + strength * diagonal of X^T X)^-1

is the ridge solution that shrinks towards the existing W, each input in proportion to its own size. This is the closed form of OBS for a
whole set of columns, as in SlimGPT 2412.18110 and ZipLM 2302.04089. Taking y from the source's stream instead of W x is ours: it also
corrects the errors of the blocks below, from cut width as well as from dropped layers. Blocks are refitted from the bottom up, in float64.
The strength is chosen by the error on held-out practice text, and a projection is left unchanged if that error does not improve; the final
fit includes the held-out text. Only stock weights change, and no bias is needed.

Where a norm follows the projection (Gemma), y is the output of the source's own projection.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from engine.cache import Definition
from engine.errors import SettingsError
from engine.jobs import Job, Progress, scaled
from engine.messages import Message
from engine.model_lock import check_cancelled
from engine.models.devices import exact
from engine.models.families import architecture_of, blocks_of
from engine.models.texts import Pack
from engine.passes.sums import Gram
from engine.passes.walk import Walk, run_traced
from engine.plans.rules import untouched
from engine.plans.tensor_store import keep_tensor, name_tensor
from engine.types import Block, Model, Plan, Trim

REFIT = Definition("refit", 1)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HELD_OUT = 3  # every third pack is held out
_LEAST = 1e-6  # relative to the size of y; smaller improvements are rounding


class Normal:
    """The sums of a least squares problem: of x x^T, of y x^T and of y^2 over tokens, in float64."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self._gram = Gram(inputs, torch.float64)
        self.yx = torch.zeros(outputs, inputs, dtype=torch.float64)
        self.yy = 0.0

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add tokens: x [tokens, in], y [tokens, out]."""
        x, y = exact(x).cpu(), exact(y).cpu()
        self._gram.add(x)
        self.yx += y.mT @ x
        self.yy += float(y.square().sum())

    @property
    def xx(self) -> torch.Tensor:
        """[in, in]: the sum of x x^T."""
        return self._gram.total()

    def joined(self, other: "Normal") -> "Normal":
        """Return the sums over the tokens of both."""
        both = Normal(*self.yx.shape[::-1])
        both._gram, both.yx, both.yy = self._gram.joined(other._gram), self.yx + other.yx, self.yy + other.yy
        return both

    def error(self, weight: torch.Tensor) -> float:
        """Return sum |y - W x|^2 of a weight [out, in]."""
        return float((weight @ self.xx * weight).sum() - 2 * (weight * self.yx).sum()) + self.yy

    def solved(self, weight: torch.Tensor, strengths: Sequence[float]) -> Iterator[torch.Tensor]:
        """Yield the ridge solution that shrinks towards a weight [out, in] for each strength."""
        xx = self.xx
        missing, sizes = (self.yx - weight @ xx).mT, xx.diagonal()
        sizes = sizes.clamp_min(_LEAST * sizes.mean().clamp_min(1e-30))  # for inputs that are always zero
        for strength in strengths:
            check_cancelled()
            damped = xx.clone()
            damped.diagonal().add_(strength * sizes)
            yield weight + torch.cholesky_solve(missing, torch.linalg.cholesky(damped)).mT


def refit(model: Model, plan: Plan, packs: Sequence[Pack]) -> Job[Plan]:
    """Return a plan without masks whose consumers are refitted, each only if the held-out error improves.

    Earlier refits of these projections are dropped; a repair's map is included in the starting weights.

    Raises:
        SettingsError: there are fewer than two packs, so none can be held out.
    """
    if len(packs) < 2:
        raise SettingsError("there is too little practice text for a refit, which fits on one part and holds out another; provide more")
    consumers = architecture_of(model.config).consumers
    bare = tuple(_bare(block, consumers) for block in plan.blocks)
    run, same, blocks = _Refit(model, packs, bare), replace(plan, blocks=bare).prefix, list[Block]()
    for place, block in enumerate(bare):
        end = bare[place + 1].home if place + 1 < len(bare) else plan.source_depth
        if place + 1 < same:
            yield from run.same(block)
            blocks.append(block)
            continue
        blocks.append((yield from scaled(run.block(block, end), place / len(bare), (place + 1) / len(bare))))
    return replace(plan, blocks=tuple(blocks))


def _bare(block: Block, consumers: Sequence[str]) -> Block:
    """Return a block without masks and without refits of its consumers."""
    trim = block.trim and replace(block.trim, refits=tuple(one for one in block.trim.refits if one[0].rpartition(".")[0] not in consumers))
    return replace(block, refits=(), trim=trim, masks=())


def with_tensor(block: Block, parameter: str, tensor: torch.Tensor) -> Block:
    """Return a block with a projection's parameter replaced, in the trimmed shape if there is one and in the stored layout. The tensor is
    stored with the plan."""
    named = (parameter, keep_tensor(name_tensor(tensor)))
    if block.trim is not None:
        return replace(block, trim=replace(block.trim, refits=(*block.trim.refits, named)))
    return replace(block, refits=(*block.refits, named))


@dataclass(frozen=True, eq=False, slots=True)
class _Wanted:
    """The source's states and outputs over a pack at the place of a plan's block: the stream after the attention of the block's home, the
    stream where the next block begins, and the outputs of the home's two consumers; [tokens, hidden]."""

    middle: torch.Tensor
    end: torch.Tensor
    written: dict[str, torch.Tensor]


class _Refit:
    """Walks over the source's and the plan's residual streams in parallel."""

    def __init__(self, model: Model, packs: Sequence[Pack], blocks: Sequence[Block]) -> None:
        self._model, self._row = model, architecture_of(model.config)
        self._theirs = Walk(model, packs, untouched(model.spec.depth).blocks)
        self._ours = Walk(model, packs, blocks)
        self._cutter, self._layers = self._ours.mixer.cutter, blocks_of(model.network)
        self.consumers = self._row.consumers

    def same(self, block: Block) -> Job[None]:
        """Advance over a block up to which the plan equals the source."""
        yield from self._theirs.step(block)
        self._ours.go_on(self._theirs.states)

    def block(self, block: Block, end: int) -> Job[Block]:
        """Return a block with refitted consumers, and advance over it; `end` is the source layer where the next block begins."""
        wanted = yield from self._wanted(block.home, end)
        for name in self.consumers:
            block = yield from self._solved(block, name, wanted)
        yield from self._ours.step(block)
        return block

    def _wanted(self, home: int, end: int) -> Job[list[_Wanted]]:
        """Advance the source to layer `end`, and return its states and outputs at `home`."""
        source = untouched(self._model.spec.depth).blocks
        while self._theirs.place < home:
            yield from self._theirs.step(source[self._theirs.place])
        found, states = [], []
        for opening, state in zip(self._theirs.openings, self._theirs.states, strict=True):
            yield Progress(Message("Layer {home} of the source", home=home))
            with self._model.lock:
                output, seen = run_traced(self._model, self._theirs.mixer, source[home], state, opening, self.consumers)
            written = {name: one[0] for name, (_, one) in seen.items()}
            assert output is not None
            found.append((output[0] - written[self.consumers[1]], written))
            states.append(output)
        self._theirs.go_on(states)
        while self._theirs.place < end:
            yield from self._theirs.step(source[self._theirs.place])
        return [_Wanted(middle, state[0], written) for (middle, written), state in zip(found, self._theirs.states, strict=True)]

    def _solved(self, block: Block, name: str, wanted: Sequence[_Wanted]) -> Job[Block]:
        """Return a block with one of its consumers refitted, if the held-out error improves."""
        weight = self._ours.mixer.weight(block, name)
        fitted, held = (Normal(*weight.shape[::-1]) for _ in range(2))
        for number, want in enumerate(wanted):
            yield Progress(Message("Refitting layer {home}", home=block.home), number / len(wanted))
            with self._model.lock:
                (held if number % HELD_OUT == 0 else fitted).add(*self._pair(number, block, name, want))
        errors = [held.error(one) for one in fitted.solved(weight, STRENGTHS)]
        best = min(range(len(errors)), key=errors.__getitem__)
        if held.error(weight) - errors[best] <= _LEAST * held.yy:
            return block
        # the held-out text has chosen the strength and is now fitted too
        (solved,) = fitted.joined(held).solved(weight, (STRENGTHS[best],))
        return with_tensor(block, f"{name}.weight", self._cutter.oriented(solved).to(self._model.network.dtype))

    def _pair(self, number: int, block: Block, name: str, want: _Wanted) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a consumer's input over a pack in the plan, and its wanted output; in the trimmed shapes."""
        state, opening = self._ours.states[number], self._ours.openings[number]
        attention, plain = name == self.consumers[0], self._row.writes is not None
        short = name if attention or not plain else None  # the consumer's own output is not needed
        output, seen = run_traced(self._model, self._ours.mixer, block, state, opening, (name,), short)
        read, wrote = seen[name]
        if not plain:
            y = want.written[name]
        elif output is None:
            y = want.middle - state[0]
        else:
            y = want.end - (output[0] - wrote[0])
        if self._layers[block.home].get_submodule(name).bias is not None:
            bias = self._cutter.spread(f"{name}.bias", self._ours.mixer.parameter(block, f"{name}.bias"), block.trim)
            y = y - bias
        return self._kept(read[0], self._row.projections[name][1], block.trim), self._kept(y, "channel", block.trim)

    def _kept(self, values: torch.Tensor, axis: str, trim: Trim | None) -> torch.Tensor:
        indices = None if trim is None else self._cutter.kept(axis, trim)
        return values if indices is None else values.index_select(1, indices.to(values.device))
