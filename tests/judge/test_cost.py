import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.jobs import Progress, drain
from engine.judge import evaluation
from engine.judge.cost import LEVELS, Cost, cost_judge, cost_of, costs, level_of, practice_texts
from engine.judge.evaluation import Judge
from engine.judge.similarity import SimilarityMeter
from engine.methods.depth.baselines import plan_of_kept
from engine.methods.depth.laco import LacoSettings
from engine.models.texts import bundled, calibration_of
from engine.plans.rules import fold_spans, untouched
from engine.search.frontier import frontier, outwards
from engine.types import Block, Model, Plan
from tests.families import TEXTS
from tests.methods.test_baselines import without
from tests.naive import merge

PLANS: tuple[Plan, ...] = (
    fold_spans(6, [(2, 4)], "mean"),
    plan_of_kept(6, (0, 1, 2, 5), "hand-made"),
    fold_spans(6, [(2, 3)], "mean"),
    untouched(6),
    plan_of_kept(6, (0, 1, 2, 4, 5), "hand-made"),
)
BROKEN = replace(untouched(6), blocks=(Block(0, ((0, 1e38), (1, 1e38))), *untouched(6).blocks[1:]))


def figures(cost: Cost) -> tuple[float, ...]:
    return cost.ratio, cost.low, cost.high, cost.kl


@torch.no_grad()
def naive_cost(source: Any, pruned: Any, texts: list[list[int]]) -> Cost:
    """Two whole forwards a text; the interval is that of a ratio estimator, written down from its textbook formula."""
    rises, kls, counts = [], [], []
    for ids in texts:
        p, q = (network(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1) for network in (source, pruned))
        own = torch.arange(len(ids) - 1), torch.tensor(ids[1:])
        rises.append(float((p[own] - q[own]).sum()))
        kls.append(float((p.exp() * (p - q)).sum()))
        counts.append(len(ids) - 1)
    n, tokens = len(texts), sum(counts)
    mean = sum(rises) / tokens
    variance = sum((rise - mean * count) ** 2 for rise, count in zip(rises, counts, strict=True)) / (n - 1) / n / (tokens / n) ** 2
    half = 1.96 * math.sqrt(variance)
    return Cost(math.exp(mean), math.exp(mean - half), math.exp(mean + half), sum(kls) / tokens)


