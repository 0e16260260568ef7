"""Estimated costs of depth and width, against least squares and gradients computed by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from engine.jobs import drain
from engine.judge.practice import practice_packs
from engine.models.shapes import shape_of
from engine.models.texts import calibration_of
from engine.passes.forward import capture
from engine.passes.sensitivity import Sensitivity
from engine.search.estimates import Estimates, estimates, learned, residuals
from engine.types import Model
from tests.families import TEXTS


def test_the_residuals_are_those_of_least_squares_fits() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 8, generator=generator, dtype=torch.float64)
    x[:, 5] = x[:, 0] + 0.1 * x[:, 5]
    weight = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    order, wanted = torch.randperm(8, generator=generator), x @ weight.T
    found = residuals(x.T @ x, weight, order, root @ root.T)
    for count in range(8):
        kept = order[:count]
        fitted = torch.linalg.lstsq(x[:, kept], wanted).solution if count else torch.zeros(0, 4, dtype=torch.float64)
        error = (wanted - x[:, kept] @ fitted) @ root
        assert float(found[count]) == pytest.approx(float(error.square().sum()), rel=0.05)  # the damping alone is between them
    assert found[8] == 0


@pytest.fixture
def found(tiny: Callable[..., Model]) -> Estimates:
    model = tiny("llama")
    whole = shape_of(model.config)
    shapes = [replace(whole, neurons=count) for count in (12, 24, 36)] + [replace(whole, heads=2), replace(whole, channels=24)]
    return drain(estimates(model, practice_packs(model, calibration_of(TEXTS * 3), 200), shapes))


def test_estimates_grow_with_what_is_cut(found: Estimates, tiny: Callable[..., Model]) -> None:
    whole = shape_of(tiny("llama").config)
    assert found.of(whole) == pytest.approx((0, 0, 0, 0), abs=1e-12)
    for layer in range(6):
        lost = [found.neurons[count][layer] for count in (12, 24, 36, 48)]
        assert lost == sorted(lost, reverse=True)
        assert lost[-1] == 0 < lost[0]
    depth, heads, neurons, channels = found.of(replace(whole, depth=4, heads=2, neurons=36, channels=24))
    assert depth == found.layers[2] > 0
    assert heads == sum(found.heads[2][layer] for layer in found.kept(4)) > 0
    assert neurons == sum(found.neurons[36][layer] for layer in found.kept(4)) > 0
    assert channels == found.channels[24] > 0
    assert found.kept(4) == tuple(sorted(found.going[2:]))


def test_the_layer_that_goes_first_is_the_one_that_is_missed_least(found: Estimates, tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    packs = practice_packs(model, calibration_of(TEXTS * 3), 200)
    sensitivity = Sensitivity(model, tuple(capture(model, pack) for pack in packs))
    alone = [sensitivity.without({layer}) for layer in range(6)]
    assert alone[found.going[0]] == min(alone)
    assert found.layers[1] == pytest.approx(min(alone))
    assert found.layers[6] == pytest.approx(sensitivity.without(set(range(6))))


def test_channels_and_layers_are_one_change_of_the_stream_seen_from_two_sides(tiny: Callable[..., Model]) -> None:
    """Without all of its channels the stream has neither what the layers write nor the embedding."""
    model = tiny("qwen3")
    records = tuple(capture(model, pack) for pack in practice_packs(model, calibration_of(TEXTS), 40))
    sensitivity = Sensitivity(model, records)
    gradients = sensitivity._gradients
    naive = []
    for record, draws in zip(records, gradients, strict=True):
        for draw in draws:
            states = [torch.zeros_like(record.states[0]), *record.states]
            naive.append(sum(((states[point + 1] - states[point]) * draw[point])[0] for point in range(7)))
    torch.testing.assert_close(sensitivity.channels(), torch.cat(naive).double(), rtol=1e-5, atol=1e-6)
    pairs = [(record.states[2][0], draw[3][0]) for record, draws in zip(records, gradients, strict=True) for draw in draws]
    rows = torch.cat([gradient * state.norm(dim=-1, keepdim=True) for state, gradient in pairs])
    torch.testing.assert_close(sensitivity.metric(2), (rows.T @ rows / len(rows)).double(), rtol=1e-5, atol=1e-9)


def test_what_was_measured_teaches_what_an_axis_is_worth() -> None:
    assert learned([], []) == ()
    parts = [(0.2, 0.1, 0.0, 0.0), (0.1, 0.3, 0.1, 0.0), (0.0, 0.1, 0.3, 0.0), (0.3, 0.0, 0.2, 0.0)]
    assert learned(parts, [sum(one) for one in parts]) == pytest.approx((1, 1, 1, 1))
    many = parts * 200  # so many that trust in the estimates themselves no longer counts
    twice = learned(many, [2 * a + b + 0.5 * c for a, b, c, _ in many])
    assert twice == pytest.approx((2, 1, 0.5, 1), rel=0.01)
    assert min(learned([(0.5, 0.1, 0, 0)] * 50, [0.01] * 50)) >= 0
