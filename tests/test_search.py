import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from engine import search as search_module
from engine.calibration import calibration_of
from engine.errors import SettingsError
from engine.forward import logits_of, normed, resume
from engine.jobs import Progress, drain
from engine.methods.baselines import greedy, plan_of_kept
from engine.objectives import Objective
from engine.plans import RULES, fold_spans, untouched
from engine.search import Search
from engine.sensitivity import Sensitivity
from engine.surgery import Mixer
from engine.types import Block, DepthPlan, Found, Model
from tests.families import TEXTS
from tests.naive import merge, token_ids
from tests.test_baselines import naive_score, without

SEEDS = range(6)
KEEPS = (7, 6, 5, 4)
GENEROUS = 60.0  # seconds; a search of these models ends by itself within a tenth of one


def objective_of(model: Model, name: str = "kl", texts: tuple[str, ...] = TEXTS) -> Objective:
    return Objective(model, calibration_of(texts), name)


def eight(tiny: Callable[..., Model], seed: int = 0) -> Model:
    return tiny("llama", num_hidden_layers=8, seed=seed)


def scores(search: Search) -> list[float]:
    return [found.score for found in search.history]


# --- Objectives ---


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
    counts = [len(objective.places(pack, skips)) for pack, skips in zip(objective.packs, objective._skips, strict=True)]
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


# --- Sensitivity ---


