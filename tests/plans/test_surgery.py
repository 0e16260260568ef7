from collections.abc import Callable

import pytest
import torch

from engine.errors import PlanError
from engine.models.families import blocks_of
from engine.plans.surgery import Mixer, mix_tensors
from engine.types import Block, Model

A, B, C = (torch.tensor(values) for values in ([1.0, 2.0], [3.0, 5.0], [-1.0, 4.0]))


def test_a_mix_is_the_weighted_sum() -> None:
    assert mix_tensors([(-1.0, A), (1.0, B), (1.0, C)], torch.float32).tolist() == [1.0, 7.0]
    assert mix_tensors([(0.5, A), (0.5, B)], torch.float32).tolist() == [2.0, 3.5]
    assert mix_tensors([(2.0, A)], torch.float32).tolist() == [2.0, 4.0]
    assert (A.tolist(), B.tolist(), C.tolist()) == ([1.0, 2.0], [3.0, 5.0], [-1.0, 4.0])


def test_a_sum_is_rounded_once_at_the_end() -> None:
    parts = [(1 / 3, torch.tensor([value], dtype=torch.bfloat16)) for value in (1.0, 1.0078125, 1.015625)]
    assert mix_tensors(parts, torch.bfloat16).item() == 1.0078125  # in bfloat16 throughout, the thirds would lose it
    huge = torch.tensor([6e4], dtype=torch.float16)
    assert mix_tensors([(1.0, huge), (1.0, huge), (-1.0, huge)], torch.float16).item() == huge.item()


def test_a_single_whole_tensor_is_not_copied() -> None:
    assert mix_tensors([(1.0, A)], torch.float32) is A


def test_float32_tensors_are_left_alone_by_the_sum() -> None:
    before = A.clone()
    mix_tensors([(1.0, A), (1.0, B)], torch.float32)
    assert torch.equal(A, before)


def test_tensors_of_different_shapes_do_not_mix_even_where_they_would_broadcast() -> None:
    with pytest.raises(PlanError, match=r"\(2,\) and \(1,\)"):
        mix_tensors([(0.5, A), (0.5, torch.ones(1))], torch.float32)


# --- Mixer ---


def test_an_untouched_block_overrides_nothing(tiny: Callable[..., Model]) -> None:
    assert Mixer(tiny("llama").network).overrides(Block(3, ((3, 1.0),))) == {}


def test_a_block_with_one_source_borrows_that_layers_own_tensors(tiny: Callable[..., Model]) -> None:
    network = tiny("qwen2").network
    found = Mixer(network).overrides(Block(1, ((4, 1.0),)))
    source = dict(blocks_of(network)[4].named_parameters())
    assert found.keys() == {name for name in source if "proj" in name}
    assert {"self_attn.q_proj.bias", "mlp.down_proj.weight"} <= found.keys()
    assert all(found[name].data_ptr() == source[name].data_ptr() for name in found)


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "phi3", "gpt2"])
def test_a_mixed_block_sums_projections_and_leaves_norms_alone(family: str, tiny: Callable[..., Model]) -> None:
    layers = blocks_of(tiny(family).network)
    found = Mixer(tiny(family).network).overrides(Block(1, ((1, -1.0), (2, 1.0), (3, 1.0))))
    names = dict(layers[1].named_parameters())
    assert {name for name in names if name not in found} == {name for name in names if "norm" in name or "ln_" in name}
    for name, tensor in found.items():
        expected = layers[2].get_parameter(name) + layers[3].get_parameter(name) - layers[1].get_parameter(name)
        torch.testing.assert_close(tensor, expected)


def test_a_bounded_number_of_sums_is_kept_and_the_least_used_goes(tiny: Callable[..., Model]) -> None:
    network = tiny("llama").network
    size = sum(tensor.nbytes for name, tensor in blocks_of(network)[0].named_parameters() if "norm" not in name)
    mixer = Mixer(network, keep=2 * size)
    first, second, third = (Block(layer, ((layer, 0.5), (layer + 1, 0.5))) for layer in (0, 1, 2))
    kept = mixer.overrides(first)
    lost = mixer.overrides(second)
    assert mixer.overrides(first) is kept
    mixer.overrides(third)
    assert mixer.overrides(first) is kept
    assert mixer.overrides(second) is not lost
