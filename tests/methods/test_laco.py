import copy
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from statistics import fmean, pstdev
from typing import Any

import pytest
from torch import nn

from engine.errors import SettingsError
from engine.jobs import Progress, drain
from engine.judge.similarity import SimilarityMeter
from engine.methods.depth.laco import DEFINITIONS, LacoSettings, Proposal, landscape, propose
from engine.models.texts import bundled, calibration_of
from engine.plans.rules import RULES, untouched
from engine.types import Model
from tests.families import TEXTS, crossed
from tests.naive import cosines, last_states, layer_collapse, merge, token_ids

NAIVE_FAMILIES = ("llama", "qwen3", "gemma3_text", "gpt2")


def meter_of(model: Model, texts: tuple[str, ...] = TEXTS) -> SimilarityMeter:
    return SimilarityMeter(model, calibration_of(texts))


def naive_trials(model: Model, texts: tuple[str, ...], settings: LacoSettings) -> list[tuple[int, int, float, bool, int]]:
    s = settings.checked(model.spec.depth)
    arguments = (s.C, s.I, s.T, s.lowest, s.highest, s.rule, s.similarity == "per-token")
    return layer_collapse(model.network, model.tokenizer, texts, *arguments)[0]


def mixed_threshold(meter: SimilarityMeter, settings: LacoSettings) -> float | None:
    """Return the highest T, well away from every similarity, at which some folds are accepted and some are not."""
    seen = {t.similarity for T in (1.0, -1.0) for t in drain(propose(meter, replace(settings, T=T))).trials}
    ordered = sorted(seen, reverse=True)
    for above, below in pairwise(ordered):
        trials = drain(propose(meter, replace(settings, T=(above + below) / 2))).trials
        decisions = {trial.accepted for trial in trials}
        if decisions == {True, False} and min(abs(t.similarity - (above + below) / 2) for t in trials) > 1e-3:
            return (above + below) / 2
    return None


def assert_agrees(proposal: Proposal, trials: list[tuple[int, int, float, bool, int]]) -> None:
    assert [(t.pointer, t.absorbed, t.accepted, t.depth_after) for t in proposal.trials] == [(p, a, ok, d) for p, a, _, ok, d in trials]
    assert [t.similarity for t in proposal.trials] == pytest.approx([s for _, _, s, _, _ in trials], abs=1e-4, rel=0)
    assert [t.step for t in proposal.trials] == list(range(len(trials)))
    assert proposal.plan.depth == trials[-1][4]


# --- Against the naive transcription ---


@pytest.mark.parametrize(("family", "given"), crossed(NAIVE_FAMILIES, [*product(RULES, DEFINITIONS)]))
def test_decides_as_the_published_loop_does(family: str, given: tuple[str, Any], tiny: Callable[..., Model]) -> None:
    rule, definition = given
    model = tiny(family)
    meter = meter_of(model)
    compared = 0
    for C, I in ((2, 1), (3, 1), (4, 2)):
        settings = LacoSettings(C, I, lowest=0, rule=rule, similarity=definition)
        T = mixed_threshold(meter, settings)
        if T is not None:
            settings = replace(settings, T=T)
            assert_agrees(drain(propose(meter, settings)), naive_trials(model, TEXTS, settings))
            compared += 1
    assert compared >= 2


