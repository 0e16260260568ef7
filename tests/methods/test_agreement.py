import math

import pandas
import pytest
import torch

from engine.methods.agreement import agreements, spearman


def test_it_is_the_rank_correlation_that_pandas_has() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        x = torch.randint(0, 8, (40,), generator=generator).tolist()  # many ties
        y = (torch.tensor(x) + 3 * torch.randn(40, generator=generator)).tolist()
        expected = pandas.Series(x).rank().corr(pandas.Series(y).rank())
        assert spearman(x, y) == pytest.approx(expected)
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_any_two_are_compared_layer_by_layer() -> None:
    found = agreements({"a": [[1, 2, 3], [3, 2, 1]], "b": [[2, 4, 9], [1, 2, 3]], "c": [[1, 3, 2], [1, 3, 2]]})
    assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found[0].layers == pytest.approx((1, -1))
    assert found[1].layers == pytest.approx((0.5, -0.5))
