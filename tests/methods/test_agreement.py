import math

import pandas
import pytest
import torch

from engine.methods.analysis.agreement import LEAST, agreements, spearman, with_losses


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
    assert [one.units for one in found] == [6, 6, 6]


def test_scores_are_held_against_what_was_measured_in_layers_that_have_enough() -> None:
    scores = {"a": [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [1, 2, 3, 4, 5]], "b": [[2, 1, 4, 3, 9], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]]}
    first = {(0, unit): loss for unit, loss in ((4, 0.9), (0, 0.1), (2, 0.5), (1, 0.3))}
    assert with_losses(scores, dict(list(first.items())[: LEAST - 1])) == ()
    few = {(2, unit): 1.0 + unit for unit in range(LEAST - 1)}
    a, b = with_losses(scores, first | few)
    assert [(one.first, one.second, one.units) for one in (a, b)] == [("a", "loss", 4), ("b", "loss", 4)]
    assert (a.layers, b.layers) == (pytest.approx((1,)), pytest.approx((0.8,)))  # 2 1 4 9 against .1 .3 .5 .9
    a, _ = with_losses(scores, first | {(1, unit): 1.0 + unit for unit in range(5)})
    assert (a.layers, a.units) == (pytest.approx((1, -1)), 9)
