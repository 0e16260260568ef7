"""Minitron (Muralidharan et al. 2024, 2407.14679), section 2.2: a layer matters as much as perplexity rises without it; a head, a
neuron or a channel as much as its activations are large."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from engine.cache import Definition
from engine.jobs import Job, Progress
from engine.judge.similarity import SimilarityMeter
from engine.measurements import Measurements
from engine.messages import Message
from engine.methods.width.scores import SCORES, AxisStatistics, ScoreSettings
from engine.passes.forward import Capture, logits_of, normed, resume
from engine.passes.sums import AGGREGATIONS
from engine.plans.rules import untouched
from engine.plans.surgery import Mixer
from engine.settings import control
from engine.types import Model

REMOVAL = Definition("perplexity", 1)


@dataclass(frozen=True, slots=True)
class RemovalPerplexity:
    """Perplexity on the calibration texts: the source's, and with layer i alone removed (Minitron's criterion)."""

    source: float
    removed: tuple[float, ...]


@torch.no_grad()
def negative_log_likelihood(model: Model, record: Capture, final: torch.Tensor) -> tuple[float, int]:
    """Return the sum over predicted tokens of -log p (nats), and their number; no token is predicted across texts."""
    total, count = 0.0, 0
    for _, start, stop in record.pack.spans:
        logits = logits_of(model, final[0, start : stop - 1]).float()
        targets = record.pack.ids[0, start + 1 : stop].to(logits.device)
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        count += stop - 1 - start
    return total, count


def perplexity(parts: list[tuple[float, int]]) -> float:
    """Return exp(mean -log p) over all parts; infinite where it overflows, NaN where nothing was predicted."""
    total, count = sum(a for a, _ in parts), sum(b for _, b in parts)
    if count == 0:
        return math.nan
    return math.exp(total / count) if total / count < 700 else math.inf


def removal_perplexity(meter: SimilarityMeter) -> Job[RemovalPerplexity]:
    """Return the calibration texts' perplexity with each layer alone removed. The cost is about depth / 2 forward passes, once: results are
    cached."""
    model = meter.model
    depth, mixer, measured = model.spec.depth, Mixer(model.network), Measurements(meter.key_of(REMOVAL))
    blocks = untouched(depth).blocks

    def without(layer: int) -> float:
        left = blocks[:layer] + blocks[layer + 1 :]
        with model.lock:
            finals = [(record, normed(model, resume(model, mixer, record, left, layer))) for record in meter.captures]
            return perplexity([negative_log_likelihood(model, record, final) for record, final in finals])

    if measured.get("source") is None:
        yield Progress(Message("Perplexity of the source"), 0.0)
        with model.lock:
            measured.add("source", perplexity([negative_log_likelihood(model, record, record.final) for record in meter.captures]))
    for layer in range(depth):
        if measured.get(str(layer)) is None:
            yield Progress(Message("Perplexity without layer {layer}", layer=layer), layer / depth)
            measured.add(str(layer), without(layer))
    source, *removed = (float(measured.get(name) or math.nan) for name in ("source", *map(str, range(depth))))
    return RemovalPerplexity(source, tuple(removed))


@dataclass(frozen=True, slots=True)
class MinitronSettings(ScoreSettings):
    """Settings of Minitron's width scores: how activations are aggregated over tokens, then over texts."""

    axes: ClassVar[tuple[str, ...]] = ("heads", "neurons", "channels")
    batch: str = field(default="l2", metadata=control("aggregation over texts", choices=AGGREGATIONS))
    sequence: str = field(default="mean", metadata=control("aggregation over the tokens of a text", choices=AGGREGATIONS))


@SCORES.register("minitron", "the magnitude of the activation", MinitronSettings, reference="2407.14679")
def minitron(reading: AxisStatistics, settings: MinitronSettings) -> torch.Tensor:
    """Return |X| aggregated over tokens, then over texts; a head gets the L2 norm of its elements, a channel the sum over the block's
    norms.

    As in the published code, a neuron's activation is the input of down_proj, after gate and activation function.
    """
    sizes = torch.stack([sums.aggregated(settings.batch, settings.sequence) for sums in reading.sums]).sum(0)
    return reading.folded(sizes.square()).sqrt() if reading.axis == "heads" else sizes
