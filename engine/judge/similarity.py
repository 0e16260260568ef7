"""Measure how similar a plan's final hidden states are to its source's: once per plan, cached on disk."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from engine.cache import Definition, Key, content_key, key_of
from engine.jobs import Job, Progress
from engine.measurements import Measurements
from engine.messages import Message
from engine.models.devices import exact
from engine.models.texts import packs_of
from engine.passes.forward import Capture, Trails, capture, normed, resume
from engine.passes.profiling import PROFILE, Profile, profile, profile_of
from engine.passes.trails import FoldTrails
from engine.plans.surgery import Mixer
from engine.types import Block, Model, SimilarityDefinition, TextSet

SIMILARITY = Definition("similarity", 1)


@dataclass(frozen=True, slots=True)
class Similarity:
    """Cosine similarity between the final hidden states (after the final norm) of a plan and of its source.

    Both definitions have one value per text: `flattened` is one cosine over all tokens and features of the text (as in the reference code),
    `per_token` the mean of the tokens' cosines. NaN where the plan's states are not finite.
    """

    flattened: tuple[float, ...]
    per_token: tuple[float, ...]

    def of(self, definition: SimilarityDefinition) -> tuple[float, ...]:
        """Return the values of one definition, one per text."""
        return self.flattened if definition == "flattened" else self.per_token


class SimilarityMeter:
    """Measures plans of one model on one calibration set; callers may share it, because it takes the model's lock."""

    def __init__(self, model: Model, calibration: TextSet) -> None:
        self.model = model
        self.calibration = calibration
        self._packs = packs_of(model.tokenizer, model.config, calibration)
        self._measured = Measurements(self.key_of(SIMILARITY))
        self._mixer = Mixer(model.network)
        self._captures: tuple[Capture, ...] | None = None
        self._trails: Trails | None = None

    def key_of(self, definition: Definition) -> Key:
        """Return the key of a measurement of this model on these texts. It includes their tokens, because another tokenizer changes the
        measurement."""
        return key_of(self.model, definition, [[pack.ids.tolist(), pack.spans] for pack in self._packs])

    def keep_trails(self) -> None:
        """Cache intermediate states of plans from now on; this is worth its memory if many plans are measured."""
        self._trails = self._trails or FoldTrails(max(256 << 20, self.model.spec.bytes // 4))

    @property
    def captures(self) -> tuple[Capture, ...]:
        """The one pass over the source, computed on first use."""
        if self._captures is None:
            with self.model.lock:  # of concurrent callers, only the first runs the pass
                self._captures = self._captures or tuple(capture(self.model, pack) for pack in self._packs)
        return self._captures

    def known(self, blocks: tuple[Block, ...]) -> bool:
        """Return whether the measurement of these blocks is cached."""
        return self._measured.get(blocks_key(blocks)) is not None

    def measure(self, blocks: tuple[Block, ...], prefix: int) -> Similarity:
        """Return the similarity of the plan with these blocks, of which the first `prefix` are the source's own."""
        name = blocks_key(blocks)
        value = self._measured.get(name)
        if value is None:
            with self.model.lock:
                value = self._measured.get(name)  # another tab may have measured it meanwhile
                if value is None:
                    value = self._run(blocks, prefix)
                    self._measured.add(name, value)
        return Similarity(*(tuple(math.nan if v is None else v for v in values) for values in value))

    def _run(self, blocks: tuple[Block, ...], prefix: int) -> list[list[float | None]]:
        """Return a plan's values as JSON; the caller holds the model's lock."""
        texts = len(self.calibration.texts)
        flattened: list[float | None] = [None] * texts
        per_token: list[float | None] = [None] * texts
        for record in self.captures:
            final = normed(self.model, resume(self.model, self._mixer, record, blocks, prefix, self._trails), blocks)
            for text, start, stop in record.pack.spans:
                source, plan = exact(record.final[0, start:stop]), exact(final[0, start:stop])
                flattened[text] = _finite(cosine(source.flatten(), plan.flatten()))
                per_token[text] = _finite(cosine(source, plan).mean())
        return [flattened, per_token]


def cached_profile(meter: SimilarityMeter) -> Job[Profile]:
    """Return the profile of a meter's model on its texts, cached on disk."""
    measured = Measurements(meter.key_of(PROFILE))
    known = measured.get("all")
    if known is None:
        yield Progress(Message("Running the texts through the model"))
        found = yield from profile(meter.captures)
        measured.add("all", asdict(found))
        return found
    return profile_of(known)


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the cosine of a and b over their last dimension, clamped to [-1, 1] (rounding may exceed it)."""
    return torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1.0, 1.0)


def _finite(value: torch.Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def blocks_key(blocks: tuple[Block, ...]) -> str:
    """Return the name of measurements of these blocks."""
    return content_key([_block_key(block) for block in blocks])[:32]


def _block_key(block: Block) -> list[Any]:
    depth = [block.home, block.mix, *([block.repair] if block.repair else [])]
    trim = block.trim and [block.trim.heads, block.trim.neurons, block.trim.channels, block.trim.plain, block.trim.refits]
    rest = {"refits": block.refits, "trim": trim, "masks": block.masks}
    return [*depth, *([rest] if any(rest.values()) else [])]
