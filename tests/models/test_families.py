from typing import Any

import pytest
from transformers import AutoConfig, BertConfig

from engine.errors import UnsupportedModelError
from engine.models.families import architecture_of, depth_of, layer_types_of, resized_config
from tests.families import FAMILIES

DEPTHS = {"num_hidden_layers", "n_layer"}


def config_of(family: str, **changes: Any) -> Any:
    return AutoConfig.for_model(family, **{**FAMILIES[family], **changes})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_resized_config_differs_in_its_depth_and_its_lists_a_layer_only(family: str) -> None:
    config = config_of(family)
    before = config.to_dict()
    resized = resized_config(config, (0, 1, 5))
    assert config.to_dict() == before
    assert depth_of(resized) == 3
    changed = {key for key, value in resized.to_dict().items() if value != before[key]}
    assert changed - DEPTHS == ({"layer_types"} if before.get("layer_types") else set())
    assert resized.to_dict().keys() == before.keys()


def test_layer_types_are_sliced_by_home() -> None:
    config = config_of("gemma3_text")
    assert layer_types_of(config) == ("sliding_attention", "sliding_attention", "full_attention") * 2
    assert layer_types_of(resized_config(config, (1, 2, 5))) == ("sliding_attention", "full_attention", "full_attention")
    assert layer_types_of(config_of("llama")) is None


def test_every_list_of_the_depth_is_sliced_and_no_other() -> None:
    config = config_of("llama", num_hidden_layers=3, eos_token_id=[1, 2, 3])
    config.no_rope_layers = [1, 1, 0]
    config.architectures = ["a", "b", "c"]
    config.two_things = ["x", "y"]
    resized = resized_config(config, (0, 2))
    assert resized.no_rope_layers == [1, 0]
    assert resized.eos_token_id == [1, 2, 3]
    assert resized.architectures == ["a", "b", "c"]
    assert resized.two_things == ["x", "y"]
    assert config.no_rope_layers == [1, 1, 0]


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'bert'.*llama"):
        architecture_of(BertConfig())


def test_gpt2_with_attention_scaled_by_layer_index_is_refused() -> None:
    assert architecture_of(config_of("gpt2")).depth_key == "n_layer"
    with pytest.raises(UnsupportedModelError, match="scale_attn_by_inverse_layer_idx"):
        architecture_of(config_of("gpt2", scale_attn_by_inverse_layer_idx=True))


def test_layers_that_are_not_alike_are_refused() -> None:
    config = config_of("llama", per_layer_config={"1": {"intermediate_size": 8}})
    with pytest.raises(UnsupportedModelError, match="per_layer_config"):
        architecture_of(config)


def test_quantised_weights_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="quantised"):
        architecture_of(config_of("llama", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}))
