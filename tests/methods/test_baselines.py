import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import SettingsError
from engine.jobs import Progress, drain
from engine.judge.objectives import Objective
from engine.methods.depth.baselines import BASELINES, baseline, plan_of_kept
from engine.methods.depth.sleb import greedy
from engine.models.families import blocks_of
from engine.models.texts import calibration_of
from engine.plans.rules import untouched
from engine.types import Block, Model, Plan
from tests.families import TEXTS
from tests.naive import remove, token_ids

FAMILIES = ("llama", "gemma3_text", "gpt2")
UNEQUAL = (*TEXTS, "x")  # one token predicts nothing, and is not scored


def objective_of(model: Model, name: str = "kl", texts: tuple[str, ...] = TEXTS) -> Objective:
    return Objective(model, calibration_of(texts), name)


# --- Naive transcriptions ---


@torch.no_grad()
def raw_states(network: Any, ids: torch.Tensor) -> torch.Tensor:
    """The residual stream [depth + 1, tokens, hidden] of one text; Hugging Face's last state is taken before its norm."""
    last: list[Any] = []
    hook = blocks_of(network)[-1].register_forward_hook(lambda _m, _a, output: last.append(output))
    states = network(ids, output_hidden_states=True).hidden_states[:-1]
    hook.remove()
    return torch.stack([*(state[0] for state in states), (last[0][0] if isinstance(last[0], tuple) else last[0])[0]]).double()


def naive_block_influence(model: Model, texts: tuple[str, ...]) -> list[float]:
    """ShortGPT: 1 - the mean over all tokens of the cosine of what enters a layer and what leaves it."""
    states = torch.cat([raw_states(model.network, ids) for ids in token_ids(model.tokenizer, texts)], dim=1)
    return [1 - torch.cosine_similarity(states[i], states[i + 1], dim=-1).mean().item() for i in range(len(states) - 1)]


def naive_angular_start(model: Model, texts: tuple[str, ...], drop: int) -> int:
    """2403.17887: the start of the run of `drop` layers over which the last token's state turns least, on average."""
    distances = []
    for ids in token_ids(model.tokenizer, texts):
        last = raw_states(model.network, ids)[:, -1]
        cosines = [torch.cosine_similarity(last[i], last[i + drop], dim=0).item() for i in range(len(last) - drop)]
        distances.append([math.acos(max(-1.0, min(1.0, value))) / math.pi for value in cosines])
    means = [sum(column) / len(column) for column in zip(*distances, strict=True)]
    return means.index(min(means))


@torch.no_grad()
def naive_score(source: Any, plan: Any, sentences: list[torch.Tensor], name: str) -> float:
    total, count = 0.0, 0
    for ids in sentences:
        a, b = (network(ids, output_hidden_states=True) for network in (source, plan))
        for place in range(ids.shape[1] - 1):
            p, q = (output.logits[0, place].double().log_softmax(-1) for output in (a, b))
            if name == "kl":
                total += (p.exp() * (p - q)).sum().item()
            elif name == "perplexity":
                total -= q[ids[0, place + 1]].item()
            else:
                total += 1 - torch.cosine_similarity(*(output.hidden_states[-1][0, place].double() for output in (a, b)), dim=0).item()
            count += 1
    return total / count


def without(network: Any, gone: list[int]) -> Any:
    result = copy.deepcopy(network)
    remove(result, gone)
    return result


def naive_sleb(model: Model, texts: tuple[str, ...], keep: int, name: str) -> tuple[tuple[int, ...], float]:
    """SLEB: deep copies and whole forwards, a layer at a time."""
    sentences, left, score = token_ids(model.tokenizer, texts), list(range(model.spec.depth)), 0.0
    while len(left) > keep:
        scores = []
        for layer in left:
            gone = [other for other in range(model.spec.depth) if other not in left or other == layer]
            scores.append(naive_score(model.network, without(model.network, gone), sentences, name))
        score = min(scores)
        left.pop(scores.index(score))
    return tuple(left), score


