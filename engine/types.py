"""The frozen records that everything else passes around. Imports nothing from the project."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

_PACES = 9  # passes whose times are remembered

SimilarityDefinition = Literal["flattened", "per-token"]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from: `demo`, a `folder` with safetensors, a `gguf` file, a `hub` id, or the folder of an `adapter` that is
    merged into its model.

    `dtype` is a torch dtype's name, or "auto" for the one the weights are stored in.
    `trust_remote_code` lets Python files that come with the model run on this machine; only the terminal can set it.
    """

    kind: Literal["demo", "folder", "gguf", "hub", "adapter"]
    location: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "cpu"
    trust_remote_code: bool = False

    def __str__(self) -> str:
        return {"demo": "demo", "hub": f"hub:{self.location}", "adapter": f"merged:{self.location}"}.get(self.kind, self.location)


Terms = tuple[tuple[tuple[str, ...], int], ...]  # products of axes, each with how often it occurs: a count of parameters


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's layers, and the widths that are the same in all of them: query heads, KV groups, neurons of the MLP, channels."""

    depth: int
    heads: int
    groups: int
    head_dim: int
    neurons: int
    channels: int

    @property
    def per_group(self) -> int:
        """Query heads that share one key and value."""
        return self.heads // self.groups

    @property
    def sharing(self) -> int:
        """How many groups of query heads must keep as many each: the KV groups, or one where no two heads share a key and value."""
        return self.groups if self.per_group > 1 else 1

    def with_heads(self, heads: int) -> Shape:
        """Return it with so many query heads: as many in each KV group, or, where each has its own key and value, as many of those."""
        return replace(self, heads=heads, groups=self.groups if self.per_group > 1 else heads)

    def size(self, axis: str) -> int:
        """Return how wide an axis of a projection is (see engine/models/families.py): elements of a row or of a column."""
        widths = {"query": self.heads * self.head_dim, "key": self.groups * self.head_dim, "neuron": self.neurons, "channel": self.channels}
        return sum(widths[part] for part in axis.split("+"))


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is known of a model before any weight is read. Parameters count shared storage once.

    `block_parameters[i]` are the parameters of layer i; `parameters` those of the whole model; `bytes_per_parameter`
    belongs to the dtype asked for, `available_bytes` is the memory that was free when somebody looked. `block_terms` and
    `outer_terms` count the parameters of a block, and of all that is no block, at any shape. `left_out` are tensors in the files that
    no part of the model reads; `notes` say what else of the files and settings is not read.
    """

    model_type: str
    name: str
    depth: int
    hidden_size: int
    parameters: int
    block_parameters: tuple[int, ...]
    layer_types: tuple[str, ...] | None
    dtype: str
    bytes_per_parameter: int
    available_bytes: int
    shape: Shape | None = None
    block_terms: Terms = ()
    outer_terms: Terms = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of the weights in memory at `dtype`."""
        return self.parameters * self.bytes_per_parameter


@dataclass(eq=False)
class Model:
    """An open model: the one holder of weights. Take `lock` around anything that runs or reads them."""

    source: ModelSource
    spec: ModelSpec
    folder: Path
    config: Any
    network: Any
    tokenizer: Any
    fingerprint: str
    lock: Any  # an engine.model_lock.Turn
    paces: deque[float] = field(default_factory=lambda: deque(maxlen=_PACES))  # of its last passes over the source on this machine

    @property
    def pace(self) -> float:
        """Seconds a token and a parameter: the median of its last passes, since one may fall into a busy moment; NaN before the first."""
        return median(self.paces) if self.paces else math.nan


@dataclass(frozen=True, slots=True)
class TextSet:
    """Texts that a model is measured on; the fingerprint is the SHA-256 of the texts."""

    name: str
    texts: tuple[str, ...]
    fingerprint: str


Tensors = tuple[tuple[str, str], ...]  # pairs of a projection's parameter ("mlp.down_proj.weight") and a tensor's fingerprint