# --- What is measured ---


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_a_cost_is_what_plain_forwards_say_of_the_openings_of_the_practice_texts(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    judge = cost_judge(model, "english", 700)
    each = max(stop - start for pack in judge.packs for _, start, stop in pack.spans)
    texts = [model.tokenizer(text)["input_ids"][:each] for text in bundled("english", "practice").texts]
    chosen, left = [], 700
    while left > 0:
        chosen.append(texts[len(chosen)][: left + 1])
        left -= len(chosen[-1]) - 1
    assert judge.protocol.tokens == 700
    assert len(chosen) > 3
    for plan, network in ((PLANS[0], merge(model.network, 2, 2, "mean")), (PLANS[1], without(model.network, [3, 4]))):
        found, naive = cost_of(drain(judge.judge(plan))), naive_cost(model.network, network, chosen)
        assert figures(found) == pytest.approx(figures(naive), rel=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_sharing_changes_no_figure(family: str, tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts, found = calibration_of(tuple(f"{text} {number}" for number in range(20) for text in TEXTS)), []
    for shared in (False, True):
        monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / str(shared)))
        judge = Judge(tiny(family), texts, limit=1500)
        assert len(judge.packs) > 1
        if shared:
            judge.keep_trails()
        found.append([drain(judge.judge(plan)) for plan in PLANS])
    assert found[0] == found[1]


def test_sharing_holds_where_the_sources_states_are_too_many_to_keep(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    """A record that goes frees its name for the next one, whose states would not be those of the trails."""
    texts = calibration_of(tuple(f"{text} {number}" for number in range(20) for text in TEXTS))
    judge = Judge(tiny("llama"), texts, limit=1500, keep=0)
    judge.keep_trails()
    found = [drain(judge.judge(plan)) for plan in PLANS]
    fresh_cache.rename(fresh_cache.with_name("before"))
    plain = Judge(tiny("llama"), texts, limit=1500)
    assert found == [drain(plain.judge(plan)) for plan in PLANS]


def test_plans_with_the_same_leading_blocks_share_them(
    tiny: Callable[..., Model], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.passes import forward

    ran: list[Block] = []
    run = forward.run_block
    monkeypatch.setattr(forward, "run_block", lambda model, mixer, block, *rest: ran.append(block) or run(model, mixer, block, *rest))
    judge = cost_judge(tiny("llama"), tokens=200)
    packs = len(judge.packs)
    drain(judge.judge(plan_of_kept(6, (0, 2, 3, 5), "hand-made")))
    assert len(ran) == 3 * packs
    drain(judge.judge(plan_of_kept(6, (0, 2, 3, 4), "hand-made")))
    assert len(ran) == 4 * packs


def test_the_texts_are_practice_and_no_others() -> None:
    assert practice_texts("korean") == bundled("korean", "practice")
    assert practice_texts("english") == practice_texts("my own.txt") == bundled("english", "practice")


def test_every_language_has_texts_enough_for_an_interval(demo: Model) -> None:
    for language in ("english", "korean"):
        judge = cost_judge(demo, language)
        texts = {text for pack in judge.packs for text, _, _ in pack.spans}
        assert len(texts) >= 6
        assert judge.protocol.texts == f"practice-{language}"


@pytest.mark.parametrize(
    ("ratio", "level"), [(0.9, "good"), (1.3, "fair"), (3.0, "poor"), (1e9, "broken"), (math.inf, "broken"), (math.nan, "broken")]
)
def test_a_ratio_has_a_level(ratio: float, level: str) -> None:
    assert level_of(ratio) == level
    assert level in {name for _, name, _ in LEVELS}


# --- Many plans ---


def test_costs_are_told_in_order_as_soon_as_they_are_there(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    judge = cost_judge(tiny("llama"), tokens=600)
    told: list[tuple[Plan, Cost]] = []
    seen: list[tuple[int, Progress]] = []
    drain(costs(judge, PLANS, lambda plan, cost: told.append((plan, cost))), lambda step: seen.append((len(told), step)))
    assert [plan for plan, _ in told] == list(PLANS)
    assert {count for count, _ in seen} == {0, 1, 2, 3, 4}  # none waits for another
    shares = [step.fraction for _, step in seen]
    assert shares == sorted(shares)  # type: ignore[type-var]
    assert told[3][1].ratio == 1
    assert [cost for _, cost in told] == [cost_of(drain(judge.judge(plan))) for plan in PLANS]


def test_costs_that_were_cancelled_go_on_where_they_stopped(
    tiny: Callable[..., Model], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = cost_judge(tiny("llama"), tokens=600)
    told: list[Plan] = []
    job = costs(judge, PLANS, lambda plan, cost: told.append(plan))
    while len(told) < 2:
        next(job)
    job.close()
    again = cost_judge(tiny("llama"), tokens=600)
    assert [again.known(plan) for plan in PLANS] == [True, True, False, False, False]
    monkeypatch.setattr(evaluation, "resume", None)  # what is remembered runs nothing
    drain(costs(again, PLANS[:2], lambda plan, cost: told.append(plan)))
    assert told == [*PLANS[:2], *PLANS[:2]]


def test_a_cost_that_is_not_finite_is_told_as_such(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    told: list[Cost] = []
    drain(costs(cost_judge(tiny("llama"), tokens=200), (BROKEN, PLANS[0]), lambda plan, cost: told.append(cost)))
    assert all(map(math.isnan, figures(told[0])))
    assert all(map(math.isfinite, figures(told[1])))


def test_one_text_alone_has_no_interval(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    cost = cost_of(drain(cost_judge(tiny("llama"), tokens=20).judge(PLANS[0])))
    assert math.isfinite(cost.ratio)
    assert math.isnan(cost.low)
    assert math.isnan(cost.high)


def test_a_whole_map_is_measured(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    steps = drain(frontier(SimilarityMeter(tiny("llama"), calibration_of(TEXTS)), LacoSettings(C=2, I=1, lowest=0), -1.0)).steps
    found: dict[tuple[Block, ...], Cost] = {}
    drain(costs(cost_judge(tiny("llama"), tokens=200), outwards(steps, 3), lambda plan, cost: found.update({plan.blocks: cost})))
    assert found.keys() == {step.proposal.plan.blocks for step in steps}
    assert next(iter(found)) == steps[3].proposal.plan.blocks
