"""Masks in weights against hooks on activations, the masked model against the cut one, and invalid targets."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.errors import PlanError, SettingsError
from engine.methods.learned.masks import Masks
from engine.methods.learned.sheared import Masked
from engine.methods.learned.target import kinds_between, wanted_shape
from engine.models.families import architecture_of, blocks_of
from engine.models.shapes import shape_of
from engine.plans.files import plan_from_json, plan_to_json
from engine.plans.live import live_network
from engine.plans.rules import untouched
from engine.recover.distill.student import student_of
from engine.types import Model, Plan
from tests.families import FAMILIES

IDS = torch.arange(60).reshape(2, 30) * 4 % 280 + 10
EVERYTHING = {"layers": 4, "heads": 2, "neurons": 30, "channels": 28}
FAMILIES_TIED = [(family, tied) for family in ("llama", "qwen2", "qwen3", "gemma3_text") for tied in (True, False)]


def masked_of(model: Model, target: dict[str, int], seed: int = 0) -> Masked:
    """A model under masks that have gone somewhere, with projections that have learned something."""
    masks = Masks(kinds_between(shape_of(model.config), wanted_shape(model.config, target)), seed)
    masked = Masked(student_of(model, untouched(6)), masks)
    torch.manual_seed(seed)
    with torch.no_grad():
        for a in masks.a.values():
            a.copy_(torch.randn_like(a) * 2)
        for parameter in masked.projections().values():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return masked.eval()


@torch.no_grad()
def logits(network: Any) -> torch.Tensor:
    return network(input_ids=IDS, use_cache=False).logits


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def sheared(model: Model, target: dict[str, int]) -> tuple[Plan, float, torch.Tensor]:
    """The plan of a masked model, how far its network is from the masked one, and the logits of that."""
    masked = masked_of(model, target)
    plan = masked.plan(torch.float32, target)
    masks = logits(masked)
    return plan, apart(logits(live_network(model, plan)), masks), masks


@pytest.mark.parametrize(("family", "tied"), FAMILIES_TIED)
@pytest.mark.parametrize(
    "target", [EVERYTHING, {"channels": 28}, {"groups": 1, "neurons": 20}, {"layers": 3}], ids=lambda one: "-".join(one)
)
def test_the_masked_model_is_the_one_that_is_left(family: str, tied: bool, target: dict[str, int], tiny: Callable[..., Model]) -> None:
    model = tiny(family, tie_word_embeddings=tied)
    _, found, masks = sheared(model, target)
    assert found < 1e-5
    assert apart(masks, logits(model.network)) > 1e-2  # something was cut


@pytest.mark.parametrize(
    ("family", "changes", "target"),
    [
        ("phi3", {}, EVERYTHING),
        ("phi3", {}, {"groups": 1}),
        ("mistral", {"num_key_value_heads": 4}, {"heads": 3, "channels": 30}),
        ("llama", {"attention_bias": True, "mlp_bias": True}, EVERYTHING),
        ("gpt2", {}, {"layers": 4, "neurons": 100}),
    ],
)
def test_fused_projections_biases_and_heads_without_groups(
    family: str, changes: dict[str, Any], target: dict[str, int], tiny: Callable[..., Model]
) -> None:
    assert sheared(tiny(family, **changes), target)[1] < 1e-5


def test_a_plan_has_the_shape_wanted_and_comes_back_from_its_file(tiny: Callable[..., Model]) -> None:
    model = tiny("qwen3")
    plan, _, _ = sheared(model, EVERYTHING)
    config = live_network(model, plan).config
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (4, 2, 2)
    assert (config.intermediate_size, config.hidden_size) == (30, 28)
    assert (plan.method, plan.width and plan.width.method, dict(plan.settings)["neurons"]) == ("sheared", "sheared", 30)
    names = {name for block in plan.blocks for name, _ in (block.trim.refits if block.trim else ())}
    assert names == {f"{name}.weight" for name in architecture_of(model.config).projections}
    assert plan_from_json(plan_to_json(plan)) == plan
    whole, _, _ = sheared(model, {"groups": 1})
    assert live_network(model, whole).config.num_key_value_heads == 1
    assert all(block.trim and block.trim.heads in ((0, 1), (2, 3)) for block in whole.blocks)


def test_masks_in_weights_are_masks_on_what_flows(tiny: Callable[..., Model]) -> None:
    """Soft, drawn masks against the published way: on the embedding, on what the projections read and write, in norms over those
    channels that are not 0, whose epsilon here follows the width as a stock config has it."""
    model = tiny("llama", tie_word_embeddings=False)
    masked = masked_of(model, EVERYTHING).train()
    torch.manual_seed(3)
    values = {name: value.detach() for name, value in masked.values().items()}
    channels, alive = values["channels"][0], values["channels"][0] != 0
    network = student_of(model, untouched(6)).eval()
    network.load_state_dict(masked.network.state_dict())

    def norm(module: Any, args: tuple[torch.Tensor], _: torch.Tensor) -> torch.Tensor:
        x = args[0]
        share = 32 / int(alive.sum())
        return module.weight * channels * x / (x[..., alive].square().mean(-1, keepdim=True) + share * module.variance_epsilon).sqrt()

    network.model.embed_tokens.register_forward_hook(lambda _m, _a, out: out * channels)
    for place, block in enumerate(blocks_of(network)):
        factor = channels * values["layers"][0, place]
        heads, neurons = values["heads"][place].repeat_interleave(8), values["neurons"][place]
        for module, mask in ((block.self_attn.o_proj, heads), (block.mlp.down_proj, neurons)):
            module.register_forward_pre_hook(lambda _m, args, mask=mask: (args[0] * mask,))
            module.register_forward_hook(lambda _m, _a, out, factor=factor: out * factor)
        block.input_layernorm.register_forward_hook(norm)
        block.post_attention_layernorm.register_forward_hook(norm)
    network.model.norm.register_forward_hook(norm)
    torch.manual_seed(3)
    assert apart(logits(masked), logits(network)) < 1e-5
    assert 0 < int(alive.sum()) < 32
    assert not masked.settled


def test_every_mask_learns_and_the_head_has_none(tiny: Callable[..., Model]) -> None:
    model = tiny("gemma3_text")
    masked = masked_of(model, EVERYTHING).train()
    for a in masked.masks.a.values():
        torch.nn.init.zeros_(a)  # where most draws lie between 0 and 1
    masked.base_model(input_ids=IDS, use_cache=False).last_hidden_state.square().sum().backward()
    for name, a in masked.masks.a.items():
        assert a.grad is not None, name
        assert float(a.grad.abs().sum()) > 0, name
    assert masked.get_output_embeddings().weight is masked.network.model.embed_tokens.weight


@pytest.mark.parametrize("family", FAMILIES)
def test_a_target_that_is_the_whole_model_masks_nothing(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    shape = shape_of(model.config)
    target = {"layers": 6, "heads": shape.heads, "neurons": shape.neurons, "channels": shape.channels}
    assert wanted_shape(model.config, target) == shape == wanted_shape(model.config, {})
    assert kinds_between(shape, shape) == ()
    masked = Masked(student_of(model, untouched(6)), Masks((), 0)).eval()
    assert torch.equal(logits(masked), logits(model.network))


@pytest.mark.parametrize(
    ("family", "target", "why"),
    [
        ("llama", {"depth": 3}, "'depth' cannot be a shearing target"),
        ("llama", {"neurons": 49}, "49 of 48 neurons cannot be kept"),
        ("llama", {"layers": 7}, "7 of 6 layers cannot be kept"),
        ("llama", {"layers": 0}, "0 of 6 layers cannot be kept"),
        ("llama", {"groups": 3}, "3 of 2 KV groups cannot be kept"),
        ("llama", {"heads": 3}, "choose a multiple of 2"),
        ("llama", {"heads": 2, "groups": 1}, "name heads or groups, not both"),
        ("llama", {"neurons": 2.5}, "neurons is 2.5; write a whole number"),
        ("llama", {"neurons": True}, "neurons is True; write a whole number"),
        ("llama", {"channels": 30}, "not a multiple of the number of attention heads"),
        ("gpt2", {"heads": 2}, "the heads of gpt2 cannot be pruned"),
        ("gpt2", {"channels": 28}, "LayerNorm takes the mean over all channels"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(family: str, target: dict[str, Any], why: str, tiny: Callable[..., Model]) -> None:
    with pytest.raises((SettingsError, PlanError), match=why):
        wanted_shape(tiny(family).config, target)
