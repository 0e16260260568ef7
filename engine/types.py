"""The frozen records that everything else passes around. Imports nothing from the project."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

SimilarityDefinition = Literal["flattened", "per-token"]
Stage = Literal["guess", "beam", "grow", "swap", "survivor", "exhaustive", "repair", "greedy"]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from: `demo`, a `folder` with safetensors, a `gguf` file or a `hub` id.

    `dtype` is a torch dtype's name, or "auto" for the one the weights are stored in.
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


@dataclass(frozen=True, slots=True)
class Similarity:
    """Cosine similarity between the final hidden states (after the final norm) of a plan and of its source.

    Both definitions, one value a text: `flattened` is one cosine over all tokens and features of the text (the
    reference code's), `per_token` the mean of the tokens' cosines. NaN where the plan's states are not finite.
    """

    flattened: tuple[float, ...]
    per_token: tuple[float, ...]

    def of(self, definition: SimilarityDefinition) -> tuple[float, ...]:
        """The values of one definition, a text each."""
        return self.flattened if definition == "flattened" else self.per_token


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate of Algorithm 1: fold `absorbed` layers into the one at `pointer`; accepted when strictly above T.

    `similarity` is the mean over texts, `spread` their standard deviation.
    """

    step: int
    pointer: int
    absorbed: int
    similarity: float
    spread: float
    accepted: bool
    depth_after: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """What Algorithm 1 did at one T, and the plan it ended with."""

    plan: DepthPlan
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the T map: every T in [t_from, t_to) gives this proposal; the first step also holds T = 1."""

    t_from: float
    t_to: float
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Frontier:
    """Every plan that Algorithm 1 can reach over T in [t_min, 1], highest T first."""

    t_min: float
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """One layer's figures, over all tokens of the calibration texts.

    `block_influence` is 1 - mean cosine of the layer's input and output (ShortGPT); `cosine_to_next` is the cosine of
    the states that enter this layer and leave it. The `_rest` figures leave the first token of each text out.
    """

    index: int
    block_influence: float
    block_influence_rest: float
    cosine_to_next: float
    cosine_to_next_rest: float


@dataclass(frozen=True, slots=True)
class NormProfile:
    """Norms of the residual stream at each of depth + 1 points: the first token's mean, and of all other tokens the
    median and the largest."""

    first_token: tuple[float, ...]
    other_median: tuple[float, ...]
    other_max: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Redundancy of a model on some texts, from the raw residual stream (before the final norm).

    Matrices are (depth + 1) x (depth + 1): state 0 enters the first layer, state i leaves layer i - 1. `similarity`
    averages the tokens' cosines; `similarity_rest` leaves each text's first token out; `angular` is arccos(cosine) / pi
    of the last token of each text, averaged (2403.17887).
    """

    similarity: tuple[tuple[float, ...], ...]
    similarity_rest: tuple[tuple[float, ...], ...]
    angular: tuple[tuple[float, ...], ...]
    layers: tuple[LayerProfile, ...]
    norms: NormProfile
    tokens: int
    texts: int


@dataclass(frozen=True, slots=True)
class WeightDistance:
    """How far each projection is from the same one in the next layer: [projection][layer], depth - 1 values a row.

    `relative_l2` is |W(l+1) - W(l)| / |W(l)| in the Frobenius norm, `cosine` that of the flattened weights.
    """

    projections: tuple[str, ...]
    relative_l2: tuple[tuple[float, ...], ...]
    cosine: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class RemovalPerplexity:
    """Perplexity on the calibration texts: the source's, and with layer i alone removed (Minitron's criterion)."""

    source: float
    removed: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Landscape:
    """Similarity after one fold of layers base .. base + width - 1, for widths[i] and base j; NaN where none fits."""

    rule: str
    definition: str
    widths: tuple[int, ...]
    similarity: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a plan was judged: texts, windows of `context` tokens that move on by `stride`, scored tokens, BOS or not."""

    texts: str
    fingerprint: str
    context: int
    stride: int
    tokens: int
    bos: bool


@dataclass(frozen=True, slots=True)
class TextScore:
    """One text's sums over its `tokens` scored tokens: negative log-likelihoods (nats), KL divergence of the plan from
    the source, top-1 agreements, and cosines of the final states. NaN where the plan's states are not finite."""

    tokens: int
    source_nll: float
    plan_nll: float
    kl: float
    agreement: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a plan costs, next to its source. `ratio_low` and `ratio_high` bound the perplexity ratio at 95 %, from the
    spread over texts; KL is in nats a token; the shares lie in [0, 1]."""

    protocol: Protocol
    source_perplexity: float
    plan_perplexity: float
    ratio: float
    ratio_low: float
    ratio_high: float
    kl: float
    top1_agreement: float
    cosine: float
    texts: tuple[TextScore, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The best plan that a search had after `seconds` and `forwards` (blocks run over all practice texts)."""

    plan: DepthPlan
    score: float
    seconds: float
    forwards: float
    stage: Stage


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked of an exported checkpoint."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Where a checkpoint was written, what was checked of it and which files it has (name, bytes)."""

    path: str
    checks: tuple[Check, ...]
    files: tuple[tuple[str, int], ...]

    @property
    def passed(self) -> bool:
        """True when every check passed."""
        return all(check.passed for check in self.checks)
