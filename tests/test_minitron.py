import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.calibration import calibration_of
from engine.jobs import drain
from engine.methods.minitron import perplexity, removal_perplexity
from engine.similarity import SimilarityMeter
from engine.types import Model
from tests.families import TEXTS
from tests.naive import remove, token_ids

UNEQUAL = (*TEXTS, "x")  # one token predicts nothing and must weigh nothing


@torch.no_grad()
def naive_perplexity(network: Any, sentences: list[torch.Tensor]) -> float:
    losses = []
    for ids in sentences:
        logits = network(ids).logits[0].double().log_softmax(-1)
        losses += [-logits[place, ids[0, place + 1]].item() for place in range(ids.shape[1] - 1)]
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_each_layer_is_really_removed_and_the_rest_really_run(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    found, sentences = drain(removal_perplexity(SimilarityMeter(model, calibration_of(UNEQUAL)))), token_ids(model.tokenizer, UNEQUAL)
    assert found.source == pytest.approx(naive_perplexity(model.network, sentences), rel=1e-4)
    expected = []
    for layer in range(6):
        without = copy.deepcopy(model.network)
        remove(without, [layer])
        expected.append(naive_perplexity(without, sentences))
    assert found.removed == pytest.approx(expected, rel=1e-4)
    assert len({round(value, 3) for value in (found.source, *found.removed)}) == 7


def test_capped_logits_are_capped(tiny: Callable[..., Model]) -> None:
    model = tiny("gemma3_text", final_logit_softcapping=0.05)
    found = drain(removal_perplexity(SimilarityMeter(model, calibration_of(TEXTS))))
    assert found.source == pytest.approx(naive_perplexity(model.network, token_ids(model.tokenizer, TEXTS)), rel=1e-4)
    uncapped = tiny("gemma3_text")
    assert found.source != pytest.approx(naive_perplexity(uncapped.network, token_ids(model.tokenizer, TEXTS)), rel=1e-2)


def test_perplexity_pools_tokens_and_says_where_there_are_none() -> None:
    assert perplexity([(2.0, 1), (4.0, 5)]) == pytest.approx(math.e)
    assert math.isnan(perplexity([(0.0, 0)]))
    assert perplexity([(7000.0, 1)]) == math.inf
