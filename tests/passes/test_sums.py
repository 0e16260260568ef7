"""Running sums over the inputs of projections."""

import pytest
import torch

from engine.passes import sums
from engine.passes.sums import Gram


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 3, 10])
def test_a_gram_is_the_product_of_all_tokens_with_themselves(dtype: torch.dtype, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "_ADDED", 6)  # so that some of it is added up on the way
    x = torch.randn(11, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram, other = Gram(width, dtype), Gram(width, dtype)
    for part in x[:7].split(3):
        gram.add(part.to(dtype))
    torch.testing.assert_close(gram.total(), x[:7].mT @ x[:7], rtol=1e-5, atol=1e-5)
    other.add(x[7:])
    torch.testing.assert_close(gram.joined(other).total(), x.mT @ x, rtol=1e-5, atol=1e-5)
    gram.add(x[7:])  # it goes on after it was asked
    torch.testing.assert_close(gram.total(), x.mT @ x, rtol=1e-5, atol=1e-5)


def test_many_small_tokens_are_not_lost_beside_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "_ADDED", 1)
    gram = Gram(1, torch.float32)
    for value in (1e4, *[1.0] * 100):
        gram.add(torch.tensor([[value]]))
    assert gram.total().item() == 1e8 + 100  # float32 would have left it at 1e8
