"""Scores of heads, neurons and channels against naive transcriptions; what a trim keeps; what a refit gains."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.errors import PlanError, SettingsError
from engine.jobs import drain
from engine.judge.objectives import Objective
from engine.judge.practice import practice_packs
from engine.methods.width.refit import Normal, refit
from engine.methods.width.settings import TrimSettings
from engine.methods.width.widths import SCORES, scores, trim
from engine.models.families import architecture_of, blocks_of
from engine.models.texts import Pack, calibration_of
from engine.plans.live import live_network
from engine.plans.rules import fold_spans, untouched
from engine.types import Model, Part, Plan, Trim
from tests.families import FAMILIES, TEXTS

SPREAD = tuple(f"{TEXTS[place % 3]} {place} {TEXTS[(place + 1) % 3][::-1]}" for place in range(60))
CUTTABLE = [family for family in FAMILIES if family != "gpt2"]


def packs_of(model: Model, tokens: int = 500) -> tuple[Pack, ...]:
    return practice_packs(model, calibration_of(SPREAD), tokens)


def inputs_of(network: Any, packs: tuple[Pack, ...], name: str) -> list[list[torch.Tensor]]:
    """What one projection reads in each layer: [layer][text], [tokens, width]."""
    found: list[list[torch.Tensor]] = [[] for _ in blocks_of(network)]
    hooks = [
        block.get_submodule(name).register_forward_pre_hook(lambda _m, args, own=own: own.append(args[0][0].double()))
        for block, own in zip(blocks_of(network), found, strict=True)
    ]
    with torch.no_grad():
        for pack in packs:
            for _, start, stop in pack.spans:
                network(input_ids=pack.ids[:, start:stop], use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


def scored(model: Model, axis: str, score: str, **settings: Any) -> tuple[torch.Tensor, ...]:
    return drain(scores(model, untouched(6), packs_of(model), (axis,), score, settings))[axis]


def close(found: tuple[torch.Tensor, ...], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected) == 6
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs.double(), rtol=2e-4, atol=1e-6)


AGGREGATED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda x: x.mean(0),
    "l2": lambda x: x.square().sum(0).sqrt(),
    "variance": lambda x: x.var(0, unbiased=False),
}


@pytest.mark.parametrize("batch", AGGREGATED)
@pytest.mark.parametrize("sequence", AGGREGATED)
def test_minitron_aggregates_tokens_then_texts(batch: str, sequence: str, tiny: Callable[..., Model]) -> None:
    model = tiny("qwen3")

    def by_hand(inputs: list[torch.Tensor]) -> torch.Tensor:
        return AGGREGATED[batch](torch.stack([AGGREGATED[sequence](x.abs()) for x in inputs]))

    told = {"batch": batch, "sequence": sequence}
    packs = packs_of(model)
    close(scored(model, "neurons", "minitron", **told), [by_hand(x) for x in inputs_of(model.network, packs, "mlp.down_proj")])
    heads = [by_hand(x).reshape(4, 16).square().sum(1).sqrt() for x in inputs_of(model.network, packs, "self_attn.o_proj")]
    close(scored(model, "heads", "minitron", **told), heads)
    norms = [inputs_of(model.network, packs, name) for name in ("self_attn.q_proj", "mlp.gate_proj")]
    close(scored(model, "channels", "minitron", **told), [by_hand(a) + by_hand(b) for a, b in zip(*norms, strict=True)])


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_by_what_is_read_and_what_reads_it(family: str, tiny: Callable[..., Model]) -> None:
    model, row = tiny(family), architecture_of(tiny(family).config)
    packs = packs_of(model)
    for axis, read in (("heads", "query"), ("neurons", "neuron")):
        name = row.reader_of(read)
        found: dict[str, list[torch.Tensor]] = {"weighted": [], "flap": [], "obs": []}
        for block, inputs in zip(blocks_of(model.network), inputs_of(model.network, packs, name), strict=True):
            weight = block.get_submodule(name).weight.detach().double()
            weight, x = weight.T if row.transposed else weight, torch.cat(inputs)
            units = torch.arange(x.shape[1]).split(x.shape[1] // 4 if axis == "heads" else 1)
            norm = x.norm(dim=0) / math.sqrt(len(inputs))
            found["weighted"].append(torch.stack([(norm[u] * weight[:, u].norm(dim=0)).norm() for u in units]))
            variance = x.var(0, unbiased=False)
            found["flap"].append(torch.stack([(variance[u] * weight[:, u].norm(dim=0) ** 2).sum() for u in units]))
            gram = x.T @ x
            inverse = torch.linalg.inv(gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64))
            losses = [weight[:, u] @ torch.linalg.inv(inverse[u][:, u]) @ weight[:, u].T for u in units]
            found["obs"].append(torch.stack([loss.trace() for loss in losses]))
        for score, expected in found.items():
            close(scored(model, axis, score), expected)


def products(model: Model, plan: Plan | None = None) -> list[dict[str, torch.Tensor]]:
    """For each block of a plan weight times gradient of each projection, [out, in]: what every Taylor score sums up."""
    row, network = architecture_of(model.config), live_network(model, plan or untouched(6)).double()
    with torch.enable_grad():
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        for pack in packs_of(model):
            for _, start, stop in pack.spans:
                ids = pack.ids[:, start:stop]
                network(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    both = [{name: block.get_submodule(name).weight for name in row.projections} for block in blocks_of(network)]
    found = [{name: weight.detach() * weight.grad for name, weight in block.items()} for block in both]
    return [{name: one.T if row.transposed else one for name, one in block.items()} for block in found]


SUMMED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "element": lambda one: one.abs().sum(1),
    "vector": lambda one: one.sum(1).abs(),
}
ROWS = {  # that write a neuron, a head's query, and its key and value: the first of 48, or of 32 and 16 or 32
    "llama": ("mlp.gate_proj 0", "mlp.up_proj 0", "self_attn.q_proj 0", "self_attn.k_proj 0", "self_attn.v_proj 0"),
    "phi3": ("mlp.gate_up_proj 0", "mlp.gate_up_proj 48", "self_attn.qkv_proj 0", "self_attn.qkv_proj 32", "self_attn.qkv_proj 64"),
    "gpt2": ("mlp.c_fc 0", "", "attn.c_attn 0", "attn.c_attn 32", "attn.c_attn 64"),
}


def by_group(block: dict[str, torch.Tensor], variant: str, read: str, width: int, written: tuple[str, ...]) -> torch.Tensor:
    """LLM-Pruner's score of every `width` elements of an axis: its rows and columns one after another."""
    reader, found = block[read], []
    for first in range(0, reader.shape[1], width):
        parts = [reader[:, first : first + width].T]
        for place in filter(None, written):
            name, start = place.split()
            parts.append(block[name][int(start) + first : int(start) + first + width])
        found.append(sum(float(SUMMED[variant](part).sum()) for part in parts))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("variant", SUMMED)
