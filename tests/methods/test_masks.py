"""Masks against naive float64 transcriptions: the published methods, and our additions to them."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.errors import SettingsError, TextError
from engine.jobs import drain
from engine.judge.practice import practice_packs
from engine.methods.masks.owl import sparsities
from engine.methods.masks.pruning import MASKS, PruningInput, prune
from engine.methods.masks.selection import Wanted, chosen, lowest, wanted
from engine.methods.masks.sparsegpt import solve
from engine.models.families import blocks_of
from engine.models.texts import Pack, calibration_of
from engine.plans.live import live_network
from engine.plans.rules import fold_spans, untouched
from engine.types import Model, Part, Plan, Trim
from tests import naive_masks as naive
from tests.families import FAMILIES, TEXTS, crossed

WANTS = {"half": Wanted(0.5), "a third": Wanted(1 / 3), "2:4": Wanted(0.5, 2, 4), "4:8": Wanted(0.5, 4, 8)}
SPREAD = tuple(TEXTS[place % 3] + " And so on, and on." * (place % 4) for place in range(8))


def packs_of(model: Model) -> tuple[Pack, ...]:
    return practice_packs(model, calibration_of(SPREAD), 10_000 if model.config.max_position_embeddings > 10_000 else 300)


def texts_of(packs: tuple[Pack, ...]) -> list[torch.Tensor]:
    return [pack.ids[:, start:stop] for pack in packs for _, start, stop in pack.spans]


def weights_of(network: Any) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{name}": naive.canonical(module).double()
        for index, block in enumerate(blocks_of(network))
        for name, module in naive.projections(block).items()
    }


def assert_same_masks(model: Model, plan: Plan, expected: Any, source: Any = None) -> None:
    """The plan's network has zeros where the transcription has, and elsewhere the source's weights."""
    found, theirs, ours = weights_of(live_network(model, plan)), weights_of(expected), weights_of(source or model.network)
    assert found.keys() == theirs.keys()
    for name, weight in found.items():
        assert torch.equal(weight == 0, theirs[name] == 0), name
        assert torch.equal(weight[weight != 0], ours[name][weight != 0])


@pytest.mark.parametrize(("family", "name"), crossed([*FAMILIES], [*WANTS]))
def test_wanda_cuts_what_a_naive_transcription_cuts(family: str, name: str, tiny: Callable[..., Model]) -> None:
    model, want = tiny(family), WANTS[name]
    packs = packs_of(model)
    plan = drain(prune(model, untouched(6), packs, "wanda", want))

    def by_hand(weight: torch.Tensor, inputs: list[torch.Tensor], _: Any) -> torch.Tensor:
        return weight * ~naive.cut(weight.abs() * naive.wanda_norm(inputs), want.sparsity, want.n, want.m)

    assert_same_masks(model, plan, naive.pruned(model.network, texts_of(packs), by_hand))
    assert plan.masks is not None
    assert plan.masks.method == "wanda"
    assert dict(plan.masks.settings)["tokens"] == sum(pack.ids.shape[1] for pack in packs)


@pytest.mark.parametrize(("family", "given"), crossed(["llama", "qwen2", "phi3", "gpt2"], [*product(("l1", "l2"), ("half", "4:8"))]))
def test_gblm_cuts_what_a_naive_transcription_cuts(family: str, given: tuple[str, str], tiny: Callable[..., Model]) -> None:
    norm, name = given
    model, want = tiny(family), WANTS[name]
    packs = packs_of(model)
    plan = drain(prune(model, untouched(6), packs, "gblm", want, {"norm": norm}))

    def by_hand(weight: torch.Tensor, inputs: list[torch.Tensor], gradient: torch.Tensor | None) -> torch.Tensor:
        assert gradient is not None
        scores = weight.abs() * naive.wanda_norm(inputs) + weight.abs() * gradient
        return weight * ~naive.cut(scores, want.sparsity, want.n, want.m)

    gradients = naive.loss_gradients(model.network, texts_of(packs), norm)
    assert_same_masks(model, plan, naive.pruned(model.network, texts_of(packs), by_hand, gradients))
    if name == "half":  # the gradients do something
        wanda = drain(prune(model, untouched(6), packs, "wanda", want))
        assert wanda.tensors != plan.tensors


@pytest.mark.parametrize(("family", "name"), crossed([*FAMILIES], [*WANTS]))
def test_sparsegpt_writes_what_a_naive_transcription_writes(family: str, name: str, tiny: Callable[..., Model]) -> None:
    model, want = tiny(family), WANTS[name]
    packs = packs_of(model)
    plan = drain(prune(model, untouched(6), packs, "sparsegpt", want))

    def by_hand(weight: torch.Tensor, inputs: list[torch.Tensor], _: Any) -> torch.Tensor:
        return naive.sparsegpt(weight, inputs, want.sparsity, want.n, want.m)

    found = weights_of(live_network(model, plan))
    expected = weights_of(naive.pruned(model.network, texts_of(packs), by_hand))
    for name_, weight in found.items():
        assert torch.equal(weight == 0, expected[name_] == 0), name_
        assert float((weight - expected[name_]).norm() / expected[name_].norm()) < 1e-4


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("group", ["layer", "output", "global"])
def test_magnitude_reads_no_text(family: str, group: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    plan = drain(prune(model, untouched(6), (), "magnitude", Wanted(0.5, group=group)))
    found, source = weights_of(live_network(model, plan)), weights_of(model.network)
    together = torch.cat([weight.abs().flatten() for weight in source.values()]).sort().values
    for name, weight in found.items():
        size = source[name].abs()
        limits = {
            "layer": size.flatten().sort().values[size.numel() // 2],
            "output": size.sort(dim=1).values[:, size.shape[1] // 2][:, None],
            "global": together[len(together) // 2],
        }
        assert torch.equal(weight == 0, size < limits[group]), name


def test_a_global_threshold_is_one_for_all_projections(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    packs = packs_of(model)
    plan = drain(prune(model, untouched(6), packs, "wanda", Wanted(0.5, group="global")))
    found, source = weights_of(live_network(model, plan)), weights_of(model.network)
    scores: dict[str, torch.Tensor] = {}

    def noted(weight: torch.Tensor, inputs: list[torch.Tensor], _: Any) -> torch.Tensor:
        scores[list(source)[len(scores)]] = weight.abs() * naive.wanda_norm(inputs)
        return weight

    naive.pruned(model.network, texts_of(packs), noted)  # nothing is cut: all scores are the dense model's
    limit = torch.cat([score.flatten() for score in scores.values()]).sort().values[sum(s.numel() for s in scores.values()) // 2]
    wrong = sum(int(((found[name] == 0) != (score < limit)).sum()) for name, score in scores.items())
    assert wrong <= 2  # scores are compared in float32
    shares = [float((weight == 0).double().mean()) for weight in found.values()]
    assert max(shares) - min(shares) > 0.1


def test_a_sequential_mask_reads_the_pruned_projections_before_it(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    packs = packs_of(model)
    plain, sequential = (drain(prune(model, untouched(6), packs, "wanda", WANTS["half"], {"sequential": way})) for way in (False, True))
    first = [dict(plan.blocks[0].masks) for plan in (plain, sequential)]
    same = {name for name in first[0] if first[0][name] == first[1][name]}
    assert {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"} <= same
    assert "mlp.down_proj.weight" not in same


# --- Together with depth and width ---


def test_masks_take_their_statistics_from_the_plan_before_them(tiny: Callable[..., Model]) -> None:
    model, want = tiny("llama"), WANTS["2:4"]
    packs = packs_of(model)
    neurons = tuple(range(0, 48, 3))
    blocks = tuple(replace(b, trim=Trim(heads=(1, 2), neurons=neurons)) for b in fold_spans(6, [(1, 2)], "mean").blocks)
    begun = replace(fold_spans(6, [(1, 2)], "mean"), blocks=blocks, width=Part("hand-made"))
    dense = live_network(model, begun)
    for method, settings in (("wanda", {}), ("sparsegpt", {}), ("gblm", {}), ("gblm-local", {})):
        plan = drain(prune(model, begun, packs, method, want, settings))
        assert plan.dense == begun
        if method == "wanda":
            theirs = naive.pruned(
                dense, texts_of(packs), lambda w, x, _: w * ~naive.cut(w.abs() * naive.wanda_norm(x), want.sparsity, want.n, want.m)
            )
            assert_same_masks(model, plan, theirs, dense)
        shares = [float((weight == 0).double().mean()) for weight in weights_of(live_network(model, plan)).values()]
        assert shares == [0.5] * len(shares)
        assert drain(prune(model, plan, packs, method, want, settings)) == plan  # masks that were there are no part of the question


def test_local_gradients_are_those_of_what_the_block_writes(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    packs = packs_of(model)
    found: list[tuple[str, torch.Tensor]] = []
    method = MASKS["gblm-local"]
    taken = method.settings.summed

    def noting(self: Any, gradient: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
        found.append(("", gradient.clone()))
        return taken(self, gradient, before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method.settings, "summed", noting)
        drain(prune(model, untouched(6), packs, "gblm-local", WANTS["half"]))
    block = blocks_of(model.network)[0]
    weight = block.self_attn.q_proj.weight
    embedded = model.network.model.embed_tokens(packs[0].ids)
    rotary = model.network.model.rotary_emb(embedded, packs[0].positions)
    attention = torch.full((packs[0].ids.shape[1],) * 2, -torch.inf)
    for _, start, stop in packs[0].spans:
        attention[start:stop, start:stop] = torch.full((stop - start,) * 2, -torch.inf).triu(1)
    with torch.enable_grad():
        weight.requires_grad_(True)
        output = block(embedded.detach(), attention_mask=attention[None, None], position_embeddings=rotary)
        (gradient,) = torch.autograd.grad((output[0] if isinstance(output, tuple) else output).norm(), weight)
        weight.requires_grad_(False)
    torch.testing.assert_close(found[0][1], gradient, rtol=1e-4, atol=1e-5)


# --- What is chosen ---


def test_the_lowest_of_equal_ones_are_the_first() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 0.0], [2.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [4.0, 3.0, 2.0, 1.0]])
    assert lowest(scores, 2).tolist() == [
        [True, False, False, True],
        [False, True, True, False],
        [True, True, False, False],
        [False, False, True, True],
    ]
    assert not lowest(scores, 0).any()
    generator = torch.Generator().manual_seed(0)
    for count in (1, 5, 13, 20):
        values = torch.randint(0, 6, (40, 20), generator=generator).double()  # many ties
        expected = torch.zeros_like(values, dtype=torch.bool).scatter_(1, values.sort(dim=1, stable=True).indices[:, :count], True)
        assert torch.equal(lowest(values, count), expected)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_a_sparsity_outside_its_bounds_is_refused(sparsity: float) -> None:
    with pytest.raises(SettingsError, match="at least 0 and below 1"):
        wanted(sparsity, None, "output")


@pytest.mark.parametrize("pattern", ["4:2", "2:2", "0:4", "two of four", "2:4:8", "-2:4", "2"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError, match="not a valid pattern"):
        wanted(None, pattern, "output")


def test_what_cannot_be_asked_for_is_refused(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    packs = packs_of(model)
    with pytest.raises(SettingsError, match="3:5 does not divide a projection's 32 inputs"):
        chosen(torch.ones(4, 32), Wanted(0.6, 3, 5))
    for method in ("wanda", "sparsegpt"):
        with pytest.raises(SettingsError, match="3:5 does not divide"):
            drain(prune(model, untouched(6), packs, method, Wanted(0.6, 3, 5)))
    for both in ((0.5, "2:4"), (None, None), (None, "")):
        with pytest.raises(SettingsError, match="either a sparsity"):
            wanted(*both, "output")
    with pytest.raises(SettingsError, match="unknown group 'row'"):
        wanted(0.5, None, "row")
    with pytest.raises(SettingsError, match="no group 'layer'"):
        drain(prune(model, untouched(6), packs, "sparsegpt", Wanted(0.5, group="layer")))
    with pytest.raises(SettingsError, match="unknown norm 'l3'"):
        drain(prune(model, untouched(6), packs, "gblm", Wanted(0.5), {"norm": "l3"}))
    with pytest.raises(SettingsError, match=r"a sparsity of at least 0\.6, without a pattern"):
        drain(prune(model, untouched(6), packs, "wanda", Wanted(0.5), {"owl": True}))
    with pytest.raises(TextError, match="fewer than one sequence"):
        practice_packs(model, calibration_of(("Too short.",)), 300)


# --- Singular Hessians, OWL ---


def test_the_damping_rises_until_there_is_a_factor_and_says_so(tiny: Callable[..., Model]) -> None:
    gram = torch.full((8, 8), 1.0, dtype=torch.float64) - 0.2 * torch.eye(8, dtype=torch.float64)  # not positive definite at .01
    gram[0, 1] = gram[1, 0] = 0.95
    huge: Any = SimpleNamespace(gram=gram, texts=2)
    weight = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gone, written, damping = solve(PruningInput(weight, huge), Wanted(0.5), 0.01)
    assert damping == pytest.approx(0.1) or damping == pytest.approx(1.0)
    assert torch.isfinite(written).all()
    assert torch.equal(written == 0, gone)

    broken: Any = SimpleNamespace(gram=torch.full((8, 8), float("nan"), dtype=torch.float64), texts=1)
    with pytest.raises(SettingsError, match="not finite"):
        solve(PruningInput(weight, broken), Wanted(0.5))


def test_fewer_tokens_than_inputs_are_enough_for_sparsegpt(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    packs = practice_packs(model, calibration_of(TEXTS), 12)  # of 48 inputs
    network = live_network(model, drain(prune(model, untouched(6), packs, "sparsegpt", Wanted(0.5))))
    assert all(torch.isfinite(weight).all() for weight in weights_of(network).values())


def test_owl_spreads_the_sparsity_by_outliers(tiny: Callable[..., Model]) -> None:
    found = sparsities([0.0, 0.02, 0.04, 0.02], 0.7)
    assert found == pytest.approx([0.78, 0.7, 0.62, 0.7])
    assert sparsities([0.1, 0.1], 0.7) == [0.7, 0.7]

    model = tiny("llama")
    plan = drain(prune(model, untouched(6), packs_of(model), "wanda", Wanted(0.7), {"owl": True}))
    network = live_network(model, plan)
    zeros = [torch.cat([module.weight.flatten() == 0 for module in naive.projections(block).values()]) for block in blocks_of(network)]
    shares = [float(one.double().mean()) for one in zeros]
    assert max(shares) - min(shares) > 0.1
    assert sum(shares) / len(shares) == pytest.approx(0.7, abs=0.02)
