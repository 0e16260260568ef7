from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from engine.errors import PlanError, SettingsError
from engine.judge.memory import PeakMemory, cache_bytes, memory_of
from engine.plans.live import live_network
from engine.plans.rules import fold_spans, untouched
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


def test_what_cannot_be_counted_is_said(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    with pytest.raises(SettingsError, match="at least 1"):
        memory_of(model, PLAN, context=0)
    with pytest.raises(PlanError):
        memory_of(model, untouched(5))


def test_the_peak_is_what_is_alive_at_once() -> None:
    with torch.no_grad(), PeakMemory() as memory:
        first = torch.zeros(1000)
        first.view(10, 100).add_(1)  # no storage of its own
        second = first * 2
        del first
        third = second[:500].clone()
    assert memory.peak == 8000
    assert memory.now == 6000
    del second, third
    assert memory.now == 0


def test_what_was_there_before_is_not_counted() -> None:
    weights = torch.zeros(1000)
    with PeakMemory() as memory:
        weights[:10].add_(1)
        weights.t()
    assert (memory.now, memory.peak) == (0, 0)