@pytest.mark.parametrize(("family", "changes"), [("llama", {}), ("phi3", {}), ("llama", {"num_key_value_heads": 1})])
def test_taylor_leaves_keys_and_values_that_heads_share(
    family: str, changes: dict[str, int], variant: str, tiny: Callable[..., Model]
) -> None:
    model = tiny(family, **changes)
    heads = [by_group(block, variant, "self_attn.o_proj", 8, ROWS[family][2:3]) for block in products(model)]
    neurons = [by_group(block, variant, "mlp.down_proj", 1, ROWS[family][:2]) for block in products(model)]
    for axis, expected in (("heads", heads), ("neurons", neurons)):
        for ours, theirs in zip(scored(model, axis, "taylor", variant=variant), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("variant", SUMMED)
@pytest.mark.parametrize(
    ("family", "changes"),
    [("llama", {"num_key_value_heads": 4, "attention_bias": True}), ("phi3", {"num_key_value_heads": 4}), ("gpt2", {})],
)
def test_taylor_counts_the_keys_and_values_that_are_a_heads_own(
    family: str, changes: dict[str, Any], variant: str, tiny: Callable[..., Model]
) -> None:
    model, row = tiny(family, **changes), architecture_of(tiny(family).config)
    found = {axis: scored(model, axis, "taylor", variant=variant) for axis in ("heads", "neurons")}
    for place, block in enumerate(products(model)):
        heads = by_group(block, variant, row.reader_of("query"), 8, ROWS[family][2:])
        neurons = by_group(block, variant, row.reader_of("neuron"), 1, ROWS[family][:2])
        torch.testing.assert_close(found["heads"][place], heads, rtol=2e-3, atol=1e-6)
        torch.testing.assert_close(found["neurons"][place], neurons, rtol=2e-3, atol=1e-6)


def test_taylor_counts_them_too_once_a_trim_has_left_no_other_head(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    plan = drain(trim(model, untouched(6), packs_of(model), TrimSettings(heads=2, score="minitron", compensation="nothing")))
    found = drain(scores(model, plan, packs_of(model), ("heads",), "taylor"))["heads"]
    for ours, block in zip(found, products(model, plan), strict=True):
        torch.testing.assert_close(ours, by_group(block, "element", "self_attn.o_proj", 8, ROWS["llama"][2:]), rtol=2e-3, atol=1e-6)


def test_maw_is_the_largest_weights_of_gate_and_up(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    expected = []
    for block in blocks_of(model.network):
        rows = [block.mlp.gate_proj.weight, block.mlp.up_proj.weight]
        expected.append(sum(row.max(1).values + row.min(1).values.abs() for row in rows))
    close(scored(model, "neurons", "maw"), expected)
    fused = tiny("phi3")
    first, second = (blocks_of(fused.network)[0].mlp.gate_up_proj.weight.detach()[part] for part in (slice(48), slice(48, 96)))
    by_hand = sum(rows.max(1).values + rows.min(1).values.abs() for rows in (first, second))
    torch.testing.assert_close(scored(fused, "neurons", "maw")[0], by_hand.double())


# --- What is kept ---


@pytest.mark.parametrize("family", CUTTABLE)
def test_a_trim_keeps_the_highest_of_each_group_and_layer(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    packs = packs_of(model)
    plan = drain(trim(model, untouched(6), packs, TrimSettings(2, 30, 28, score="minitron", compensation="nothing")))
    found = drain(scores(model, untouched(6), packs, ("heads", "neurons", "channels"), "minitron"))
    total = torch.stack(found["channels"]).sum(0)
    for block, heads, neurons in zip(plan.blocks, found["heads"], found["neurons"], strict=True):
        assert block.trim is not None
        assert block.trim.heads == (int(heads[:2].argmax()), 2 + int(heads[2:].argmax()))
        assert block.trim.neurons == tuple(sorted(neurons.topk(30).indices.tolist()))
        assert block.trim.channels == tuple(sorted(total.topk(28).indices.tolist()))
    assert plan.width is not None
    told = dict(plan.width.settings)
    assert plan.width.method == "minitron"
    assert (told["heads"], told["neurons"], told["channels"], told["batch"], told["refit"]) == (2, 30, 28, "l2", False)
    assert plan.tensors == ()


def test_a_model_without_groups_loses_whole_heads(tiny: Callable[..., Model]) -> None:
    model = tiny("qwen2", num_key_value_heads=4)
    plan = drain(trim(model, untouched(6), packs_of(model), TrimSettings(heads=3, compensation="nothing")))
    config = live_network(model, plan).config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (3, 3, 8)


def test_a_trim_goes_on_from_a_trim(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    packs = packs_of(model)
    first = drain(trim(model, untouched(6), packs, TrimSettings(neurons=40, score="minitron", compensation="nothing")))
    both = drain(trim(model, first, packs, TrimSettings(heads=2, neurons=20, score="minitron", compensation="nothing")))
    for before, after in zip(first.blocks, both.blocks, strict=True):
        assert before.trim is not None
        assert after.trim is not None
        assert set(after.trim.neurons or ()) < set(before.trim.neurons or ())
        assert (len(after.trim.neurons or ()), len(after.trim.heads or ())) == (20, 2)
    with pytest.raises(SettingsError, match="44 of 40 neurons cannot be kept"):
        drain(trim(model, first, packs, TrimSettings(neurons=44, score="minitron")))


@pytest.mark.parametrize(
    ("family", "kept", "score", "why"),
    [
        ("llama", TrimSettings(), "weighted", "nothing to prune"),
        ("llama", TrimSettings(heads=4, neurons=48), "weighted", "nothing to prune"),
        ("llama", TrimSettings(heads=3), "weighted", "choose a multiple of 2"),
        ("llama", TrimSettings(heads=0), "weighted", "0 of 4 heads cannot be kept"),
        ("llama", TrimSettings(neurons=49), "weighted", "49 of 48 neurons cannot be kept"),
        ("llama", TrimSettings(channels=30), "weighted", "not a multiple of the number of attention heads"),
        ("llama", TrimSettings(heads=2), "maw", "the score maw does not apply to heads; choose one of"),
        ("llama", TrimSettings(channels=28), "obs", "the score obs does not apply to channels"),
        ("llama", TrimSettings(heads=2), "loudest", "unknown score 'loudest'"),
        ("gpt2", TrimSettings(heads=2), "weighted", "the heads of gpt2 cannot be pruned"),
        ("gpt2", TrimSettings(channels=28), "weighted", "the channels of gpt2 cannot be pruned"),
    ],
)
def test_what_cannot_be_cut_is_refused(family: str, kept: TrimSettings, score: str, why: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    with pytest.raises((SettingsError, PlanError), match=why):
        drain(trim(model, untouched(6), packs_of(model), replace(kept, score=score)))


def test_every_score_serves_an_axis_and_says_which() -> None:
    assert set(SCORES) >= {"minitron", "weighted", "obs", "flap", "maw", "taylor"}
    assert {axis for method in SCORES.values() for axis in method.settings.axes} == {"heads", "neurons", "channels"}  # type: ignore[attr-defined]


# --- Solved again ---


def test_normal_equations_are_those_of_ridge_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y, weight = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((50, 6), (50, 4), (4, 6)))
    sums, more = Normal(6, 4), Normal(6, 4)
    sums.add(x[:20], y[:20])
    more.add(x[20:], y[20:])
    sums = sums.joined(more)
    penalty = (0.1 * (x.T @ x).diagonal()).sqrt()[:, None]  # of each input by its own size
    stacked = torch.cat([x, penalty * torch.eye(6, dtype=torch.float64)])
    wanted = torch.cat([y, penalty * weight.T])
    torch.testing.assert_close(next(sums.solved(weight, (0.1,))), torch.linalg.lstsq(stacked, wanted).solution.T)
    torch.testing.assert_close(sums.error(weight), float((y - x @ weight.T).square().sum()))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "phi3", "gpt2"])  # the others' projections are laid out as llama's
def test_solving_again_lowers_the_divergence_on_other_text(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family, max_position_embeddings=64) if family != "gpt2" else tiny(family)
    packs = packs_of(model, 6000)
    kept = TrimSettings(neurons=36) if family == "gpt2" else TrimSettings(heads=2, neurons=36)
    bare = drain(trim(model, untouched(6), packs, replace(kept, compensation="nothing")))
    found = drain(refit(model, bare, packs))
    assert found.blocks == drain(trim(model, untouched(6), packs, kept)).blocks
    names = {name for block in found.blocks for name, _ in (block.trim.refits if block.trim else ())}
    row = architecture_of(model.config)
    assert names <= {f"{row.reader_of(axis)}.weight" for axis in ("query", "neuron")}
    assert names
    judge = Objective(model, calibration_of(tuple(reversed(TEXTS))), "kl", 300)
    assert judge.score(found) < judge.score(bare)


def test_seams_are_made_up_for_by_the_blocks_after_them(tiny: Callable[..., Model]) -> None:
    model = tiny("llama", max_position_embeddings=64)
    packs, plan = packs_of(model, 6000), fold_spans(6, [(2, 3)], "keep-first")
    found = drain(refit(model, plan, packs))
    assert all(not block.refits for block in found.blocks[:2])  # nothing is lost there yet
    assert any(block.refits for block in found.blocks[2:])
    judge = Objective(model, calibration_of(TEXTS), "kl", 300)
    assert judge.score(found) < judge.score(plan)
    assert drain(refit(model, found, packs)) == found  # it starts from the bare plan


def test_a_refit_needs_text_to_hold_out(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    plan = replace(untouched(6), blocks=tuple(replace(b, trim=Trim(neurons=(0, 1))) for b in untouched(6).blocks), width=Part("hand-made"))
    with pytest.raises(SettingsError, match="too little practice text for a refit"):
        drain(refit(model, plan, packs_of(model, 100)[:1]))
