import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import normalizers

from engine.jobs import drain
from engine.judge.similarity import SimilarityMeter, cached_profile
from engine.methods.depth.laco import LacoSettings, landscape, propose
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.models.texts import calibration_of
from engine.plans.rules import RULES, fold, untouched
from engine.types import Model
from tests.families import TEXTS, save_tiny, tiny_network, tiny_tokenizer
from tests.naive import cosines, last_states, merge, token_ids

LONG_TEXTS = tuple(f"Text {number}: {'the Danube flows past Vienna, ' * 3}{number}" for number in range(8))  # about 100 tokens each


@pytest.fixture
def overflowing(tmp_path: Path) -> Model:
    """A float16 model that runs well, but in which Eq. 1 over layers 2 to 4 sums to more than float16 can hold."""
    network = tiny_network("llama").half()
    with torch.no_grad():
        for layer, sign in ((2, -1), (3, 1), (4, 1)):
            mlp = network.model.layers[layer].mlp
            mlp.gate_proj.weight.mul_(0.01)
            mlp.up_proj.weight.mul_(0.01)
            mlp.down_proj.weight.fill_(sign * 3e4)
    network.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return drain(open_model(parse_source(str(tmp_path / "model"))))


def test_each_text_has_its_own_value_under_both_definitions(tiny: Callable[..., Model]) -> None:
    model = tiny("qwen2")
    found = SimilarityMeter(model, calibration_of(TEXTS)).measure(fold(untouched(6).blocks, 2, 3, "mean"), 2)
    sentences = token_ids(model.tokenizer, TEXTS)
    source, folded = last_states(model.network, sentences), last_states(merge(model.network, 2, 2, "mean"), sentences)
    assert found.of("flattened") == pytest.approx(cosines(source, folded), abs=1e-5)
    assert found.of("per-token") == pytest.approx(cosines(source, folded, per_token=True), abs=1e-5)
    assert found.flattened != found.per_token


def test_the_source_is_entirely_similar_to_itself(tiny: Callable[..., Model]) -> None:
    found = SimilarityMeter(tiny("gpt2"), calibration_of(TEXTS)).measure(untouched(6).blocks, 0)
    assert [*found.flattened, *found.per_token] == pytest.approx([1.0] * 6, abs=1e-12)


def test_texts_that_fill_several_packs_keep_their_order(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    meter = SimilarityMeter(model, calibration_of(LONG_TEXTS))
    found = meter.measure(fold(untouched(6).blocks, 1, 4, "reference"), 1)
    assert len(meter.captures) > 1
    sentences = token_ids(model.tokenizer, LONG_TEXTS)
    folded = last_states(merge(model.network, 1, 3, "reference"), sentences)
    assert found.flattened == pytest.approx(cosines(last_states(model.network, sentences), folded), abs=1e-5)
    assert len({round(value, 6) for value in found.flattened}) == len(LONG_TEXTS)


@pytest.mark.parametrize("rule", RULES)
def test_trails_change_no_bit(rule: str, tiny: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = tiny("gemma3_text"), []
    for name in ("without", "with"):
        monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / name))
        meter = SimilarityMeter(model, calibration_of(LONG_TEXTS))
        if name == "with":
            meter.keep_trails()
        trials = [drain(propose(meter, LacoSettings(C=2, I=1, T=T, lowest=0, rule=rule))).trials for T in (1.0, 0.7, 0.4, -1.0)]
        found.append((trials, drain(landscape(meter, rule, "per-token"))))
    assert repr(found[0]) == repr(found[1])  # as text, in which NaN equals NaN


# --- What is not finite ---


def test_a_plan_that_overflows_is_nan_and_rejected(overflowing: Model, fresh_cache: Path) -> None:
    meter = SimilarityMeter(overflowing, calibration_of(TEXTS))
    settings = LacoSettings(C=3, I=1, T=-1.0, lowest=1, highest=5, rule="paper")
    trials = drain(propose(meter, settings)).trials
    assert [trial.pointer for trial in trials] == [2, 1]
    assert [math.isnan(trial.similarity) for trial in trials] == [True, False]
    assert [math.isnan(trial.spread) for trial in trials] == [True, False]
    assert [(trial.accepted, trial.depth_after) for trial in trials] == [(False, 6), (True, 4)]
    again = SimilarityMeter(overflowing, calibration_of(TEXTS))
    assert repr(drain(propose(again, settings)).trials) == repr(trials)  # NaN comes back from the disk as NaN


# --- Memory ---


def test_a_profile_is_found_again_without_running_the_model(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    found = drain(cached_profile(SimilarityMeter(tiny("llama"), calibration_of(TEXTS))))
    meter = SimilarityMeter(tiny("llama"), calibration_of(TEXTS))
    assert drain(cached_profile(meter)) == found
    assert meter._captures is None
    assert found != drain(cached_profile(SimilarityMeter(tiny("llama"), calibration_of(TEXTS[1:]))))


def test_a_later_meter_knows_what_an_earlier_one_measured(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    model, blocks = tiny("llama"), fold(untouched(6).blocks, 2, 2, "mean")
    first = SimilarityMeter(model, calibration_of(TEXTS))
    assert not first.known(blocks)
    value = first.measure(blocks, 2)
    assert first.known(blocks)
    later = SimilarityMeter(model, calibration_of(TEXTS, "the same texts under another name"))
    assert later.known(blocks)
    assert later.measure(blocks, 2) == value
    assert later._captures is None  # the model was not even run once


@pytest.mark.parametrize("what", ["texts", "model", "dtype", "plan"])
def test_nothing_is_known_of_what_differs_in_one_thing(what: str, tiny: Callable[..., Model], fresh_cache: Path) -> None:
    model, blocks = tiny("llama"), fold(untouched(6).blocks, 2, 3, "mean")
    SimilarityMeter(model, calibration_of(TEXTS)).measure(blocks, 2)
    other, texts = model, TEXTS
    if what == "texts":
        texts = TEXTS[:2]
    elif what == "model":
        other = tiny("llama", seed=1)
    elif what == "dtype":
        other = drain(open_model(parse_source(str(model.folder), "bfloat16")))
    else:
        blocks = fold(untouched(6).blocks, 2, 3, "paper")
    assert not SimilarityMeter(other, calibration_of(texts)).known(blocks)


def test_nothing_is_known_of_the_model_with_another_tokenizer(tiny: Callable[..., Model], tmp_path: Path, fresh_cache: Path) -> None:
    model, blocks = tiny("llama"), fold(untouched(6).blocks, 2, 3, "mean")
    folder = save_tiny(tmp_path / "lowercasing", "llama")
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save_pretrained(folder)
    other = drain(open_model(parse_source(str(folder))))
    assert other.tokenizer(TEXTS[0])["input_ids"] != model.tokenizer(TEXTS[0])["input_ids"]
    SimilarityMeter(model, calibration_of(TEXTS)).measure(blocks, 2)
    assert not SimilarityMeter(other, calibration_of(TEXTS)).known(blocks)
