import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.jobs import Progress, drain
from engine.judge.similarity import SimilarityMeter
from engine.methods.width import minitron
from engine.methods.width.minitron import perplexity, removal_perplexity
from engine.models.texts import calibration_of
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


def test_what_was_measured_is_remembered_even_of_an_interrupted_run(
    tiny: Callable[..., Model], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meters = [SimilarityMeter(tiny("llama"), calibration_of(TEXTS)) for _ in range(3)]
    interrupted = removal_perplexity(meters[0])
    for _ in range(4):  # the source and layers 0 and 1 are measured, layer 2 is only told of
        next(interrupted)
    interrupted.close()
    told: list[Progress] = []
    whole = drain(removal_perplexity(meters[1]), told.append)
    assert [progress.label for progress in told] == [f"Perplexity without layer {layer}" for layer in range(2, 6)]
    monkeypatch.setattr(minitron, "resume", None)
    assert drain(removal_perplexity(meters[2])) == whole
    assert "captures" not in vars(meters[2])
    monkeypatch.undo()
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(fresh_cache / "another"))
    assert drain(removal_perplexity(SimilarityMeter(tiny("llama"), calibration_of(TEXTS)))) == whole


def test_nothing_is_remembered_across_texts_or_models(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    sources = {
        drain(removal_perplexity(SimilarityMeter(tiny("llama", seed=seed), calibration_of(texts)))).source
        for seed, texts in ((0, TEXTS), (0, TEXTS[:2]), (1, TEXTS))
    }
    assert len(sources) == 3
