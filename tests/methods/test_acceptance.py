import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import TextError
from engine.jobs import drain
from engine.judge.similarity import SimilarityMeter
from engine.methods.depth import acceptance
from engine.methods.depth.acceptance import METERS, CKAMeter, KLMeter, linear_cka
from engine.methods.depth.laco import LacoSettings, propose
from engine.models.texts import calibration_of
from engine.passes import logits
from engine.passes.logits import SourceLogs
from engine.plans.rules import fold, untouched
from engine.search.frontier import frontier
from engine.types import Model
from tests.families import TEXTS
from tests.naive import last_states, merge, token_ids

SETTINGS = LacoSettings(C=2, I=2, T=-0.2, lowest=1)


@pytest.fixture(scope="module")
def model(tiny: Callable[..., Model]) -> Model:
    return tiny("llama", num_hidden_layers=8)


@pytest.fixture(scope="module")
def meter(model: Model) -> SimilarityMeter:
    return SimilarityMeter(model, calibration_of(TEXTS, "mine"))


# --- The measures, written down naively ---


def naive_kl(network: Any, folded: Any, sentences: list[torch.Tensor]) -> list[float]:
    values = []
    with torch.no_grad():
        for ids in sentences:
            source, plan = (torch.softmax(net(ids).logits[0].double(), dim=-1) for net in (network, folded))
            values.append(math.exp(-float((source * (source / plan).log()).sum(-1).mean())))
    return values


def naive_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    x, y = x.double() - x.double().mean(dim=0, keepdim=True), y.double() - y.double().mean(dim=0, keepdim=True)
    return float((y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("rule", ["mean", "keep-last"])
def test_kl_and_cka_are_what_two_whole_models_give(family: str, rule: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    cosine, blocks = SimilarityMeter(model, calibration_of(TEXTS)), fold(untouched(6).blocks, 2, 3, rule)
    sentences, folded = token_ids(model.tokenizer, TEXTS), merge(model.network, 2, 2, rule)
    by_kl, by_cka = KLMeter(cosine).measure(blocks, 2), CKAMeter(cosine).measure(blocks, 2)
    assert by_kl.flattened == pytest.approx(naive_kl(model.network, folded, sentences), abs=1e-5)
    states = zip(last_states(model.network, sentences), last_states(folded, sentences), strict=True)
    assert by_cka.flattened == pytest.approx([naive_cka(a[0], b[0]) for a, b in states], abs=1e-5)
    assert (by_kl.per_token, by_cka.per_token) == (by_kl.flattened, by_cka.flattened)


def test_cka_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    assert float(linear_cka(x, x * 3 + 5)) == pytest.approx(1.0)  # neither scale nor shift matters
    assert float(linear_cka(x, x.flip(1))) == pytest.approx(1.0)  # nor a rotation
    assert float(linear_cka(x, torch.tensor([[1.0], [-2.0], [1.0]]))) == pytest.approx(0.0)
    assert float(linear_cka(x, torch.tensor([[1.0], [0.0], [0.0]]))) == pytest.approx(0.75)  # (1 * 1)^2 / (2 * 2/3)
    assert math.isnan(float(linear_cka(x, torch.ones(3, 2))))


@pytest.mark.parametrize("name", METERS)
def test_the_source_is_entirely_like_itself(name: str, meter: SimilarityMeter) -> None:
    assert METERS[name](meter).measure(untouched(8).blocks, 8).flattened == pytest.approx([1.0] * 3, abs=1e-6)


@pytest.mark.parametrize("name", METERS)
def test_long_texts_are_measured_whole(name: str, model: Model, monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> None:
    cosine, blocks = SimilarityMeter(model, calibration_of(TEXTS)), fold(untouched(8).blocks, 2, 3, "mean")
    whole = METERS[name](cosine).measure(blocks, 2)
    monkeypatch.setattr(logits, "CHUNK", 5)
    few = partial(SourceLogs, keep=20_000)  # some of the source's log-probabilities are kept, some are not
    monkeypatch.setattr(acceptance, "SourceLogs", few)
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(fresh_cache / "other"))
    assert METERS[name](cosine).measure(blocks, 2).flattened == pytest.approx(whole.flattened, abs=1e-6)


def test_the_meters_share_one_pass_and_remember_apart(model: Model, fresh_cache: Path) -> None:
    cosine, blocks = SimilarityMeter(model, calibration_of(TEXTS)), fold(untouched(8).blocks, 2, 3, "mean")
    meters = [kind(cosine) for kind in METERS.values()]
    for meter in meters:
        assert meter.captures is cosine.captures
        meter.keep_trails()
        assert not meter.known(blocks)
    values = [meter.measure(blocks, 2) for meter in (cosine, *meters)]
    assert len({value.flattened for value in values}) == 3
    again = [kind(SimilarityMeter(model, calibration_of(TEXTS))) for kind in METERS.values()]
    assert all(meter.known(blocks) for meter in again)
    assert [meter.measure(blocks, 2) for meter in again] == values[1:]
    assert all("captures" not in vars(meter) for meter in again)


@pytest.mark.parametrize("name", METERS)
def test_states_that_are_not_finite_are_nan(name: str, model: Model, monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> None:
    monkeypatch.setattr(acceptance, "resume", lambda _m, _x, record, *_: torch.full_like(record.final, math.nan))
    meter = METERS[name](SimilarityMeter(model, calibration_of(TEXTS)))
    assert all(math.isnan(value) for value in meter.measure(fold(untouched(8).blocks, 2, 3, "mean"), 2).flattened)


def test_cka_leaves_out_texts_too_short_for_it(model: Model) -> None:
    blocks = fold(untouched(8).blocks, 2, 3, "mean")
    alone = CKAMeter(SimilarityMeter(model, calibration_of(TEXTS[:1]))).measure(blocks, 2)
    assert CKAMeter(SimilarityMeter(model, calibration_of(("A", TEXTS[0], "No")))).measure(blocks, 2).flattened == pytest.approx(
        alone.flattened, abs=1e-6
    )
    with pytest.raises(TextError, match="no text of words has 3 tokens"):
        CKAMeter(SimilarityMeter(model, calibration_of(("A", "No"), "words")))


@pytest.mark.parametrize("name", METERS)
def test_algorithm_1_and_the_t_map_run_on_any_measure(name: str, meter: SimilarityMeter) -> None:
    other = METERS[name](meter)
    steps = drain(frontier(other, SETTINGS, 0.0)).steps
    assert len(steps) > 2
    for step in steps:
        assert drain(propose(other, replace(SETTINGS, T=step.t_from))) == step.proposal
