"""The records shared by all modules. Imports nothing from the project."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

_PACES = 9  # passes whose times are kept

SimilarityDefinition = Literal["flattened", "per-token"]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from: `demo`, a `folder` with safetensors, a `gguf` file, a `hub` id, or the folder of an `adapter` that is
    merged into its model.

    `dtype` is a torch dtype's name, or "auto" for the stored one. `trust_remote_code` allows Python files of the model to run on this
    machine; only the terminal can set it.
    """

    kind: Literal["demo", "folder", "gguf", "hub", "adapter"]
    location: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "cpu"
    trust_remote_code: bool = False

    def __str__(self) -> str:
        return {"demo": "demo", "hub": f"hub:{self.location}", "adapter": f"merged:{self.location}"}.get(self.kind, self.location)


Terms = tuple[tuple[tuple[str, ...], int], ...]  # products of axes, each with its number of occurrences: a count of parameters


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's number of layers, and the widths common to all of them: query heads, KV groups, neurons of the MLP, channels."""

    depth: int
    heads: int
    groups: int
    head_dim: int
    neurons: int
    channels: int

    @property
    def per_group(self) -> int:
        """The number of query heads that share one key and value."""
        return self.heads // self.groups

    @property
    def sharing(self) -> int:
        """The number of groups of query heads that must keep equally many: the KV groups, or 1 if no two heads share a key and value."""
        return self.groups if self.per_group > 1 else 1

    def with_heads(self, heads: int) -> Shape:
        """Return the shape with `heads` query heads: equally many per KV group, or, if each has its own key and value, as many groups."""
        return replace(self, heads=heads, groups=self.groups if self.per_group > 1 else heads)

    def size(self, axis: str) -> int:
        """Return the width of a projection's axis in elements (see engine/models/families.py)."""
        widths = {"query": self.heads * self.head_dim, "key": self.groups * self.head_dim, "neuron": self.neurons, "channel": self.channels}
        return sum(widths[part] for part in axis.split("+"))


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is known of a model before any weight is read. Parameters count shared storage once.

    `block_parameters[i]` are the parameters of layer i; `parameters` those of the whole model. `bytes_per_parameter` refers to the
    requested dtype; `available_bytes` is the free memory at the time of inspection. `block_terms` and `outer_terms` count the parameters of
    a block, and of everything outside the blocks, at any shape. `left_out` are tensors in the files that the model does not read; `notes`
    describe other unread files and settings.
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
    """An open model: the only owner of its weights. Hold `lock` while running or reading them."""

    source: ModelSource
    spec: ModelSpec
    folder: Path
    config: Any
    network: Any
    tokenizer: Any
    fingerprint: str
    lock: Any  # an engine.model_lock.Turn
    paces: deque[float] = field(default_factory=lambda: deque(maxlen=_PACES))  # of the last passes over the source on this machine

    @property
    def pace(self) -> float:
        """Seconds per token and parameter: the median of the last passes, because one may be slow by chance; NaN before the first."""
        return median(self.paces) if self.paces else math.nan


@dataclass(frozen=True, slots=True)
class TextSet:
    """Texts to measure a model on; the fingerprint is the SHA-256 of the texts."""

    name: str
    texts: tuple[str, ...]
    fingerprint: str


Tensors = tuple[tuple[str, str], ...]  # pairs of a projection's parameter ("mlp.down_proj.weight") and a tensor's fingerprint


@dataclass(frozen=True, slots=True)
class Trim:
    """The kept width of a block: the source's query heads, neurons and channels, in order; None keeps all.

    Every block of a plan has the same channels, which are the model's. With `plain`, norm gains are only sliced; otherwise they are
    multiplied by sqrt(H / H') (see engine/plans/trimming.py). `refits` are refitted weights in the trimmed shape.
    """

    heads: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    plain: bool = False
    refits: Tensors = ()


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a pruned model, in terms of source layers. Changes apply in the order of the fields.

    `home` gives norms, layer type and place; `mix` gives the projections (weight and bias) as a weighted sum of the projections of source
    layers: pairs of (layer, coefficient) in order of layer. `repair` is the fingerprint of a map folded into the last projection that
    writes to the residual stream (see engine/recover/repair/seam_maps.py), or ""; `refits` are weights that replace projections. `trim`
    is the kept width. `masks` give for a projection either the kept weights (uint8, one bit per weight) or the weights themselves with
    their zeros; both in the trimmed shape.
    """

    home: int
    mix: tuple[tuple[int, float], ...]
    repair: str = ""
    refits: Tensors = ()
    trim: Trim | None = None
    masks: Tensors = ()

    @property
    def whole(self) -> bool:
        """Whether its projections are its home layer's, before trimming and masking."""
        return self.mix == ((self.home, 1.0),) and not self.repair and not self.refits

    @property
    def untouched(self) -> bool:
        """Whether the block equals its home layer."""
        return self.whole and self.trim is None and not self.masks

    @property
    def tensors(self) -> tuple[str, ...]:
        """The fingerprints of all tensors that it references."""
        named = (*self.refits, *(self.trim.refits if self.trim else ()), *self.masks)
        return (*([self.repair] if self.repair else []), *(mark for _, mark in named))


@dataclass(frozen=True, slots=True)
class Repair:
    """One seam's repair: the block that carries it, its kind, and its effect on held-out texts.

    `kind` is "scalar" or "ridge"; `strength` is the scalar itself, or the ridge penalty as a share of the mean squared input. `before` and
    `after` are the KL divergence from the source (nats per token) with the seams below repaired.
    """

    place: int
    kind: str
    strength: float
    before: float
    after: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Part:
    """How the width or the masks of a plan were made; the values are in its blocks. `settings` are the method's."""

    method: str
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A pruned model in terms of its source: depth, then width, then masks. Nothing is pruned until export.

    `method`, `settings` and `repairs` describe its depth; `width` and `masks` are None if it has no such part.
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
        """The number of layers."""
        return len(self.blocks)

    @property
    def kept(self) -> tuple[int, ...]:
        """The source layers that give the blocks their place, in order."""
        return tuple(block.home for block in self.blocks)

    @property
    def folds(self) -> tuple[Block, ...]:
        """The blocks whose projections differ from their home layer's."""
        return tuple(block for block in self.blocks if not block.whole)

    @property
    def deep(self) -> Plan:
        """The plan's depth alone, without width and masks."""
        return replace(self, blocks=tuple(replace(b, trim=None, masks=()) for b in self.blocks), width=None, masks=None)

    @property
    def dense(self) -> Plan:
        """The plan's depth and width, without masks."""
        return replace(self, blocks=tuple(replace(b, masks=()) for b in self.blocks), masks=None)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The fingerprints of all tensors that it references, which are stored separately."""
        return tuple(dict.fromkeys(mark for block in self.blocks for mark in block.tensors))

    @property
    def dropped(self) -> tuple[int, ...]:
        """The source layers that no block uses."""
        used = {layer for block in self.blocks for layer, _ in block.mix} | set(self.kept)
        return tuple(layer for layer in range(self.source_depth) if layer not in used)

    @property
    def prefix(self) -> int:
        """The number of leading layers identical to the source's; their hidden states are the source's too."""
        for index, block in enumerate(self.blocks):
            if block != Block(index, ((index, 1.0),)):
                return index
        return len(self.blocks)


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check of an exported checkpoint. `ran` is False if the machine lacks the memory for it; `detail` explains."""

    name: str
    passed: bool
    detail: str
    ran: bool = True
