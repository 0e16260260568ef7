from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from engine.passes.forward import logits_of, normed, resume
from engine.passes.sensitivity import Sensitivity
from engine.plans.rules import untouched
from engine.plans.surgery import Mixer
from engine.types import Model
from tests.judge.test_objectives import objective_of


@pytest.mark.parametrize(("family", "point"), [("llama", 6), ("llama", 3), ("llama", 0), ("qwen2", 4), ("gpt2", 6), ("gpt2", 2)])
def test_the_estimate_is_the_divergence_of_small_changes(family: str, point: int, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    objective = objective_of(model)
    records = objective.records
    sensitivity, mixer, blocks = Sensitivity(model, records), Mixer(model.network), untouched(6).blocks
    generator = torch.Generator().manual_seed(5)
    estimated, true = 0.0, 0.0
    for _ in range(12):
        (record,) = records
        state = record.states[point]
        changed = state + 0.02 * state.std() * torch.randn(state.shape, generator=generator)
        estimated += sensitivity.cost(point, [changed])
        shadow = SimpleNamespace(pack=record.pack, states=(changed,) * 7, calls=record.calls)
        final = normed(model, resume(model, mixer, shadow, blocks, point))  # type: ignore[arg-type]
        p, q = (logits_of(model, states)[0].double().log_softmax(-1) for states in (record.final, final))
        true += (p.exp() * (p - q)).sum(-1).mean().item()
    assert true > 0
    assert 0.5 < estimated / true < 2


def test_no_change_costs_nothing_and_twice_the_change_four_times_as_much(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    (record,) = objective.records
    sensitivity = Sensitivity(objective.model, objective.records)
    assert sensitivity.cost(3, [record.states[3]]) == 0
    change = torch.randn(record.states[3].shape, generator=torch.Generator().manual_seed(1))
    once, twice = (sensitivity.cost(3, [record.states[3] + scale * change]) for scale in (1.0, 2.0))
    assert twice == pytest.approx(4 * once, rel=1e-3)


def test_leaving_layers_out_adds_their_contributions(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    (record,) = objective.records
    sensitivity = Sensitivity(objective.model, objective.records)
    assert sensitivity.without(set()) == 0
    for layer in range(6):
        assert sensitivity.without({layer}) == pytest.approx(sensitivity.cost(layer + 1, [record.states[layer]]), rel=1e-6)
    assert sensitivity.without({1, 4}) <= (sensitivity.without({1}) ** 0.5 + sensitivity.without({4}) ** 0.5) ** 2 * (1 + 1e-9)


def test_the_weights_keep_no_gradient(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    Sensitivity(objective.model, objective.records)
    assert all(parameter.grad is None for parameter in objective.model.network.parameters())
