"""Patterns and roles of heads, on known attention."""

from collections.abc import Callable

import pytest
import torch

from engine.passes import heads
from engine.passes.heads import attention, pattern, roles
from engine.types import Model
from tests.families import FAMILIES

IDS = torch.arange(12)[None] + 40


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_attention_that_the_network_has(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    usual = model.config._attn_implementation
    found = attention(model, IDS)
    assert len(found) == 6
    assert model.config._attn_implementation == usual
    for layer in found:
        assert tuple(layer.shape) == (4, 12, 12)
        torch.testing.assert_close(layer.sum(-1), torch.ones(4, 12))
        assert float(layer.triu(1).abs().max()) == 0  # nobody looks ahead


@pytest.mark.parametrize(
    ("role", "look"),
    [
        ("previous", lambda t: {max(t - 1, 0): 1.0}),
        ("first", lambda t: {0: 0.9, t: 0.1}),
        ("diffuse", lambda t: dict.fromkeys(range(t + 1), 1 / (t + 1))),
        ("induction", lambda t: {t - 23: 0.7, 0: 0.3} if t >= 24 else {0: 1.0}),
        ("mixed", lambda t: {0: 0.5, t: 0.5}),
    ],
)
def test_a_role_is_read_by_the_stated_rule(
    role: str, look: Callable[[int], dict[int, float]], tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(model: Model, ids: torch.Tensor) -> list[torch.Tensor]:
        found = torch.zeros(1, ids.shape[1], ids.shape[1])
        for t in range(ids.shape[1]):
            for to, share in look(t).items():
                found[0, t, to] += share
        return [found]

    monkeypatch.setattr(heads, "attention", known)
    ((found,),) = roles(tiny("llama"), IDS if role != "induction" else torch.arange(48)[None])
    assert found.role == role


def test_a_pattern_sets_the_first_token_apart(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    weights = attention(model, IDS)[2][1]
    found = pattern(model, IDS, 2, 1)
    assert len(found.tokens) == len(found.edges) == len(found.first) == 12
    assert found.first == pytest.approx(weights[:, 0].tolist())
    for place, edges in enumerate(found.edges):
        assert all(0 < to <= place for to, _ in edges)
        assert [share for _, share in edges] == sorted((share for _, share in edges), reverse=True)
        if edges:
            assert edges[0] == (int(weights[place, 1:].argmax()) + 1, pytest.approx(float(weights[place, 1:].max())))
