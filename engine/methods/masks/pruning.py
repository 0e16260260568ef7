"""Masks: the weights of a plan's projections that are set to zero. Each method is a file in this package; the shared code is here.

Blocks are pruned in execution order. A block's input comes from the pruned blocks before it; the inputs of its projections are measured on
the unpruned block, as in the published code; then the block is pruned and run once more. With `sequential`, each projection is pruned
before the next one's input is measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch

from engine.errors import SettingsError
from engine.jobs import Job, Progress, T, retold, scaled
from engine.messages import Message
from engine.methods.masks.owl import LOWEST, outliers, sparsities
from engine.methods.masks.selection import Wanted, chosen, lowest, wanted
from engine.methods.masks.settings import PruneSettings
from engine.models.devices import exact
from engine.models.families import architecture_of
from engine.models.texts import Pack, read_in
from engine.passes import gradients
from engine.passes.sums import Sums
from engine.passes.walk import Walk, readers
from engine.plans.surgery import Mixer, pack_mask
from engine.plans.tensor_store import keep_tensor, name_tensor
from engine.settings import Registry, control
from engine.types import Block, Model, Part, Plan


@dataclass(frozen=True, eq=False, slots=True)
class PruningInput:
    """A projection to prune: its weight [out, in] in float64, the sums over its input, and, for methods that need them, the gradients
    summed over the texts [out, in]."""

    weight: torch.Tensor
    sums: Sums | None = None
    gradient: torch.Tensor | None = None

    @property
    def norm(self) -> torch.Tensor:
        """||X|| of its input [in], as in Wanda's code."""
        assert self.sums is not None
        return self.sums.norm

    @property
    def gram(self) -> torch.Tensor:
        """X^T X of its input [in, in]."""
        assert self.sums is not None
        assert self.sums.gram is not None
        return self.sums.gram


class Updated(NamedTuple):
    """Which weights of a projection are pruned (bool), its new weights [out, in], and a note on how they were found."""

    gone: torch.Tensor
    weight: torch.Tensor
    note: str


