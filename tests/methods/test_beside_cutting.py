"""Compensations for cut parts: FLAP's biases and Minitron's redistribution of heads, against naive transcriptions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.errors import SettingsError
from engine.export.checkpoint.export import export
from engine.jobs import drain
from engine.judge.memory import memory_of
from engine.methods.masks.pruning import prune
from engine.methods.masks.selection import wanted
from engine.methods.width.redistribution import pairs
from engine.methods.width.refit import refit
from engine.methods.width.settings import TrimSettings
from engine.methods.width.widths import scores, trim
from engine.models.families import architecture_of, blocks_of
from engine.models.shapes import shape_of
from engine.plans.description import describe, weigh
from engine.plans.live import live_network
from engine.plans.rules import fold_spans, untouched
from engine.types import Model, Plan
from tests.exporting import write
from tests.methods.test_widths import inputs_of, packs_of
from tests.plans.test_trimming import masked_logits, run

BIASED = {
    "llama": (TrimSettings(heads=2, neurons=30, channels=28), ("attention_bias", "mlp_bias")),
    "qwen3": (TrimSettings(heads=2), ("attention_bias",)),
    "gemma3_text": (TrimSettings(heads=2), ("attention_bias",)),
    "gpt2": (TrimSettings(neurons=100), ()),
}


def biased(model: Model, kept: TrimSettings, plan: Plan | None = None, **more: Any) -> Plan:
    return drain(trim(model, plan or untouched(6), packs_of(model), replace(kept, compensation="bias", **more)))


# --- Biases ---


@pytest.mark.parametrize("family", BIASED)
def test_a_bias_is_the_mean_of_what_was_cut(family: str, tiny: Callable[..., Model]) -> None:
    model, (kept, switches) = tiny(family), BIASED[family]
    plan, row = biased(model, kept), architecture_of(tiny(family).config)
    network = live_network(model, plan)
    assert all(getattr(network.config, switch) is True for switch in switches)
    unit = 16 if family in ("qwen3", "gemma3_text") else 8
    for axis, read in (("heads", "query"), ("neurons", "neuron")):
        if getattr(kept, axis) is None:
            continue
        name = row.reader_of(read)
        inputs = inputs_of(model.network, packs_of(model), name)
        for place, (block, home) in enumerate(zip(blocks_of(network), blocks_of(model.network), strict=True)):
            trimmed = plan.blocks[place].trim
            assert trimmed is not None
            mean, left = torch.cat(inputs[place]).mean(0), set(getattr(trimmed, axis))
            gone = [place for place in range(len(mean)) if place // (unit if axis == "heads" else 1) not in left]
            weight = home.get_submodule(name).weight.detach().double()
            weight = weight.T if row.transposed else weight
            expected = weight[:, gone] @ mean[gone]
            if (own := home.get_submodule(name).bias) is not None:
                expected = expected + own
            expected = expected[list(trimmed.channels)] if trimmed.channels else expected
            torch.testing.assert_close(block.get_submodule(name).bias, expected.float(), rtol=1e-4, atol=1e-6)
    beside = [block.get_submodule(name).bias for block in blocks_of(network) for name in row.projections if name not in row.consumers]
    assert family == "gpt2" or all(bias is None or not bias.any() for bias in beside)


@pytest.mark.parametrize("family", BIASED)
def test_a_plan_with_biases_is_one_model_in_every_form(family: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny(family)
    plan = biased(model, BIASED[family][0], fold_spans(6, [(1, 2)], "mean"))
    live = live_network(model, plan)
    torch.testing.assert_close(run(live, model), masked_logits(model, plan), rtol=0, atol=1e-4)
    network = AutoModelForCausalLM.from_pretrained(write(model, plan, tmp_path / "out"), local_files_only=True).eval()
    assert torch.equal(run(network, model), run(live, model))
    assert {n: p.shape for n, p in network.named_parameters()} == {n: p.shape for n, p in live.named_parameters()}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert weigh(model.spec, plan)[0] == memory_of(model, plan).plan_parameters == parameters
    assert "The projections that read pruned parts get the mean of these parts as a bias (FLAP)." in describe(plan)


def test_the_checks_of_an_export_know_the_biases(tiny: Callable[..., Model], tmp_path: Path, in_this_process: None) -> None:
    model = tiny("llama")
    report = drain(export(model.source, model.folder, biased(model, TrimSettings(heads=2, neurons=30)), tmp_path / "out"))
    assert report.passed, report.checks
    assert {"keys", "shapes", "logits"} <= {check.name for check in report.checks}


def test_a_model_that_has_the_biases_keeps_its_own(tiny: Callable[..., Model]) -> None:
    model = tiny("llama", attention_bias=True)
    plan = biased(model, TrimSettings(heads=2))
    network = live_network(model, plan)
    assert (network.config.attention_bias, network.config.mlp_bias) == (True, False)
    for block, home, cut in zip(blocks_of(network), blocks_of(model.network), plan.blocks, strict=True):
        assert cut.trim is not None
        assert {name for name, _ in cut.trim.refits} == {"self_attn.o_proj.bias"}
        assert torch.equal(block.self_attn.k_proj.bias, home.self_attn.k_proj.bias)
    assert weigh(model.spec, plan)[0] == sum(parameter.numel() for parameter in network.parameters())


def test_biases_stay_when_weights_are_pruned_and_go_when_they_are_solved_again(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    plan = biased(model, TrimSettings(neurons=30))
    masked = drain(prune(model, plan, packs_of(model), "wanda", wanted(0.5, None, "output")))
    network = live_network(model, masked)
    for with_mask, without in zip(blocks_of(network), blocks_of(live_network(model, plan)), strict=True):
        assert torch.equal(with_mask.mlp.down_proj.bias, without.mlp.down_proj.bias)
        assert float((with_mask.mlp.down_proj.weight == 0).double().mean()) == 0.5
    torch.testing.assert_close(run(network, model), masked_logits(model, masked), rtol=0, atol=1e-4)
    again = drain(refit(model, plan, packs_of(model, 2000)))
    assert all(name.endswith(".weight") for block in again.blocks for name, _ in (block.trim.refits if block.trim else ()))


@pytest.mark.parametrize(
    ("family", "kept", "why"),
    [
        ("mistral", TrimSettings(heads=2), "heads of mistral: its stock class has no bias in self_attn.o_proj"),
        ("phi3", TrimSettings(neurons=30), "neurons of phi3: its stock class has no bias in mlp.down_proj"),
        ("qwen2", TrimSettings(heads=2), "heads of qwen2"),
        ("qwen3", TrimSettings(heads=2, neurons=30), "neurons of qwen3"),
        ("llama", TrimSettings(channels=28), "a bias compensates for pruned heads or neurons"),
    ],
)
def test_a_bias_that_no_stock_class_has_is_refused(family: str, kept: TrimSettings, why: str, tiny: Callable[..., Model]) -> None:
    with pytest.raises(SettingsError, match=why):
        biased(tiny(family), kept)


# --- Redistribution ---


@pytest.mark.parametrize(("kept", "expected"), [(3, [(2, 0)]), (2, [(3, 0), (1, 2)]), (1, [(3, 1)])])
def test_heads_pair_off_from_the_border_outwards(kept: int, expected: list[tuple[int, int]]) -> None:
    assert list(pairs(torch.tensor([0.1, 0.6, 0.3, 0.9]), 1, kept)) == expected  # from the most important on: 3, 1, 2, 0


@pytest.mark.parametrize(
    ("family", "changes", "left"),
    [
        ("mistral", {"num_attention_heads": 8, "head_dim": 4}, 6),
        ("phi3", {}, 2),
        ("qwen2", {"num_key_value_heads": 4}, 3),
        ("qwen3", {}, 2),
    ],
)
def test_redistribution_is_the_papers(family: str, changes: dict[str, Any], left: int, tiny: Callable[..., Model]) -> None:
    model = tiny(family, **changes)
    packs, config = packs_of(model), model.config
    plan = drain(trim(model, untouched(6), packs, TrimSettings(heads=left, score="minitron", compensation="nothing", redistribute=True)))
    plain = drain(trim(model, untouched(6), packs, TrimSettings(heads=left, score="minitron", compensation="nothing")))
    scored = drain(scores(model, untouched(6), packs, ("heads",), "minitron"))["heads"]
    groups = config.num_key_value_heads if config.num_key_value_heads < config.num_attention_heads else 1
    L, K, width = config.num_attention_heads // groups, left // groups, shape_of(config).head_dim
    named = {"phi3": ["qkv_proj"], "qwen2": ["q_proj", "k_proj", "v_proj"]}.get(family, ["q_proj"])
    for place, (block, home) in enumerate(zip(blocks_of(live_network(model, plan)), blocks_of(model.network), strict=True)):
        trimmed = plan.blocks[place].trim
        assert trimmed is not None
        assert trimmed.heads == plain.blocks[place].trim.heads  # type: ignore[union-attr]
        for name in named:
            for kind in ("weight", "bias"):
                tensor = getattr(home.self_attn.get_submodule(name), kind)
                if tensor is None:
                    continue
                heads = tensor.detach()[: config.num_attention_heads * width].reshape(config.num_attention_heads, width, -1).clone()
                new = heads.clone()
                for group in range(groups):
                    order = sorted(range(group * L, (group + 1) * L), key=lambda head: -float(scored[place][head]))
                    for i in range(K - (L - K) + 1, K + 1):  # from 1, as the paper counts
                        new[order[i - 1]] = heads[order[i - 1]] + (heads[order[i - 1]] - heads[order[2 * K - i]])
                found = getattr(block.self_attn.get_submodule(name), kind)[: left * width]
                torch.testing.assert_close(found, new[list(trimmed.heads or ())].reshape(found.shape))
        if groups > 1 and family != "phi3":
            assert torch.equal(block.self_attn.k_proj.weight, home.self_attn.k_proj.weight)
    torch.testing.assert_close(run(live_network(model, plan), model), masked_logits(model, plan), rtol=0, atol=1e-4)
    assert "Pruned heads are redistributed to kept heads (Minitron)." in describe(plan)


def test_redistributed_heads_stay_when_what_reads_them_is_solved_again(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    plan = drain(trim(model, untouched(6), packs_of(model, 2000), TrimSettings(heads=2, redistribute=True)))
    for block in plan.blocks:
        assert block.trim is not None
        assert "self_attn.q_proj.weight" in dict(block.trim.refits)
    assert any("self_attn.o_proj.weight" in dict(block.trim.refits) for block in plan.blocks if block.trim)