@pytest.mark.parametrize(("family", "rule"), crossed(NAIVE_FAMILIES, [*RULES]))
def test_near_the_top_fewer_layers_are_absorbed(family: str, rule: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    settings = LacoSettings(C=4, I=1, T=-1.0, lowest=0, rule=rule)
    proposal = drain(propose(meter_of(model), settings))
    assert_agrees(proposal, naive_trials(model, TEXTS, settings))
    assert [t.absorbed for t in proposal.trials] == [3, 1, 1]  # 6 layers: base 2 takes 3; only 1 is left above base 1, then base 0


def test_decides_as_the_published_loop_does_on_the_demo(demo: Model) -> None:
    texts = bundled("english").texts[:1]
    settings = LacoSettings(C=4, I=2, T=0.65, lowest=14, highest=29)
    proposal = drain(propose(meter_of(demo, texts), settings))
    assert_agrees(proposal, naive_trials(demo, texts, settings))
    assert {t.accepted for t in proposal.trials} == {True, False}


# --- The trace ---


def test_the_first_trial_folds_below_h_and_the_last_base_is_l(tiny: Callable[..., Model]) -> None:
    proposal = drain(propose(meter_of(tiny("llama")), LacoSettings(C=2, I=3, T=1.0, lowest=1, highest=5)))
    assert [t.pointer for t in proposal.trials] == [3, 2, 1]
    assert not any(t.accepted for t in proposal.trials)
    assert proposal.plan.blocks == untouched(6).blocks


def test_a_window_that_reaches_below_l_tries_nothing(tiny: Callable[..., Model]) -> None:
    proposal = drain(propose(meter_of(tiny("llama")), LacoSettings(C=6, lowest=1)))
    assert (proposal.trials, proposal.plan.blocks) == ((), untouched(6).blocks)


def test_a_similarity_equal_to_t_is_rejected(tiny: Callable[..., Model]) -> None:
    meter, settings = meter_of(tiny("llama")), LacoSettings(C=3, I=1, lowest=0)
    first = drain(propose(meter, settings)).trials[0].similarity
    assert not drain(propose(meter, replace(settings, T=first))).trials[0].accepted
    assert drain(propose(meter, replace(settings, T=math.nextafter(first, -1)))).trials[0].accepted


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_similarity_and_spread_are_mean_and_population_deviation_over_texts(definition: Any, tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    trial = drain(propose(meter_of(model), LacoSettings(C=3, lowest=0, similarity=definition))).trials[0]
    sentences = token_ids(model.tokenizer, TEXTS)
    states = (last_states(network, sentences) for network in (model.network, merge(model.network, 3, 2, "reference")))
    values = cosines(*states, per_token=definition == "per-token")
    assert trial.similarity == pytest.approx(fmean(values), abs=1e-5)
    assert trial.spread == pytest.approx(pstdev(values), abs=1e-5)
    assert trial.spread > 0.01


def test_the_plan_names_every_setting_and_the_texts(tiny: Callable[..., Model]) -> None:
    meter = meter_of(tiny("llama"))
    plan = drain(propose(meter, LacoSettings(C=3, I=1, T=0.5, lowest=0, rule="mean", similarity="per-token"))).plan
    assert plan.method == "laco"
    assert dict(plan.settings) == {
        "C": 3,
        "I": 1,
        "T": 0.5,
        "lowest": 0,
        "highest": 6,
        "rule": "mean",
        "similarity": "per-token",
        "calibration": meter.calibration.fingerprint,
    }


def test_nothing_is_deep_copied(tiny: Callable[..., Model], fresh_cache: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, deepcopy = tiny("llama"), copy.deepcopy

    def refuse(value: Any, *rest: Any) -> Any:
        assert not isinstance(value, nn.Module), "a module was deep-copied"
        return deepcopy(value, *rest)

    monkeypatch.setattr(copy, "deepcopy", refuse)
    before = {name: tensor.data_ptr() for name, tensor in model.network.named_parameters()}
    values = {name: tensor.clone() for name, tensor in model.network.named_parameters()}
    assert drain(propose(meter_of(model), LacoSettings(C=4, I=1, T=-1.0, lowest=0, rule="paper"))).plan.depth < 6
    assert {name: tensor.data_ptr() for name, tensor in model.network.named_parameters()} == before
    assert all(values[name].equal(tensor) for name, tensor in model.network.named_parameters())


def test_progress_rises_within_0_and_1(tiny: Callable[..., Model], fresh_cache: Any) -> None:
    told: list[Progress] = []
    drain(propose(meter_of(tiny("llama")), LacoSettings(C=2, I=1, T=0.5, lowest=0)), told.append)
    fractions = [progress.fraction for progress in told]
    assert len(fractions) >= 4
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < fractions[-1] <= 1


@pytest.mark.usefixtures("fresh_cache")
def test_settings_are_checked_before_the_model_is_run(tiny: Callable[..., Model]) -> None:
    meter = meter_of(tiny("llama"))
    with pytest.raises(SettingsError, match="C is 7"):
        drain(propose(meter, LacoSettings(C=7)))
    assert "captures" not in vars(meter)


# --- The landscape ---


def test_the_landscape_is_every_single_fold(tiny: Callable[..., Model]) -> None:
    model = tiny("gemma3_text")
    found = drain(landscape(meter_of(model), "mean", "per-token", (2, 5, 9)))
    assert found.widths == (2, 5)  # 9 layers do not fit into 6
    sentences = token_ids(model.tokenizer, TEXTS)
    source = last_states(model.network, sentences)
    for width, row in zip(found.widths, found.similarity, strict=True):
        fits = 6 - width + 1
        folded = [last_states(merge(model.network, base, width - 1, "mean"), sentences) for base in range(fits)]
        expected = [fmean(cosines(source, states, per_token=True)) for states in folded]
        assert row[:fits] == pytest.approx(expected, abs=1e-5)
        assert len(row) == 6
        assert all(math.isnan(value) for value in row[fits:])
