import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.errors import PlanError, SettingsError
from engine.jobs import drain
from engine.judge import speed
from engine.judge.memory import memory_of
from engine.judge.speed import measure_speed, time_once
from engine.plans.live import live_network
from engine.plans.rules import fold_spans
from engine.types import Model
from tests.families import FAMILIES

PLAN = fold_spans(6, [(0, 1), (3, 5)], "mean")  # three blocks; crosses layer types in gemma3_text and qwen2


def test_source_and_plan_take_turns_and_ratios_are_of_the_medians_told(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps, depths = tiny("llama"), [], []
    seconds = iter([(9.0, 9.0), (9.0, 9.0), (1.0, 2.0), (0.5, 1.0), (2.0, 2.0), (2.0, 2.0), (4.0, 8.0), (1.0, 1.0)])

    def timed(network: Any, prompt: torch.Tensor, new_tokens: int) -> tuple[float, float]:
        depths.append(network.config.num_hidden_layers)
        return next(seconds)

    monkeypatch.setattr(speed, "time_once", timed)
    found = drain(measure_speed(model, PLAN, prompt_tokens=10, new_tokens=4, rounds=3), steps.append)
    assert depths == [6, 3] * 4
    assert [step.fraction for step in steps] == [0, 0.25, 0.5, 0.75]
    assert (found.source_prefill, found.plan_prefill) == (5.0, 10.0)
    assert (found.source_decode, found.plan_decode) == (2.0, 4.0)
    assert (found.prefill_ratio, found.decode_ratio) == (2.0, 2.0)
    assert (found.prefill_range, found.decode_range) == ((1.0, 4.0), (1.0, 8.0))  # of 2, 1, 4 and of 2, 1, 8
    assert found.depth_ratio == 0.5


def test_a_ratio_agrees_with_the_two_figures_beside_it(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of these rounds the median ratio is 0.9, while the plan's median is above the source's."""
    rounds = [(10.0, 9.0), (20.0, 22.0), (30.0, 27.0)]  # tokens a second of source and plan
    seconds = iter([(1.0, 1.0)] * 2 + [(10 / rate, 4 / rate) for turn in rounds for rate in turn])
    monkeypatch.setattr(speed, "time_once", lambda *_: next(seconds))
    found = drain(measure_speed(tiny("llama"), PLAN, prompt_tokens=10, new_tokens=4, rounds=3))
    assert (found.source_decode, found.plan_decode) == (pytest.approx(20.0), pytest.approx(22.0))
    for part in ("prefill", "decode"):
        told = getattr(found, f"plan_{part}") / getattr(found, f"source_{part}")
        low, high = getattr(found, f"{part}_range")
        assert getattr(found, f"{part}_ratio") == told == pytest.approx(1.1)
        assert (low, high) == (pytest.approx(0.9), pytest.approx(1.1))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_measured_is_finite_and_positive(family: str, tiny: Callable[..., Model]) -> None:
    found = drain(measure_speed(tiny(family), PLAN, prompt_tokens=16, new_tokens=4, rounds=2))
    assert all(math.isfinite(value) and value > 0 for value in dataclasses.astuple(found) if isinstance(value, float))
    assert (found.device, found.dtype, found.rounds) == ("cpu", "float32", 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_peak_holds_the_weights_the_cache_and_one_blocks_work(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    short, long = (drain(measure_speed(model, PLAN, prompt_tokens=tokens, new_tokens=2, rounds=1)) for tokens in (8, 64))
    for found in (short, long):
        memory = memory_of(model, PLAN, found.prompt_tokens + 2)
        assert found.source_peak > memory.source_weights + memory.source_cache
        assert found.plan_peak > memory.plan_weights + memory.plan_cache
        assert found.plan_peak < found.source_peak
    assert long.plan_peak > short.plan_peak


def test_decoding_is_greedy_generation(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    network, prompt, seen = live_network(tiny("gemma3_text"), PLAN), torch.arange(9)[None], []
    network.register_forward_pre_hook(lambda _m, _a, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    time_once(network, prompt, 8)
    found = torch.cat(seen, dim=1)
    expected = network.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, min_new_tokens=8, max_new_tokens=8)
    assert (found.shape, found[0, :9].tolist()) == (expected.shape, prompt[0].tolist())
    if 1 not in found[0, 9:]:  # the end of text, which generation was told to avoid
        assert torch.equal(found, expected)


def test_what_cannot_be_measured_is_said(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    for options in ({"prompt_tokens": 128}, {"rounds": 0}, {"new_tokens": 0}):
        with pytest.raises(SettingsError, match="context of 128"):
            drain(measure_speed(model, PLAN, **options))
    with pytest.raises(PlanError):
        drain(measure_speed(model, fold_spans(5, [(0, 1)], "mean")))