# --- Each method ---


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("keep", [5, 3, 1])
def test_bi_drops_the_layers_of_least_block_influence(family: str, keep: int, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    influence = naive_block_influence(model, TEXTS)
    kept = sorted(sorted(range(6), key=lambda layer: influence[layer])[6 - keep :])
    assert drain(baseline(objective_of(model), "bi", keep)).kept == tuple(kept)


def test_bi_reads_the_last_state_before_the_final_norm(tiny: Callable[..., Model]) -> None:
    """Read after the norm, the last layer would seem to matter most of all."""
    model = tiny("llama", seed=99)  # a model of this test's own: its final norm is changed to turn every state
    with torch.no_grad():
        model.network.model.norm.weight.copy_(torch.linspace(-1, 1, 32))
        both = [model.network(ids, output_hidden_states=True).hidden_states[-2:] for ids in token_ids(model.tokenizer, TEXTS)]
    influence = naive_block_influence(model, TEXTS)
    after_norm = 1 - torch.cat([torch.cosine_similarity(a[0], b[0], dim=-1) for a, b in both]).mean().item()
    assert after_norm > max(influence)
    least = influence.index(min(influence))
    order = sorted(range(6), key=lambda layer: influence[layer])
    for keep in range(1, 6):
        assert drain(baseline(objective_of(model), "bi", keep)).kept == tuple(sorted(order[6 - keep :]))
    assert drain(baseline(objective_of(model), "bi", 5)).dropped == (least,)
    assert order[-1] != 5  # so that the wrong reading would have kept another layer


def test_bi_counts_first_tokens_as_any_other(tiny: Callable[..., Model]) -> None:
    texts = ("ab", "cd")  # so short that first tokens decide
    differs = 0
    for seed in range(4):
        model = tiny("llama", seed=seed)
        states = [raw_states(model.network, ids) for ids in token_ids(model.tokenizer, texts)]
        cosines = torch.cat([torch.cosine_similarity(text[:-1, 1:], text[1:, 1:], dim=-1) for text in states], dim=1)
        influence, rest = naive_block_influence(model, texts), (1 - cosines.mean(dim=1)).tolist()
        order, other = (sorted(range(6), key=lambda layer, figures=figures: figures[layer]) for figures in (influence, rest))
        for keep in range(1, 6):
            assert drain(baseline(objective_of(model, texts=texts), "bi", keep)).dropped == tuple(sorted(order[: 6 - keep]))
            differs += set(order[: 6 - keep]) != set(other[: 6 - keep])
    assert differs


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("keep", [5, 4, 2, 1])
def test_angular_drops_the_run_that_turns_the_last_token_least(family: str, keep: int, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    start = naive_angular_start(model, TEXTS, 6 - keep)
    kept = tuple(layer for layer in range(6) if not start <= layer < start + 6 - keep)
    assert drain(baseline(objective_of(model), "angular", keep)).kept == kept


@pytest.mark.parametrize(
    ("family", "keep", "name"), [("llama", 2, "kl"), ("gemma3_text", 4, "kl"), ("gpt2", 4, "perplexity"), ("llama", 4, "cosine")]
)
def test_sleb_goes_layer_by_layer(family: str, keep: int, name: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    found = drain(greedy(objective_of(model, name, UNEQUAL), keep))
    kept, score = naive_sleb(model, UNEQUAL, keep, name)
    assert found.plan.kept == kept
    assert found.score == pytest.approx(score, rel=1e-3)
    assert drain(baseline(objective_of(model, name, UNEQUAL), "sleb", keep)) == found.plan
    told = {"keep": keep, "objective": name, "texts": "texts", "practice": calibration_of(UNEQUAL).fingerprint}
    assert {key: value for key, value in found.plan.settings if key != "practice_tokens"} == told
    assert found.forwards > 6


def test_sleb_takes_numbers_before_none(tiny: Callable[..., Model]) -> None:
    """A removal after which states are no numbers is the worst there is."""
    objective = objective_of(tiny("llama"))
    real = objective.score

    def score(plan: Plan, packs: Any = None) -> float:
        return math.nan if 4 in plan.kept else real(plan, packs)

    objective.score = score  # type: ignore[method-assign]
    plan = drain(greedy(objective, 5)).plan
    assert plan.kept == (0, 1, 2, 3, 5)


def test_tail_drops_the_last_layers(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    assert drain(baseline(objective, "tail", 4)).kept == (0, 1, 2, 3)
    assert drain(baseline(objective, "tail", 1)).kept == (0,)
    assert objective.forwards == 0


def test_random_is_the_seeds(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    found = [drain(baseline(objective, "random", 3, seed=seed)) for seed in range(20)]
    assert [drain(baseline(objective, "random", 3, seed=seed)) for seed in range(20)] == found
    assert len({plan.kept for plan in found}) > 8  # of 20 ways
    assert all(len(set(plan.kept)) == 3 and list(plan.kept) == sorted(plan.kept) for plan in found)
    assert {layer for plan in found for layer in plan.kept} == set(range(6))
    assert dict(found[7].settings) == {"keep": 3, "seed": 7}
    assert objective.forwards == 0


# --- All of them ---


@pytest.mark.parametrize("method", BASELINES)
def test_every_baseline_is_a_plan_of_whole_layers(method: str, tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    for keep in (1, 4, 6):
        plan = drain(baseline(objective, method, keep))
        assert plan.depth == keep
        assert (plan.source_depth, plan.method) == (6, method)
        assert all(block.untouched for block in plan.blocks)
        assert dict(plan.settings)["keep"] == keep
    assert plan.blocks == untouched(6).blocks


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize(("keep", "nearest"), [(0, 1), (-3, 1), (7, 6), (100, 6)])
@pytest.mark.usefixtures("fresh_cache")
def test_a_target_out_of_range_is_refused_with_the_nearest(method: str, keep: int, nearest: int, tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    with pytest.raises(SettingsError, match=rf"{keep} of 6 layers cannot be kept; .* {nearest}$"):
        drain(baseline(objective, method, keep))
    assert objective.forwards == 0


def test_an_unknown_method_or_objective_is_refused(tiny: Callable[..., Model]) -> None:
    with pytest.raises(SettingsError, match=r"'magic'.*angular, bi, sleb, tail, random"):
        drain(baseline(objective_of(tiny("llama")), "magic", 3))
    with pytest.raises(SettingsError, match=r"'speed'.*kl, perplexity, cosine"):
        objective_of(tiny("llama"), "speed")


def test_a_plan_of_kept_layers_keeps_them_whole_in_order() -> None:
    plan = plan_of_kept(4, {2, 0}, "bi", keep=2)
    assert plan == Plan(4, (Block(0, ((0, 1.0),)), Block(2, ((2, 1.0),))), "bi", (("keep", 2),))
    assert plan.dropped == (1, 3)
    assert plan.prefix == 1


def test_progress_of_sleb_rises_within_0_and_1_a_trial_at_a_time(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    told: list[Progress] = []
    drain(baseline(objective_of(tiny("llama")), "sleb", 4), told.append)
    assert [progress.fraction for progress in told] == pytest.approx([done / 11 for done in range(11)])  # 6 trials, then 5
