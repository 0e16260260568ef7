"""The frozen records that everything else passes around. Imports nothing from the project."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

SimilarityDefinition = Literal["flattened", "per-token"]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from: `demo`, a `folder` with safetensors, a `gguf` file or a `hub` id.

    `dtype` is a torch dtype's name, or "auto" for the one the weights are stored in.
    `trust_remote_code` lets Python files that come with the model run on this machine; only the terminal can set it.
    """

    kind: Literal["demo", "folder", "gguf", "hub"]
    location: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "cpu"
    trust_remote_code: bool = False

    def __str__(self) -> str:
        return {"demo": "demo", "hub": f"hub:{self.location}"}.get(self.kind, self.location)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is known of a model before any weight is read. Parameters count shared storage once.

    `block_parameters[i]` are the parameters of layer i; `parameters` those of the whole model; `bytes_per_parameter`
    belongs to the dtype asked for, `available_bytes` is the memory that was free when somebody looked.
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
    pace: float = math.nan  # seconds a token and a parameter that its last pass over the source took on this machine
    lock: Any = field(default_factory=threading.RLock)  # engine.turns.Turn where it was opened


@dataclass(frozen=True, slots=True)
class Calibration:
    """Texts that a model is measured on; the fingerprint is the SHA-256 of the texts."""

    name: str
    texts: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a pruned model, in terms of source layers.

    `home` gives norms, layer type and place; `mix` gives the projections (weight and bias) as a weighted sum of the
    projections of source layers: pairs of (layer, coefficient) in order of layer. `repair` is the fingerprint of a map
    that is folded into the projection which writes to the residual stream last (see engine/recover/repair.py), or empty.
    """

    home: int
    mix: tuple[tuple[int, float], ...]
    repair: str = ""

    @property
    def untouched(self) -> bool:
        """True where the block is its home layer, whole."""
        return self.mix == ((self.home, 1.0),) and not self.repair


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
class DepthPlan:
    """What a pruned model is, in terms of its source. Nothing is pruned until export."""

    source_depth: int
    blocks: tuple[Block, ...]
    method: str
    settings: tuple[tuple[str, Any], ...] = ()
    repairs: tuple[Repair, ...] = ()

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
        """The blocks that are not simply their home layer."""
        return tuple(block for block in self.blocks if not block.untouched)

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