@pytest.mark.parametrize(("family", "point"), [("llama", 6), ("llama", 3), ("llama", 0), ("qwen2", 4), ("gpt2", 6), ("gpt2", 2)])
def test_the_estimate_is_the_divergence_of_small_changes(family: str, point: int, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    objective = objective_of(model)
    records = objective.records
    sensitivity, mixer, blocks = Sensitivity(model, records), Mixer(model.network), untouched(6).blocks
    generator = torch.Generator().manual_seed(5)
    estimated, true = 0.0, 0.0
    for _ in range(12):
        (record,) = records
        state = record.states[point]
        changed = state + 0.02 * state.std() * torch.randn(state.shape, generator=generator)
        estimated += sensitivity.cost(point, [changed])
        shadow = SimpleNamespace(pack=record.pack, states=(changed,) * 7, calls=record.calls)
        final = normed(model, resume(model, mixer, shadow, blocks, point))  # type: ignore[arg-type]
        p, q = (logits_of(model, states)[0].double().log_softmax(-1) for states in (record.final, final))
        true += (p.exp() * (p - q)).sum(-1).mean().item()
    assert true > 0
    assert 0.5 < estimated / true < 2


def test_no_change_costs_nothing_and_twice_the_change_four_times_as_much(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    (record,) = objective.records
    sensitivity = Sensitivity(objective.model, objective.records)
    assert sensitivity.cost(3, [record.states[3]]) == 0
    change = torch.randn(record.states[3].shape, generator=torch.Generator().manual_seed(1))
    once, twice = (sensitivity.cost(3, [record.states[3] + scale * change]) for scale in (1.0, 2.0))
    assert twice == pytest.approx(4 * once, rel=1e-3)


def test_leaving_layers_out_adds_their_contributions(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    (record,) = objective.records
    sensitivity = Sensitivity(objective.model, objective.records)
    assert sensitivity.without(set()) == 0
    for layer in range(6):
        assert sensitivity.without({layer}) == pytest.approx(sensitivity.cost(layer + 1, [record.states[layer]]), rel=1e-6)
    assert sensitivity.without({1, 4}) <= (sensitivity.without({1}) ** 0.5 + sensitivity.without({4}) ** 0.5) ** 2 * (1 + 1e-9)


def test_the_weights_keep_no_gradient(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    Sensitivity(objective.model, objective.records)
    assert all(parameter.grad is None for parameter in objective.model.network.parameters())


# --- The draft ---


def drafted(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> Objective:
    """An objective of several packs, of which a search drafts on the first ones."""
    texts = tuple(f"{text} {number}" for number in range(40) for text in TEXTS)
    monkeypatch.setattr(search_module, "DRAFT_TOKENS", 600)
    return Objective(eight(tiny, seed), calibration_of(texts), limit=2000)


def test_the_draft_is_whole_packs_of_at_most_so_many_tokens(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    objective = drafted(tiny, monkeypatch)
    sizes = [pack.ids.shape[1] for pack in objective.packs]
    assert Search(objective, 4).draft == (0,)
    monkeypatch.setattr(search_module, "DRAFT_TOKENS", sizes[0] + sizes[1])
    assert Search(objective, 4).draft == (0, 1)
    monkeypatch.setattr(search_module, "DRAFT_TOKENS", 1)
    assert Search(objective, 4).draft == (0,)  # never none


@pytest.mark.parametrize("seed", [1, 3, 4, 5])  # whose first plan is not the best
def test_only_what_looks_hardly_worse_on_the_draft_is_measured_in_full(
    seed: int, tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = drafted(tiny, monkeypatch, seed)
    real, asked = objective.score, list[tuple[tuple[Block, ...], bool, float]]()

    def score(plan: DepthPlan, packs: tuple[int, ...] | None = None) -> float:
        value = real(plan, packs)
        asked.append((plan.blocks, packs is None, value))
        return value

    objective.score = score  # type: ignore[method-assign]
    search = Search(objective, 4, GENEROUS)
    history = drain(search.run())
    full = list(dict.fromkeys(blocks for blocks, whole, _ in asked if whole))
    drafts = {blocks: value for blocks, whole, value in asked if not whole}
    assert set(full) == {plan.blocks for plan in search.best(1000)}
    assert 1 < len(full) < len({blocks for blocks in drafts if len(blocks) == 4})
    assert [found.score for found in history] == [real(found.plan) for found in history]  # over all tokens
    best = [found.plan.blocks for found in history]
    for blocks in full[1:]:
        before = [found for found in best if full.index(found) < full.index(blocks)]
        assert drafts[blocks] <= search_module._HARDLY * drafts[before[-1]]


def test_a_search_without_time_looks_at_the_draft_alone(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    objective = drafted(tiny, monkeypatch)
    search = Search(objective, 4, 1e-9)
    (found,) = drain(search.run())
    assert found.plan.depth == 4
    assert found.score == objective.score(found.plan, search.draft) != objective.score(found.plan)
    assert found.forwards < 8 * 8 * objective.share(search.draft)


def test_blocks_run_on_a_part_count_as_a_part(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    objective = drafted(tiny, monkeypatch)
    share = objective.share((0,))
    assert share == objective.packs[0].ids.shape[1] / objective.tokens < 0.5
    assert objective.share(objective.every) == pytest.approx(1)
    objective.score(plan_of_kept(8, range(1, 8), "hand-made"), (0,))
    assert objective.forwards == pytest.approx((8 + 7) * share)  # the source's pass, and the plan's
    objective.extend([objective.record(0).states[0]], Block(3, ((3, 1.0),)), (0,))
    assert objective.forwards == pytest.approx(16 * share)


# --- Search against every plan ---


@pytest.fixture(scope="module")
def races(tiny: Callable[..., Model]) -> dict[tuple[int, int], tuple[float, float, float]]:
    """By seed and layers to keep: the best scores of a search, of trying everything and of the greedy baseline."""
    found = {}
    for seed, keep in itertools.product(SEEDS, KEEPS):
        objective = objective_of(eight(tiny, seed))
        search = Search(objective, keep, GENEROUS, survivors=("keep-first",))
        searched, everything = drain(search.run()), drain(Search(objective, keep, GENEROUS).exhaust())
        assert not search.over  # it ended by itself, with time left
        found[seed, keep] = (searched[-1].score, everything[-1].score, drain(greedy(objective, keep)).score)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_finds_what_trying_everything_finds(seed: int, races: dict[tuple[int, int], tuple[float, float, float]]) -> None:
    assert [races[seed, keep][0] for keep in KEEPS] == [races[seed, keep][1] for keep in KEEPS]


@pytest.mark.parametrize("seed", SEEDS)
def test_is_at_least_as_good_as_greedy(seed: int, races: dict[tuple[int, int], tuple[float, float, float]]) -> None:
    assert all(races[seed, keep][0] <= races[seed, keep][2] for keep in KEEPS)


def test_is_never_far_from_the_best(races: dict[tuple[int, int], tuple[float, float, float]]) -> None:
    assert all(best <= found <= 1.15 * best for found, best, _ in races.values())
    assert sum(found == best for found, best, _ in races.values()) >= 20  # of 24


def test_trying_everything_tries_everything(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    objective = objective_of(model)
    search = Search(objective, 4)
    told: list[Progress] = []
    history = drain(search.exhaust(), told.append)
    assert len(told) == math.comb(6, 4) == len(search.best(100))
    sentences = token_ids(model.tokenizer, TEXTS)
    pairs = itertools.combinations(range(6), 2)
    naive = {gone: naive_score(model.network, without(model.network, list(gone)), sentences, "kl") for gone in pairs}
    assert history[-1].score == pytest.approx(min(naive.values()), rel=1e-3)
    assert history[-1].plan.dropped == min(naive, key=lambda gone: naive[gone])
    order = [objective.score(plan) for plan in search.best(15)]
    assert order == sorted(order)
    assert order == pytest.approx(sorted(naive.values()), rel=1e-3)


def test_too_many_plans_are_not_all_tried(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    objective = objective_of(tiny("llama", num_hidden_layers=16))
    with pytest.raises(SettingsError, match="12870 ways to keep 8 of 16"):
        drain(Search(objective, 8).exhaust())
    assert objective.forwards == 0
    monkeypatch.setattr(search_module, "MOST_PLANS", math.comb(8, 4) - 1)
    with pytest.raises(SettingsError, match="70 ways"):
        drain(Search(objective_of(eight(tiny)), 4).exhaust())


@pytest.mark.parametrize("keep", [8, 1])
def test_the_ends_of_the_range(keep: int, tiny: Callable[..., Model]) -> None:
    history = drain(Search(objective_of(eight(tiny)), keep, GENEROUS).run())
    assert history[-1].plan.depth == keep
    if keep == 8:
        assert history[-1].plan.blocks == untouched(8).blocks
        assert history[-1].score == pytest.approx(0, abs=1e-6)


# --- History and budget ---


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("name", ["kl", "perplexity", "cosine"])
def test_history_improves_strictly_and_is_reported_as_it_comes(family: str, name: str, tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny(family), name)
    reported: list[Found] = []
    search = Search(objective, 3, GENEROUS, report=reported.append)
    history = drain(search.run())
    assert list(history) == search.history == reported
    assert all(later.score < earlier.score for earlier, later in itertools.pairwise(history))
    assert all(later.seconds >= earlier.seconds and later.forwards >= earlier.forwards for earlier, later in itertools.pairwise(history))
    for found in history:
        assert (found.plan.depth, found.plan.source_depth, found.plan.method) == (3, objective.model.spec.depth, "search")
        assert objective.score(found.plan) == found.score
        assert dict(found.plan.settings) == {"keep": 3, "objective": name}
    assert search.forwards == objective.forwards


def test_a_plan_as_good_as_the_best_is_no_improvement(tiny: Callable[..., Model]) -> None:
    objective = objective_of(eight(tiny))
    objective.score = lambda plan, packs=None: 0.5  # type: ignore[method-assign]
    search = Search(objective, 4, GENEROUS)
    assert len(drain(search.run())) == len(drain(search.exhaust())) == 1


def test_survivors_are_tried_where_a_seam_covers_layers(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block is its home whole, the last covered layer's projections under its norms, or their mean."""
    monkeypatch.setattr(search_module, "_SLACK", math.inf)  # on random models no survivor looks good enough to be measured
    monkeypatch.setattr(search_module, "_MEASURED", 12)
    objective = objective_of(eight(tiny))
    plain, free = Search(objective, 4, GENEROUS, survivors=("keep-first",)), Search(objective, 4, GENEROUS)
    drain(plain.run())
    drain(free.run())
    assert all(block.untouched for plan in plain.best(1000) for block in plan.blocks)
    seen = set()
    for plan in free.best(1000):
        ends = [block.home for block in plan.blocks[1:]] + [8]
        for block, end in zip(plan.blocks, ends, strict=True):
            group = [Block(layer, ((layer, 1.0),)) for layer in range(block.home, end)]
            allowed = {RULES[rule](group): rule for rule in ("mean", "reference", "keep-first")}
            seen.add(allowed[block])
    assert seen == {"mean", "reference", "keep-first"}
    assert free.history[-1].score <= plain.history[-1].score


@pytest.mark.parametrize("keep", [6, 4])
def test_forwards_are_bounded(keep: int, tiny: Callable[..., Model]) -> None:
    model = eight(tiny)
    whole = Search(objective_of(model), keep, GENEROUS)
    drain(whole.run())
    first = 8 + 3 * 8 + 8  # the source, the gradients and a beam of one lost layer at most are spent in any case
    for bound in range(first, int(whole.forwards), 10):
        objective = objective_of(model)
        search = Search(objective, keep, GENEROUS, forwards=bound)
        history = drain(search.run())
        assert history
        assert all(found.plan.depth == keep for found in history)
        assert search.forwards <= bound + keep + 1  # what was begun is ended: one plan, on the way down with a layer more
    assert whole.forwards > first + 20


@pytest.mark.parametrize("bound", [30, 40, 60])
def test_forwards_are_bounded_where_only_the_draft_was_run_before(
    bound: int, tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = drafted(tiny, monkeypatch)
    search = Search(objective, 4, GENEROUS, forwards=bound)
    assert drain(search.run())
    assert search.forwards <= bound


def test_what_was_spent_before_does_not_count(tiny: Callable[..., Model]) -> None:
    objective = objective_of(eight(tiny))
    drain(greedy(objective, 4))
    spent = objective.forwards
    search = Search(objective, 4, GENEROUS, forwards=90)
    drain(search.run())
    assert search.forwards == objective.forwards - spent
    assert search.forwards > 24


def test_no_time_at_all_still_gives_a_plan(tiny: Callable[..., Model]) -> None:
    search = Search(objective_of(eight(tiny)), 4, seconds=1e-9)
    (found,) = drain(search.run())
    assert search.over
    assert found.plan.depth == 4
    assert math.isfinite(found.score)


@pytest.mark.parametrize("seconds", [0, 0.0, -1.0, math.nan, -math.inf])
def test_a_search_without_time_is_refused(seconds: float, tiny: Callable[..., Model]) -> None:
    with pytest.raises(SettingsError, match=f"{seconds} seconds are none"):
        Search(objective_of(eight(tiny)), 4, seconds)


@pytest.mark.parametrize(("keep", "nearest"), [(0, 1), (-1, 1), (9, 8)])
def test_a_target_out_of_range_is_refused_with_the_nearest(keep: int, nearest: int, tiny: Callable[..., Model]) -> None:
    with pytest.raises(SettingsError, match=rf"{keep} layers cannot be kept of 8; .* {nearest}$"):
        Search(objective_of(eight(tiny)), keep)


def test_unknown_survivors_are_refused(tiny: Callable[..., Model]) -> None:
    with pytest.raises(SettingsError, match="fittest"):
        Search(objective_of(eight(tiny)), 4, survivors=("keep-first", "fittest"))


def test_a_stopped_search_keeps_its_history(tiny: Callable[..., Model]) -> None:
    search = Search(objective_of(eight(tiny)), 4, GENEROUS)
    job = search.run()
    for step in job:
        assert step.fraction is not None
        assert 0 <= step.fraction <= 1
        if search.history:
            assert f"best so far {search.history[-1].score:.4f}" in step.label
            break
    kept = list(search.history)
    job.close()
    assert search.history == kept
    assert kept[-1].plan.depth == 4
    (best,) = search.best(1)
    assert best.blocks == kept[-1].plan.blocks


def test_plans_that_are_no_numbers_come_last(tiny: Callable[..., Model]) -> None:
    """A plan without layer 3 is no number here, so the best one keeps it, and NaN never stays in front."""
    objective = objective_of(eight(tiny))
    real = objective.score
    objective.score = lambda plan, packs=None: real(plan, packs) if 3 in plan.kept else math.nan  # type: ignore[method-assign]
    search = Search(objective, 4, GENEROUS)
    history = drain(search.exhaust())
    assert 3 in history[-1].plan.kept
    assert all(math.isfinite(found.score) for found in history[1:])
    assert history[-1].score == min(value for plan in search.best(1000) if math.isfinite(value := objective.score(plan)))
