"""Width: the masked form that judging runs, the trimmed one that is exported, and a transcription by hand agree."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.errors import PlanError
from engine.export.checkpoint.export import export
from engine.jobs import drain
from engine.judge.memory import memory_of
from engine.models.families import blocks_of
from engine.models.shapes import legal_channels, legal_heads, shape_of, shaped_config
from engine.models.texts import calibration_of, packs_of
from engine.passes.forward import capture, logits_of, normed, resume
from engine.plans.description import weigh
from engine.plans.files import plan_from_json, plan_to_json
from engine.plans.live import live_network
from engine.plans.rules import fold_spans, untouched
from engine.plans.surgery import Mixer, pack_mask
from engine.plans.tensor_store import keep_tensor, name_tensor
from engine.types import Model, Part, Plan, Trim
from tests.exporting import write
from tests.families import FAMILIES, TEXTS

CUTTABLE = [family for family in FAMILIES if family != "gpt2"]
NEURONS = [tuple(sorted({(7 * place + 5 * step) % 48 for step in range(48)} - {place, place + 9, 3 * place + 20})) for place in range(6)]
CHANNELS = tuple(channel for channel in range(32) if channel % 8)  # 28 of them: four heads still divide them
HEADS = [(0, 2), (1, 2), (1, 3), (0, 3), (0, 2), (1, 3)]  # one of two in each group, another one in each layer
CUTS: dict[str, Callable[[int], Trim]] = {
    "heads": lambda place: Trim(heads=HEADS[place]),
    "a whole group": lambda place: Trim(heads=((0, 1), (2, 3))[place % 2]),
    "neurons": lambda place: Trim(neurons=NEURONS[place]),
    "channels": lambda place: Trim(channels=CHANNELS),
    "plain channels": lambda place: Trim(channels=CHANNELS, plain=True),
    "everything": lambda place: Trim(HEADS[place], NEURONS[place], CHANNELS),
}


def trimmed(plan: Plan, cut: str) -> Plan:
    """A plan of ours with a width."""
    blocks = tuple(replace(block, trim=CUTS[cut](place)) for place, block in enumerate(plan.blocks))
    return replace(plan, blocks=blocks, width=Part("hand-made"))


def run(network: Any, model: Model) -> torch.Tensor:
    (pack,) = packs_of(model.tokenizer, model.config, calibration_of(TEXTS))
    with torch.no_grad():
        return network(input_ids=pack.ids, position_ids=pack.positions, use_cache=False).logits


def masked_logits(model: Model, plan: Plan) -> torch.Tensor:
    """What judging sees of a plan."""
    (pack,) = packs_of(model.tokenizer, model.config, calibration_of(TEXTS))
    state = resume(model, Mixer(model.network), capture(model, pack), plan.blocks, plan.prefix)
    return logits_of(model, normed(model, state, plan.blocks))


@pytest.mark.parametrize("family", CUTTABLE)
@pytest.mark.parametrize("cut", CUTS)
def test_the_masked_and_the_trimmed_form_are_one_model(family: str, cut: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    plan = trimmed(fold_spans(6, [(1, 2)], "mean"), cut)
    network = live_network(model, plan)
    found, judged = run(network, model), masked_logits(model, plan)
    torch.testing.assert_close(found, judged, rtol=0, atol=1e-4)
    assert float((judged - run(model.network, model)).abs().max()) > 1e-2  # the cut does something

    prompt = torch.arange(8)[None] + 40
    options = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "min_new_tokens": 12, "max_new_tokens": 12}
    cached, uncached = (network.generate(prompt, use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, uncached)


def test_gpt2_loses_neurons_and_nothing_else(tiny: Callable[..., Model]) -> None:
    model = tiny("gpt2")
    plan = trimmed(untouched(6), "neurons")
    torch.testing.assert_close(run(live_network(model, plan), model), masked_logits(model, plan), rtol=0, atol=1e-4)
    for cut, why in (("heads", "n_embd / n_head"), ("channels", "LayerNorm")):
        with pytest.raises(PlanError, match=why):
            live_network(model, trimmed(untouched(6), cut))


@pytest.mark.parametrize("tied", [True, False])
def test_gemmas_scaled_embedding_is_made_up_for(tied: bool, tiny: Callable[..., Model]) -> None:
    model = tiny("gemma3_text", tie_word_embeddings=tied)
    for cut in ("channels", "plain channels"):
        plan = trimmed(untouched(6), cut)
        network = live_network(model, plan)
        torch.testing.assert_close(run(network, model), masked_logits(model, plan), rtol=0, atol=1e-4)
        assert (network.lm_head.weight is network.model.embed_tokens.weight) == tied


def test_what_is_cut_is_cut_as_by_hand(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    network, source = live_network(model, trimmed(untouched(6), "everything")), model.network
    for place, (block, home) in enumerate(zip(blocks_of(network), blocks_of(source), strict=True)):
        rows = [8 * head + unit for head in HEADS[place] for unit in range(8)]
        neurons, channels = list(NEURONS[place]), list(CHANNELS)
        assert torch.equal(block.self_attn.q_proj.weight, home.self_attn.q_proj.weight[rows][:, channels])
        assert torch.equal(block.self_attn.k_proj.weight, home.self_attn.k_proj.weight[:, channels])  # every group has a head left
        assert torch.equal(block.self_attn.o_proj.weight, home.self_attn.o_proj.weight[channels][:, rows])
        assert torch.equal(block.mlp.up_proj.weight, home.mlp.up_proj.weight[neurons][:, channels])
        assert torch.equal(block.mlp.down_proj.weight, home.mlp.down_proj.weight[channels][:, neurons])
        torch.testing.assert_close(block.input_layernorm.weight, home.input_layernorm.weight[channels] * math.sqrt(32 / 28))
    assert torch.equal(network.model.embed_tokens.weight, source.model.embed_tokens.weight[:, list(CHANNELS)])
    assert network.config.rms_norm_eps == pytest.approx(model.config.rms_norm_eps * 32 / 28)
    assert (network.config.head_dim, network.config.num_attention_heads, network.config.num_key_value_heads) == (8, 2, 2)


@pytest.mark.parametrize("family", [*CUTTABLE, "gpt2"])
def test_an_exported_width_is_an_ordinary_smaller_checkpoint(family: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny(family)
    plan = trimmed(fold_spans(6, [(1, 2)], "reference"), "neurons" if family == "gpt2" else "everything")
    live = live_network(model, plan)
    network = AutoModelForCausalLM.from_pretrained(write(model, plan, tmp_path / "out"), local_files_only=True).eval()
    assert torch.equal(run(network, model), run(live, model))
    assert {n: p.shape for n, p in network.named_parameters()} == {n: p.shape for n, p in live.named_parameters()}

    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert weigh(model.spec, plan)[0] == parameters < sum(parameter.numel() for parameter in model.network.parameters())
    assert memory_of(model, plan).plan_parameters == parameters
    assert plan_from_json(json.loads((tmp_path / "out" / "layerscope.json").read_text())["plan"]) == plan


@pytest.mark.parametrize("cut", ["heads", "neurons", "channels", "everything"])
def test_the_checks_of_an_export_hold_it_against_its_shapes(
    cut: str, tiny: Callable[..., Model], tmp_path: Path, in_this_process: None
) -> None:
    model = tiny("llama")
    report = drain(export(model.source, model.folder, trimmed(untouched(6), cut), tmp_path / "out", dtype="bfloat16"))
    assert report.passed, report.checks
    assert {"shapes", "logits", "generation"} <= {check.name for check in report.checks}


# --- Tensors that the plan brings ---


def masked(model: Model, plan: Plan, kind: str) -> tuple[Plan, dict[int, torch.Tensor]]:
    """A plan with our own mask, refit or new weight of down_proj at every block, in the trimmed shape; and what each leaves."""
    blocks, left = [], {}
    for place, block in enumerate(plan.blocks):
        trim = block.trim or Trim()
        weight = blocks_of(model.network)[block.home].mlp.down_proj.weight
        weight = weight if trim.neurons is None else weight[:, list(trim.neurons)]
        weight = weight if trim.channels is None else weight[list(trim.channels)]
        keep = torch.rand(weight.shape, generator=torch.Generator().manual_seed(place)) > 0.5
        left[place] = weight * keep if kind == "mask" else weight * keep * 1.5
        tensor = pack_mask(keep) if kind == "mask" else left[place].clone()
        named = (("mlp.down_proj.weight", keep_tensor(name_tensor(tensor))),)
        if kind == "refit":
            blocks.append(replace(block, trim=replace(trim, refits=named)))
        else:
            blocks.append(replace(block, masks=named))
    part = {"width": Part("hand-made")} if kind == "refit" else {"masks": Part("hand-made")}
    return replace(plan, blocks=tuple(blocks), **part), left


@pytest.mark.parametrize("kind", ["mask", "weights", "refit"])
@pytest.mark.parametrize("cut", [None, "everything"])
def test_a_plans_tensors_take_their_place(kind: str, cut: str | None, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny("llama")
    plan, left = masked(model, trimmed(untouched(6), cut) if cut else untouched(6), kind)
    network = live_network(model, plan)
    for place, block in enumerate(blocks_of(network)):
        assert torch.equal(block.mlp.down_proj.weight, left[place])
    torch.testing.assert_close(run(network, model), masked_logits(model, plan), rtol=0, atol=1e-4)
    reloaded = AutoModelForCausalLM.from_pretrained(write(model, plan, tmp_path / "out"), local_files_only=True).eval()
    assert torch.equal(run(reloaded, model), run(network, model))
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan
    assert len(plan.tensors) == 6
    assert (plan.dense.tensors, plan.deep.tensors) == (plan.tensors if kind == "refit" else (), ())
    assert plan.deep == untouched(6)


def test_a_plan_whose_tensors_are_missing_is_refused_before_anything_is_written(tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny("llama")
    blocks = tuple(replace(block, masks=(("mlp.down_proj.weight", "c" * 64),)) for block in untouched(6).blocks)
    plan = replace(untouched(6), blocks=blocks, masks=Part("wanda"))
    with pytest.raises(PlanError, match="cccccccccccc of this plan is not on this machine"):
        next(export(model.source, model.folder, plan, tmp_path / "out"))
    with pytest.raises(PlanError, match="not on this machine"):
        masked_logits(model, plan)
    assert not list(tmp_path.iterdir())


def test_a_mask_of_another_size_is_refused(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    mark = keep_tensor(name_tensor(pack_mask(torch.ones(7, 9).bool())))
    blocks = tuple(replace(block, masks=(("mlp.down_proj.weight", mark),)) for block in untouched(6).blocks)
    with pytest.raises(PlanError, match="does not fit a tensor"):
        masked_logits(model, replace(untouched(6), blocks=blocks, masks=Part("wanda")))


# --- Which shapes there are ---


def test_legal_widths_are_those_that_a_stock_class_loads(tiny: Callable[..., Model]) -> None:
    llama, qwen, gpt2 = (tiny(family).config for family in ("llama", "qwen2", "gpt2"))
    assert legal_heads(llama) == (2, 4)
    assert legal_heads(gpt2) == (4,)
    assert legal_heads(tiny("llama", num_attention_heads=8, num_key_value_heads=2, hidden_size=40, head_dim=4).config) == (2, 4, 8)
    assert legal_heads(tiny("qwen2", num_attention_heads=4, num_key_value_heads=4).config) == (1, 2, 3, 4)
    assert legal_channels(llama) == tuple(range(4, 33, 4))
    assert legal_channels(llama, heads=2, step=2) == tuple(range(2, 33, 2))
    assert legal_channels(qwen, step=8) == (8, 16, 24, 32)
    assert legal_channels(gpt2) == (32,)


def test_a_shape_that_no_stock_class_has_is_refused_with_its_reason(tiny: Callable[..., Model]) -> None:
    config = tiny("llama").config
    with pytest.raises(PlanError, match="multiple of the number of attention heads"):
        shaped_config(config, replace(shape_of(config), channels=30))
    with pytest.raises(PlanError, match="3 query heads cannot share 2 KV groups"):
        shaped_config(config, replace(shape_of(config), heads=3))


@pytest.mark.parametrize("trim", [Trim(heads=(0, 4)), Trim(neurons=(0, 48)), Trim(channels=(0, 1, 2, 32))])
def test_a_plan_for_a_wider_model_is_refused(trim: Trim, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny("llama")
    plan = replace(untouched(6), blocks=tuple(replace(block, trim=trim) for block in untouched(6).blocks), width=Part("hand-made"))
    with pytest.raises(PlanError):
        live_network(model, plan)
    with pytest.raises(PlanError):
        masked_logits(model, plan)
    with pytest.raises(PlanError):
        drain(export(model.source, model.folder, plan, tmp_path / "out"))


@pytest.mark.parametrize(
    "change",
    [
        lambda width: width["layers"].pop(),
        lambda width: width["layers"][2].update(heads=[0]),
        lambda width: width["layers"][2].update(heads=[2, 0]),
        lambda width: width["layers"][2].update(heads=[]),
        lambda width: width["layers"][2].update(neurons="all"),
        lambda width: width["layers"][2].update(neurons=[-1, *range(1, 44)]),
        lambda width: width["layers"][2].update(refits={"mlp.down_proj.weight": "short"}),
        lambda width: width.update(channels=[1.5]),
        lambda width: width.update(plain=1),
        lambda width: width.pop("method"),
    ],
)
def test_a_width_that_is_none_is_refused(change: Callable[[Any], object]) -> None:
    value = json.loads(json.dumps(plan_to_json(trimmed(untouched(6), "everything"))))
    change(value["width"])
    with pytest.raises(PlanError):
        plan_from_json(value)
