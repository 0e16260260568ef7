import math
from collections.abc import Callable

import pytest
from transformers import LlamaConfig

from engine.errors import SettingsError
from engine.search.settings import Target
from engine.search.targets import layers_for
from engine.types import Model, ModelSpec

SPEC = ModelSpec("llama", "hand-made", 4, 32, 1400, (100, 300, 200, 400), None, "float16", 2, 0)
CONFIG = LlamaConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2)


@pytest.mark.parametrize(
    ("limit", "keep"),
    # 400 outside the blocks; the largest blocks are counted: 400, then 300, 200, 100
    [(800, 1), (1099, 1), (1100, 2), (1299.9, 2), (1300, 3), (1399, 3), (1400, 4), (10**9, 4), (math.inf, 4)],
)
def test_parameters_are_counted_with_the_largest_layers(limit: float, keep: int) -> None:
    assert layers_for(SPEC, CONFIG, Target(parameters=limit)) == keep
    assert layers_for(SPEC, CONFIG, Target(bytes=2 * limit)) == keep


def test_keys_and_values_are_counted_a_layer() -> None:
    # three layers: 2 bytes * 1300 parameters + 3 * 1920 of cache: keys and values, 2 heads, 8 wide, 10 tokens, 3 sequences, 2 bytes
    assert layers_for(SPEC, CONFIG, Target(bytes=2600 + 3 * 1920, context=10, batch=3)) == 3
    assert layers_for(SPEC, CONFIG, Target(bytes=2600 + 3 * 1920 - 1, context=10, batch=3)) == 2


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_a_real_model_meets_its_target_exactly(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    blocks = model.spec.block_parameters
    assert len(set(blocks)) == 1
    four = model.spec.parameters - 2 * blocks[0]
    assert layers_for(model.spec, model.config, Target(parameters=four)) == 4
    assert layers_for(model.spec, model.config, Target(parameters=four - 1)) == 3
    heads, width = {"llama": (2, 8), "gemma3_text": (2, 16), "gpt2": (4, 8)}[family]
    whole = {"llama": 4, "gemma3_text": 2, "gpt2": 4}[family]  # of the four largest; a sliding layer keeps the last 5 tokens
    cache = 2 * heads * width * 4 * (whole * 100 + (4 - whole) * 5)  # float32
    assert layers_for(model.spec, model.config, Target(bytes=4 * four + cache, context=100)) == 4
    assert layers_for(model.spec, model.config, Target(bytes=4 * four + cache - 1, context=100)) == 3


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Target(parameters=799), "800 parameters"),
        (Target(parameters=-1), "800 parameters"),
        (Target(parameters=math.nan), "800 parameters"),
        (Target(bytes=1e3), "0.000 GB"),
        (Target(bytes=2e6, context=100_000, batch=10), "0.064 GB|0.066 GB"),
        (Target(keep=0), "nearest possible number is 1"),
        (Target(keep=5), "nearest possible number is 4"),
        (Target(), "one target"),
        (Target(keep=2, parameters=1000), "one target"),
        (Target(parameters=1000, bytes=1000), "one target"),
    ],
)
def test_an_impossible_target_names_the_nearest(target: Target, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        layers_for(SPEC, CONFIG, target)


@pytest.mark.parametrize("target", [Target(bytes=1600, context=-5), Target(bytes=1600, context=5, batch=-1)])
def test_a_cache_of_less_than_nothing_is_refused(target: Target) -> None:
    with pytest.raises(SettingsError):
        layers_for(SPEC, CONFIG, target)


def test_keep_and_layers_for_agree() -> None:
    assert [layers_for(SPEC, CONFIG, Target(keep=keep)) for keep in (1, 2, 3, 4)] == [1, 2, 3, 4]
