"""The search over shapes: which are legal, what their estimates say, and that the measured ones are judged by their cost."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from engine.errors import SettingsError
from engine.jobs import Job, drain
from engine.judge.cost import Cost
from engine.judge.practice import practice_packs
from engine.models.families import blocks_of
from engine.models.shapes import shape_of, shaped_config
from engine.models.texts import calibration_of
from engine.plans.live import live_network
from engine.plans.words import weigh
from engine.search.shapes import losses, residual, search_shapes, shapes_near
from engine.types import Model, Plan
from tests.families import TEXTS


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "gpt2"])
def test_every_shape_is_legal_and_near_the_budget(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    budget = 0.8 * model.spec.parameters
    found = shapes_near(model, budget)
    assert len(set(found)) == len(found) > 1
    for shape in found:
        shaped_config(model.config, shape)
    assert {shape.depth for shape in found} <= {3, 4, 5, 6}
    if family == "gpt2":
        assert {(shape.heads, shape.channels) for shape in found} == {(4, 32)}
    else:
        assert {shape.heads for shape in found} == {2, 4}


def test_the_residual_is_that_of_a_least_squares_fit() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 8, generator=generator, dtype=torch.float64)
    x[:, 5] = x[:, 0] + 0.1 * x[:, 5]
    weight = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    kept, gone = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6, 7])
    wanted = x @ weight.T
    fitted = torch.linalg.lstsq(x[:, kept], wanted - x[:, kept] @ weight[:, kept].T).solution
    error = (wanted - x[:, kept] @ (weight[:, kept].T + fitted)).square().sum()
    assert residual(x.T @ x, weight, kept, gone) == pytest.approx(float(error), rel=0.02)  # the damping alone is between them


def test_losses_grow_with_what_is_cut(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    whole = shape_of(model.config)
    shapes = [replace(whole, neurons=count) for count in (12, 24, 36, 48)] + [replace(whole, heads=2), replace(whole, channels=24)]
    found = drain(losses(model, practice_packs(model, calibration_of(TEXTS * 3), 200), shapes))
    for layer in range(6):
        lost = [found.neurons[count][layer] for count in (12, 24, 36, 48)]
        assert lost == sorted(lost, reverse=True)
        assert lost[-1] == 0 < lost[0]
        assert found.heads[2][layer] > 0
        assert found.channels[24][layer] > 0
    assert found.of(whole, whole) == 0
    assert len(found.kept(4)) == 4
    assert min(found.influence) == found.influence[next(layer for layer in range(6) if layer not in found.kept(5))]


def test_the_best_by_the_estimate_are_measured_and_the_cheapest_comes_first(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    budget, seen = 0.75 * model.spec.parameters, list[Plan]()

    def measure(plan: Plan) -> Job[Cost]:
        seen.append(plan)
        yield from ()
        return Cost(3.0 - 0.1 * len(seen), 1.0, 2.0, 0.5)  # each costs less than the one before

    packs = practice_packs(model, calibration_of(TEXTS * 3), 200)
    found = drain(search_shapes(model, packs, budget, measure, measured=4, refitted=False))
    assert [one.plan for one in found[:4]] == seen[::-1]
    assert [one.cost is None for one in found] == [False] * 4 + [True] * (len(found) - 4)
    assert max(one.estimate for one in found[:4] if one.by_size) <= min(one.estimate for one in found[4:])
    assert 0 in [one.by_size for one in found[:4]]  # the largest is measured whatever its estimate
    assert sorted(one.by_size for one in found) == list(range(len(found)))
    for one in found[:4]:
        assert one.plan is not None
        assert weigh(model.spec, one.plan)[0] == one.parameters
        network = live_network(model, one.plan)
        assert sum(parameter.numel() for parameter in network.parameters()) == one.parameters
        assert len(blocks_of(network)) == one.shape.depth
        assert 0.95 * budget <= one.parameters <= budget


def test_a_budget_that_no_shape_meets_is_refused(tiny: Callable[..., Model]) -> None:
    with pytest.raises(SettingsError, match="no legal shape"):
        shapes_near(tiny("llama"), 1e9)
