import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.judge.objectives import Objective
from engine.methods.depth.baselines import plan_of_kept
from engine.models.texts import calibration_of
from engine.plans.rules import fold_spans, untouched
from engine.types import Block, Model
from tests.families import TEXTS
from tests.methods.test_baselines import naive_score, without
from tests.naive import merge, token_ids


def objective_of(model: Model, name: str = "kl", texts: tuple[str, ...] = TEXTS) -> Objective:
    return Objective(model, calibration_of(texts), name)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("name", ["kl", "perplexity", "cosine"])
def test_an_objective_is_what_plain_forwards_say(family: str, name: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    objective, sentences = objective_of(model, name), token_ids(model.tokenizer, TEXTS)
    for plan, network in (
        (plan_of_kept(6, (0, 1, 4, 5), "hand-made"), without(model.network, [2, 3])),
        (plan_of_kept(6, (1, 2, 3, 4, 5), "hand-made"), without(model.network, [0])),
        (fold_spans(6, [(2, 4)], "mean"), merge(model.network, 2, 2, "mean")),
    ):
        assert objective.score(plan) == pytest.approx(naive_score(model.network, network, sentences, name), rel=1e-3)


def test_the_source_itself_scores_nothing(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    assert objective_of(model).score(untouched(6)) == pytest.approx(0, abs=1e-6)
    assert objective_of(model, "cosine").score(untouched(6)) == pytest.approx(0, abs=1e-6)


def test_scoring_twice_runs_nothing_and_leading_blocks_run_once(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    plan = plan_of_kept(6, (0, 2, 3, 5), "hand-made")
    first = objective.score(plan)
    assert objective.forwards == 6 + 3  # the source, and what follows the first layer
    assert objective.score(plan) == first
    assert objective.score(replace(plan, method="another", settings=(("keep", 4),))) == first
    assert objective.forwards == 9
    objective.score(plan_of_kept(6, (0, 2, 3, 4), "hand-made"))
    assert objective.forwards == 10  # 0, 2 and 3 were run before
    objective.score(untouched(6))
    assert objective.forwards == 10


def test_some_packs_are_scored_as_such(tiny: Callable[..., Model]) -> None:
    texts = tuple(f"{text} {number}" for number in range(16) for text in TEXTS)
    model = tiny("llama")
    objective = Objective(model, calibration_of(texts), limit=2000)
    plan = plan_of_kept(6, (0, 2, 3, 5), "hand-made")
    counts = [len(places) for places in objective.places]
    assert len(counts) > 1
    parts = [objective.score(plan, (index,)) for index in range(len(counts))]
    pooled = sum(part * count for part, count in zip(parts, counts, strict=True)) / sum(counts)
    assert objective.score(plan) == pytest.approx(pooled, rel=1e-5)
    first = texts[: len(objective.packs[0].spans)]
    assert parts[0] == pytest.approx(objective_of(model, texts=first).score(plan), rel=1e-4)


def test_states_that_are_no_numbers_score_nan(tiny: Callable[..., Model]) -> None:
    plan = replace(untouched(6), blocks=(Block(0, ((0, 1e38), (1, 1e38))), *untouched(6).blocks[1:]))
    for name in ("kl", "perplexity", "cosine"):
        assert math.isnan(objective_of(tiny("llama"), name).score(plan))
