from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.errors import PlanError
from engine.models.families import blocks_of, depth_of, layer_types_of
from engine.models.texts import Pack, calibration_of, packs_of
from engine.passes.forward import capture, logits_of, normed, resume
from engine.plans.live import live_network
from engine.plans.rules import RULES, fold_spans, untouched
from engine.plans.surgery import Mixer
from engine.plans.tensor_store import name_tensor
from engine.types import Block, Model, Plan
from tests.families import FAMILIES, TEXTS

PLANS = {
    "untouched": untouched(6),
    **{rule: fold_spans(6, [(0, 1), (3, 5)], rule) for rule in RULES},
    "drop two": Plan(6, tuple(Block(layer, ((layer, 1.0),)) for layer in (0, 1, 3, 5)), "hand-made"),
}


def pack_for(model: Model) -> Pack:
    return packs_of(model.tokenizer, model.config, calibration_of(TEXTS))[0]


def plan_logits(model: Model, plan: Plan, pack: Pack) -> torch.Tensor:
    record = capture(model, pack)
    return logits_of(model, normed(model, resume(model, Mixer(model.network), record, plan.blocks, plan.prefix)))


def run(network: Any, pack: Pack) -> torch.Tensor:
    with torch.no_grad():
        return network(input_ids=pack.ids, position_ids=pack.positions, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PLANS)
def test_its_logits_are_the_plans_and_its_cache_is_sound(family: str, name: str, tiny: Callable[..., Model]) -> None:
    model, plan = tiny(family), PLANS[name]
    network, pack = live_network(model, plan), pack_for(model)
    assert torch.equal(run(network, pack), plan_logits(model, plan, pack))

    assert type(network) is type(model.network)
    assert depth_of(network.config) == len(blocks_of(network)) == plan.depth
    types = layer_types_of(model.config)
    assert layer_types_of(network.config) == (types and tuple(types[home] for home in plan.kept))
    prompt = pack.ids[:, :8]  # longer than the sliding windows, and 12 more tokens roll them on
    options = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "min_new_tokens": 12, "max_new_tokens": 12}
    cached, uncached = (network.generate(prompt, use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, uncached)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_sums_are_new_tensors(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    owned = {tensor.data_ptr() for tensor in model.network.state_dict().values()}
    for rule in ("reference", "keep-first", "mean"):
        network = live_network(model, fold_spans(6, [(2, 4)], rule))
        assert network.get_input_embeddings().weight.data_ptr() == model.network.get_input_embeddings().weight.data_ptr()
        new = {name for name, tensor in network.named_parameters() if tensor.data_ptr() not in owned}
        names = Mixer(model.network).projection_parameters(2) if rule == "mean" else []
        assert {name.split(".2.", 1)[1] for name in new} == set(names)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_tied_as_the_source_ties_them(tied: bool, tiny: Callable[..., Model]) -> None:
    network = live_network(tiny("llama", tie_word_embeddings=tied), PLANS["mean"])
    assert (network.get_output_embeddings().weight is network.get_input_embeddings().weight) is tied


def test_the_source_is_as_it_was_even_when_the_plans_network_is_cast(tiny: Callable[..., Model]) -> None:
    model = tiny("gemma3_text")
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.network.state_dict().items()}
    network = live_network(model, PLANS["paper"])
    network.generate(pack_for(model).ids[:, :4], max_new_tokens=4)
    network.to(torch.bfloat16)
    after = model.network.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].data_ptr() == place and torch.equal(after[name], value) for name, (place, value) in before.items())
    assert model.config.num_hidden_layers == model.network.config.num_hidden_layers == len(blocks_of(model.network)) == 6


def test_it_is_ready_to_run(tiny: Callable[..., Model]) -> None:
    model = tiny("qwen3")
    network = live_network(model, PLANS["reference"])
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    assert network.config._attn_implementation == model.network.config._attn_implementation
    assert network.generation_config is not model.network.generation_config
    assert network.generation_config.eos_token_id == model.network.generation_config.eos_token_id
    assert network.dtype == model.network.dtype


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_repair_is_folded_in(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    mark = name_tensor(torch.eye(32) + 0.1 * torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))
    blocks = tuple(Block(layer, ((layer, 1.0),), mark if layer == 1 else "") for layer in (0, 1, 4, 5))
    plan = Plan(6, blocks, "hand-made")
    pack = pack_for(model)
    logits = run(live_network(model, plan), pack)
    assert torch.equal(logits, plan_logits(model, plan, pack))
    assert not torch.equal(logits, run(live_network(model, Plan(6, tuple(Block(b.home, b.mix) for b in blocks), "hand-made")), pack))


def test_a_plan_of_another_depth_is_refused(tiny: Callable[..., Model]) -> None:
    with pytest.raises(PlanError, match="7 layers"):
        live_network(tiny("llama"), untouched(7))
