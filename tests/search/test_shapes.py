"""The search over shapes: the legal ones, their estimates, and that measured shapes are ranked by cost."""

from collections.abc import Callable

import pytest

from engine.errors import SettingsError
from engine.jobs import Job, drain
from engine.judge.cost import Cost
from engine.judge.practice import practice_packs
from engine.models.families import blocks_of
from engine.models.shapes import shaped_config
from engine.models.texts import calibration_of
from engine.plans.description import weigh
from engine.plans.live import live_network
from engine.search.shapes import search_shapes, shapes_near
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


def test_the_best_by_the_estimate_are_measured_and_the_cheapest_comes_first(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    budget, seen = 0.75 * model.spec.parameters, list[Plan]()

    def measure(plan: Plan) -> Job[Cost]:
        seen.append(plan)
        yield from ()
        return Cost(3.0 - 0.1 * len(seen), 1.0, 2.0, 0.5 - 0.1 * len(seen))  # each costs less than the one before

    packs = practice_packs(model, calibration_of(TEXTS * 3), 200)
    found = drain(search_shapes(model, packs, budget, measure, measured=4, refitted=False))
    assert [one.plan for one in found[:4]] == seen[::-1]
    assert [one.cost is None for one in found] == [False] * 4 + [True] * (len(found) - 4)
    estimates = [one.estimate for one in found[4:]]
    assert estimates == sorted(estimates)
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
    with pytest.raises(SettingsError, match="no smaller shape"):
        shapes_near(tiny("llama"), 1e9)
