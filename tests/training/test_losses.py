"""Losses computed in pieces against naive transcriptions: values and gradients."""

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from engine.training import losses
from engine.training.losses import Distribution, Head, Likeliest, Text, apart, next_tokens, taught

TOKENS, WIDTH, VOCABULARY = 11, 6, 23


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "ROWS", 4)  # so that there are several pieces, the last of them shorter


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def capped(logits: torch.Tensor, cap: float | None) -> torch.Tensor:
    return logits if cap is None else cap * torch.tanh(logits / cap)


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("trains_head", [False, True])
def test_kl_and_text_are_the_naive_sum_in_value_and_gradients(cap: float | None, trains_head: bool) -> None:
    states, weight = drawn(TOKENS, WIDTH).requires_grad_(), drawn(VOCABULARY, WIDTH, seed=1).requires_grad_(trains_head)
    theirs, their_head = drawn(TOKENS, WIDTH, seed=2), Head(drawn(VOCABULARY, WIDTH, seed=3), cap)
    targets = torch.tensor([1, 5, -1, 7, 0, 22, 3, -1, 9, 9, -1])
    wanted = [states, weight][: 1 + trains_head]

    logs = capped(states @ weight.T, cap).log_softmax(-1)
    teacher = capped(theirs @ their_head.weight.T, cap).softmax(-1)
    naive = 0.7 * kl_div(logs, teacher, reduction="sum") + 0.2 * cross_entropy(logs, targets, ignore_index=-1, reduction="sum")
    expected = torch.autograd.grad(naive / 40, wanted)

    found = taught(states, Head(weight, cap), ((0.7, Distribution(theirs, their_head)), (0.2, Text(targets))), 40)
    assert abs(float(found - naive / 40)) < 1e-6
    for ours, right in zip(torch.autograd.grad(3 * found, wanted), expected, strict=True):
        assert (ours - 3 * right).abs().max() < 1e-6


def test_the_likeliest_tokens_alone_are_the_sum_over_them() -> None:
    states, weight = drawn(TOKENS, WIDTH).requires_grad_(), drawn(VOCABULARY, WIDTH, seed=1)
    teacher = drawn(TOKENS, VOCABULARY, seed=2).log_softmax(-1)
    kept = teacher.topk(5)
    logs = (states @ weight.T).log_softmax(-1)
    naive = (kept.values.exp() * (kept.values - logs.gather(1, kept.indices))).sum()
    found = taught(states, Head(weight), ((1.0, Likeliest(kept.values, kept.indices)),), 1)
    assert torch.allclose(found, naive, atol=1e-5)
    assert torch.allclose(*(torch.autograd.grad(loss, states)[0] for loss in (found, naive)), atol=1e-5)


def test_what_follows_is_in_the_same_document() -> None:
    ids, positions = torch.tensor([[5, 6, 7, 8, 9], [1, 2, 3, 4, 5]]), torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]])
    assert next_tokens(ids, positions).tolist() == [[6, 7, -1, 9, -1], [2, 3, 4, 5, -1]]


def test_states_are_apart_by_their_angle_or_their_distance() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 3.0], [0.0, 1.0]])
    assert apart(student, teacher, "cosine").item() == pytest.approx(0.5)
    assert apart(student, teacher, "mse").item() == pytest.approx((10 / 9 + 1) / 2)
