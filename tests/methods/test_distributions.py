"""How scores are distributed over weights, counted by hand."""

import math
from collections.abc import Callable

import pytest
import torch

from engine.jobs import drain
from engine.judge.practice import practice_packs
from engine.methods.masks.distributions import BINS, SHARES, distributions
from engine.methods.masks.pruning import weight_scores
from engine.models.families import blocks_of
from engine.models.texts import calibration_of
from engine.plans.rules import untouched
from engine.types import Model
from tests.families import TEXTS


def test_every_weight_is_counted_where_its_score_lies(tiny: Callable[..., Model]) -> None:
    model = tiny("llama", seed=11)
    with torch.no_grad():
        blocks_of(model.network)[2].mlp.up_proj.weight[0, :5] = 0.0
    found = drain(distributions(model, untouched(6), (), "magnitude"))
    assert len(found.projections) == 7
    for layer, block in enumerate(blocks_of(model.network)):
        for name, (mean, histogram) in zip(found.projections, ((one.mean, one.histogram) for one in found.layers[layer]), strict=True):
            sizes = block.get_submodule(name).weight.detach().abs().flatten().tolist()
            assert mean == pytest.approx(sum(sizes) / len(sizes))
            logs = [math.log10(size) for size in sizes if size > 0]
            assert histogram.zeros == len(sizes) - len(logs) == (5 if (layer, name) == (2, "mlp.up_proj") else 0)
            assert (histogram.low, histogram.high) == pytest.approx((min(logs), max(logs)))
            step, counts = (max(logs) - min(logs)) / BINS, [0] * BINS
            for log in logs:
                counts[min(int((log - min(logs)) / step), BINS - 1)] += 1
            assert sum(histogram.counts) == len(logs)
            assert sum(abs(a - b) for a, b in zip(histogram.counts, counts, strict=True)) <= 4  # at an edge rounding decides


def test_what_goes_with_the_lowest_of_each_output(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    packs = practice_packs(model, calibration_of(tuple(f"{text} {number}" for number in range(9) for text in TEXTS)), 300)
    scores: dict[tuple[int, str], torch.Tensor] = {}
    drain(weight_scores(model, untouched(6), packs, "wanda", lambda place, name, scored: scores.update({(place, name): scored})))
    found = drain(distributions(model, untouched(6), packs, "wanda"))
    for layer in range(6):
        for name, one in zip(found.projections, found.layers[layer], strict=True):
            rows = [sorted(row) for row in scores[layer, name].tolist()]
            for part in range(SHARES):
                lowest = sum(sum(row[: int(len(row) * part / SHARES)]) for row in rows)
                assert one.lost[part] == pytest.approx(lowest / sum(map(sum, rows)), rel=1e-4)