@dataclass(frozen=True, slots=True)
class MaskSettings:
    """Settings shared by all mask methods."""

    needs: ClassVar[frozenset[str]] = frozenset({"sums"})  # any of "sums", "gram", "full" (gradients), "local" (gradients)
    group: ClassVar[str] = "output"  # the default group of competing weights
    updates: ClassVar[bool] = False  # whether `update` returns new weights
    version: ClassVar[int] = 1  # version of the formula, see `engine.cache.Definition`
    sequential: bool = field(
        default=False, metadata=control("measure each projection's inputs after the earlier projections of its block are pruned")
    )
    owl: bool = field(
        default=False, metadata=control("give layers with many outliers a lower sparsity (OWL); needs a sparsity of at least 0.6")
    )

    def update(self, reading: PruningInput, want: Wanted) -> Updated:
        """Return a projection's pruned and new weights."""
        raise NotImplementedError

    def summed(self, gradient: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
        """Return the running sum of the texts' gradients with one more added."""
        raise NotImplementedError


MASKS: Registry[Callable[[PruningInput, Any], torch.Tensor]] = Registry("mask method", __package__)  # each scores weights: [out, in]


def wanted_by(asked: PruneSettings) -> Wanted:
    """Return what is to be pruned, with the method's own group if none is given.

    Raises:
        SettingsError: the method is unknown, neither or both of sparsity and pattern are given, or a value is invalid.
    """
    own: Any = MASKS.require(asked.method).settings
    return wanted(asked.sparsity, asked.pattern, asked.group or own.group)


def prune(
    model: Model, plan: Plan, packs: Sequence[Pack], method: str, want: Wanted, settings: Mapping[str, Any] | None = None
) -> Job[Plan]:
    """Return the plan with new masks by a method, replacing any earlier ones; its tensors are kept.

    Raises:
        SettingsError: the method or a setting is unknown, a pattern does not divide a projection's inputs, or the method does not support
            the group.
    """
    found = MASKS.require(method)
    record = found.asked(settings or {})
    if record.updates and want.group != record.group:
        raise SettingsError(
            "{method} compares the weights within 128 columns and has no group '{group}'; omit the group",
            method=method,
            group=want.group,
        )
    if record.owl and (want.m or want.group == "global" or want.sparsity < LOWEST):
        raise SettingsError(
            "OWL assigns a sparsity to each layer; it needs a sparsity of at least {lowest:g}, without a pattern and "
            "without the global group",
            lowest=LOWEST,
        )
    run = _Pruning(model, plan.dense, packs, found.run, want, record)
    blocks = yield from (run.all_blocks_together() if want.group == "global" and not want.m else run.block_by_block())
    facts = {"sparsity": want.sparsity, **({"pattern": f"{want.n}:{want.m}"} if want.m else {"group": want.group}), **asdict(record)}
    tokens = dict(read_in(packs)) if record.needs else {}
    notes = {"notes": tuple(run.notes.items())} if run.notes else {}
    return replace(plan.dense, blocks=blocks, masks=Part(method, tuple({**facts, **tokens, **notes}.items())))


def weight_scores(
    model: Model,
    plan: Plan,
    packs: Sequence[Pack],
    method: str,
    take: Callable[[int, str, torch.Tensor], object],
    settings: Mapping[str, Any] | None = None,
) -> Job[None]:
    """Pass the scores of each projection's weights in the unpruned plan to `take`: place, name, [out, in]."""
    found = MASKS.require(method)
    run = _Pruning(model, plan.dense, packs, found.run, Wanted(0.0), found.asked(settings or {}))
    yield from run.scored(take)


class _Pruning:
    """One run of a method."""

    def __init__(self, model: Model, plan: Plan, packs: Sequence[Pack], score: Any, want: Wanted, settings: Any) -> None:
        self._model, self._plan, self._packs = model, plan, packs
        self._score, self._want, self._settings = score, want, settings
        self._row = architecture_of(model.config)
        self._mixer = Mixer(model.network, keep=0)
        self._gradients: dict[tuple[int, str], torch.Tensor] = {}
        self.notes: dict[str, str] = {}  # notes on projections, by place and name

    def block_by_block(self) -> Job[tuple[Block, ...]]:
        """Return the blocks with their masks, each chosen after the blocks before it."""
        begins, wants = 0.0, [self._want] * self._plan.depth
        if self._settings.owl:
            begins, wants = 0.3, (yield from scaled(self._owl(), 0.0, 0.3))
        if "full" in self._settings.needs:
            before, begins = begins, 0.6
            yield from scaled(gradients.full(self._model, self._plan, self._packs, self._take), before, begins)
        walk = Walk(self._model, self._packs, self._plan.blocks) if self._settings.needs else None
        blocks: list[Block] = []
        for place, block in enumerate(self._plan.blocks):
            start, stop = (begins + (1 - begins) * (place + more) / self._plan.depth for more in (0, 1))
            blocks.append((yield from scaled(self._block(walk, block, place, wants[place]), start, stop)))
        return tuple(blocks)

    def _owl(self) -> Job[list[Wanted]]:
        """Return each block's target by its share of outliers, all measured on the unpruned plan."""
        walk, found = Walk(self._model, self._packs, self._plan.blocks), list[float]()
        for place, block in enumerate(self._plan.blocks):
            sums = yield from scaled(self._sums(walk, block, place), place / self._plan.depth, (place + 1) / self._plan.depth)
            readings = (self._reading(block, place, name, sums) for name in self._row.projections)
            found.append(outliers([(reading.weight.abs() * reading.norm).flatten() for reading in readings]))
            yield from scaled(walk.step(block), (place + 1) / self._plan.depth, (place + 1) / self._plan.depth)
        return [replace(self._want, sparsity=share) for share in sparsities(found, self._want.sparsity)]

    def all_blocks_together(self) -> Job[tuple[Block, ...]]:
        """Return the blocks with masks that prune the lowest scores of all blocks' weights, scored in the unpruned plan."""
        scores: dict[tuple[int, str], torch.Tensor] = {}
        yield from self.scored(lambda place, name, score: scores.update({(place, name): score.float()}))
        together = torch.cat([score.flatten() for score in scores.values()])
        cut = lowest(together[None], int(len(together) * self._want.sparsity))[0].split([score.numel() for score in scores.values()])
        gone = {key: one.reshape(score.shape) for (key, score), one in zip(scores.items(), cut, strict=True)}
        return tuple(
            self._with(block, [self._masked(name, ~gone[place, name]) for name in self._row.projections])
            for place, block in enumerate(self._plan.blocks)
        )

    def scored(self, take: Callable[[int, str, torch.Tensor], object]) -> Job[None]:
        """Pass the scores [out, in] of every projection's weights in the unpruned plan to `take`, with place and name."""
        begins = 0.6 if "full" in self._settings.needs else 0.0
        if begins:
            yield from scaled(gradients.full(self._model, self._plan, self._packs, self._take), 0.0, begins)
        walk = Walk(self._model, self._packs, self._plan.blocks) if self._settings.needs else None
        for place, block in enumerate(self._plan.blocks):
            yield Progress(Message("Layer {home}", home=block.home), begins + (1 - begins) * place / self._plan.depth)
            sums = (yield from _quietly(self._sums(walk, block, place))) if walk else {}
            for name in self._row.projections:
                take(place, name, self._score(self._reading(block, place, name, sums), self._settings))
            if walk:
                yield from _quietly(walk.step(block))

    def _block(self, walk: Walk | None, block: Block, place: int, want: Wanted) -> Job[Block]:
        if walk is None:
            yield Progress(Message("Layer {home}", home=block.home), 0.0)
            return self._pruned(block, place, want, {}, tuple(self._row.projections))
        if self._settings.sequential:
            for reader, names in readers(self._row).items():
                sums = yield from self._sums(walk, block, place, (reader,))
                block = self._pruned(block, place, want, sums, names)
        else:
            sums = yield from self._sums(walk, block, place)
            block = self._pruned(block, place, want, sums, tuple(self._row.projections))
        yield from walk.step(block)
        self._gradients = {key: value for key, value in self._gradients.items() if key[0] != place}
        return block

    def _sums(self, walk: Walk, block: Block, place: int, only: Sequence[str] | None = None) -> Job[dict[str, Sums]]:
        """Return the sums over the inputs of a block's projections, by the name of each projection."""
        found: dict[str, Sums] = {}
        gram = torch.float64 if "gram" in self._settings.needs else None

        def see(name: str, x: torch.Tensor, pack: Pack) -> None:
            found.setdefault(name, Sums(x.shape[1], gram)).add(x, pack)

        yield from walk.watch(block, see, only)
        if "local" in self._settings.needs and only is None:
            yield from gradients.local(walk, block, place, self._take)
        together = readers(self._row)
        return {name: sums for reader, sums in found.items() for name in together[reader]}

    def _take(self, place: int, name: str, gradient: torch.Tensor) -> None:
        self._gradients[place, name] = self._settings.summed(gradient, self._gradients.get((place, name)))

    def _reading(self, block: Block, place: int, name: str, sums: Mapping[str, Sums]) -> PruningInput:
        gradient = self._gradients.get((place, f"{name}.weight"))
        if gradient is not None:
            gradient = exact(self._mixer.cutter.oriented(gradient)).cpu()
        return PruningInput(self._mixer.weight(replace(block, masks=()), name), sums.get(name), gradient)

    def _pruned(self, block: Block, place: int, want: Wanted, sums: Mapping[str, Sums], names: Sequence[str]) -> Block:
        """Return a block with masks on some of its projections."""
        found = []
        for name in names:
            reading = self._reading(block, place, name, sums)
            if self._settings.updates:
                update = self._settings.update(reading, want)
                found.append(self._masked(name, ~update.gone, update.weight))
                self.notes |= {f"{place} {name}": update.note} if update.note else {}
            else:
                found.append(self._masked(name, ~chosen(self._score(reading, self._settings), want)))
        return self._with(block, found)

    def _masked(self, name: str, left: torch.Tensor, weight: torch.Tensor | None = None) -> tuple[str, str]:
        """Store a mask, or the new weights with their zeros; return the parameter's name and the fingerprint."""
        oriented = self._mixer.cutter.oriented
        tensor = pack_mask(oriented(left)) if weight is None else oriented((weight * left).to(self._model.network.dtype))
        return f"{name}.weight", keep_tensor(name_tensor(tensor))

    @staticmethod
    def _with(block: Block, found: Sequence[tuple[str, str]]) -> Block:
        return replace(block, masks=(*block.masks, *found))


def _quietly(job: Job[T]) -> Job[T]:
    """Run a job as part of another without its progress fraction."""
    return retold(job, lambda step: Progress(step.label))