@dataclass(frozen=True, slots=True)
class Trim:
    """What is left of a block's width: the source's query heads, neurons and channels that are kept, in order; None keeps all.

    Every block of a plan has the same channels, which are the model's. `plain` slices norm gains as they are, else they are
    multiplied by sqrt(H / H') (see engine/plans/trimming.py). `refits` are weights of the trimmed shape, solved again.
    """

    heads: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    plain: bool = False
    refits: Tensors = ()


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a pruned model, in terms of source layers. What is done to it is done in the order of the fields.

    `home` gives norms, layer type and place; `mix` gives the projections (weight and bias) as a weighted sum of the
    projections of source layers: pairs of (layer, coefficient) in order of layer. `repair` is the fingerprint of a map
    that is folded into the projection which writes to the residual stream last (see engine/recover/repair.py), or empty;
    `refits` are weights that take the place of projections. `trim` is what is left of its width. `masks` name for a
    projection either which of its weights are left (uint8, one bit a weight) or the weights themselves, zeros among them;
    both in the trimmed shape.
    """

    home: int
    mix: tuple[tuple[int, float], ...]
    repair: str = ""
    refits: Tensors = ()
    trim: Trim | None = None
    masks: Tensors = ()

    @property
    def whole(self) -> bool:
        """True where its projections are its home layer's, before anything is trimmed or masked."""
        return self.mix == ((self.home, 1.0),) and not self.repair and not self.refits

    @property
    def untouched(self) -> bool:
        """True where the block is its home layer in everything."""
        return self.whole and self.trim is None and not self.masks

    @property
    def tensors(self) -> tuple[str, ...]:
        """The fingerprints of all tensors that it names."""
        named = (*self.refits, *(self.trim.refits if self.trim else ()), *self.masks)
        return (*([self.repair] if self.repair else []), *(mark for _, mark in named))


@dataclass(frozen=True, slots=True)
class Repair:
    """One seam's repair: which block carries it, what it is, and what it did on texts it was not fitted to.

    `kind` is "scalar" or "ridge"; `strength` the scalar itself, or the ridge penalty as a share of the mean squared
    input. `before` and `after` are the KL divergence from the source (nats a token) with the seams below repaired.
    """

    place: int
    kind: str
    strength: float
    before: float
    after: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Part:
    """How the width or the masks of a plan came to be; what they are stands in its blocks. `settings` are the method's."""

    method: str
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pruned model is, in terms of its source: depth, then width, then masks. Nothing is pruned until export.

    `method`, `settings` and `repairs` tell of its depth; `width` and `masks` are None where it has no such part.
    """

    source_depth: int
    blocks: tuple[Block, ...]
    method: str
    settings: tuple[tuple[str, Any], ...] = ()
    repairs: tuple[Repair, ...] = ()
    width: Part | None = None
    masks: Part | None = None

    @property
    def depth(self) -> int:
        """Layers left."""
        return len(self.blocks)

    @property
    def kept(self) -> tuple[int, ...]:
        """The source layers that give the blocks their place, in order."""
        return tuple(block.home for block in self.blocks)

    @property
    def folds(self) -> tuple[Block, ...]:
        """The blocks whose projections are not simply their home layer's."""
        return tuple(block for block in self.blocks if not block.whole)

    @property
    def deep(self) -> Plan:
        """Its depth alone, without width and masks."""
        return replace(self, blocks=tuple(replace(b, trim=None, masks=()) for b in self.blocks), width=None, masks=None)

    @property
    def dense(self) -> Plan:
        """Its depth and width, without masks."""
        return replace(self, blocks=tuple(replace(b, masks=()) for b in self.blocks), masks=None)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The fingerprints of all tensors that it names, which are kept beside it."""
        return tuple(dict.fromkeys(mark for block in self.blocks for mark in block.tensors))

    @property
    def dropped(self) -> tuple[int, ...]:
        """Source layers of which nothing is left."""
        used = {layer for block in self.blocks for layer, _ in block.mix} | set(self.kept)
        return tuple(layer for layer in range(self.source_depth) if layer not in used)

    @property
    def prefix(self) -> int:
        """How many leading layers are exactly the source's; their hidden states are the source's too."""
        for index, block in enumerate(self.blocks):
            if block != Block(index, ((index, 1.0),)):
                return index
        return len(self.blocks)
