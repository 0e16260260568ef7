import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from engine import speed
from engine.errors import PlanError, SettingsError
from engine.jobs import drain
from engine.live import live_network
from engine.plans import fold_spans, untouched
from engine.speed import cache_bytes, measure_speed, memory_of, time_once
from engine.types import Model
from tests.exporting import write
from tests.families import FAMILIES

PLAN = fold_spans(6, [(0, 1), (3, 5)], "mean")  # three blocks; crosses layer types in gemma3_text and qwen2


def filled_cache(network: Any, tokens: int, batch: int) -> int:
    """Return the bytes of the keys and values that a forward over random tokens leaves in a real cache."""
    cache = DynamicCache(config=network.config)
    with torch.no_grad():
        network(input_ids=torch.ones(batch, tokens, dtype=torch.long), past_key_values=cache, use_cache=True)
    return sum(tensor.numel() * tensor.element_size() for layer in cache.layers for tensor in (layer.keys, layer.values))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("tokens", "batch"), [(3, 1), (5, 1), (6, 2), (20, 1)])  # below, at and above the windows
def test_cache_bytes_are_those_of_a_real_cache(family: str, tokens: int, batch: int, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    found = memory_of(model, PLAN, tokens, batch)
    assert found.source_cache == filled_cache(model.network, tokens, batch)
    assert found.plan_cache == filled_cache(live_network(model, PLAN), tokens, batch)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("plan", [PLAN, untouched(6)], ids=["folded", "untouched"])
def test_parameters_and_bytes_are_those_of_the_live_network_and_the_export(
    family: str, plan: Any, tiny: Callable[..., Model], tmp_path: Path
) -> None:
    model, found = tiny(family), memory_of(tiny(family), plan)
    network = live_network(model, plan)
    assert found.plan_parameters == sum(tensor.numel() for tensor in network.parameters())
    assert found.plan_weights == sum(tensor.nbytes for tensor in network.parameters())
    assert found.source_parameters == model.spec.parameters
    assert found.source_weights == model.spec.bytes
    assert found.depth_ratio == plan.depth / 6
    (file,) = write(model, plan, tmp_path / "out").glob("*.safetensors")
    header = int.from_bytes(file.read_bytes()[:8], "little")
    assert found.plan_disk == file.stat().st_size - 8 - header


def test_a_tied_head_is_on_the_disk_once(tiny: Callable[..., Model]) -> None:
    tied, loose = (memory_of(tiny("llama", tie_word_embeddings=tie), PLAN) for tie in (True, False))
    assert loose.plan_disk - tied.plan_disk == loose.plan_weights - tied.plan_weights == 300 * 32 * 4


def test_a_cache_halves_with_the_dtype_and_by_hand(tiny: Callable[..., Model]) -> None:
    config = tiny("llama").config
    assert cache_bytes(config, torch.float32, 100) == 2 * 2 * 8 * 6 * 100 * 4
    assert cache_bytes(config, torch.bfloat16, 100, batch=3) == 2 * 2 * 8 * 6 * 100 * 2 * 3
    assert cache_bytes(tiny("mistral").config, torch.float32, 100) == 2 * 2 * 8 * 6 * 5 * 4


def test_source_and_plan_take_turns_and_ratios_are_medians_of_rounds(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert (found.prefill_ratio, found.decode_ratio) == (2.0, 2.0)  # of 2, 1, 4 and of 2, 1, 8
    assert found.depth_ratio == 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_measured_is_finite_and_positive(family: str, tiny: Callable[..., Model]) -> None:
    found = drain(measure_speed(tiny(family), PLAN, prompt_tokens=16, new_tokens=4, rounds=2))
    assert all(math.isfinite(value) and value > 0 for value in dataclasses.astuple(found) if isinstance(value, float))
    assert (found.device, found.dtype, found.rounds) == ("cpu", "float32", 2)


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
        with pytest.raises(SettingsError, match="context is 128"):
            drain(measure_speed(model, PLAN, **options))
    with pytest.raises(SettingsError, match="at least 1"):
        memory_of(model, PLAN, context=0)
    with pytest.raises(PlanError):
        memory_of(model, untouched(5))
