import itertools
import math
from collections.abc import Callable

import pytest
import torch

from engine.errors import SettingsError
from engine.jobs import Progress, drain
from engine.judge.objectives import Found, Objective
from engine.methods.depth.baselines import plan_of_kept
from engine.methods.depth.sleb import greedy
from engine.models.texts import calibration_of
from engine.plans.rules import RULES, untouched
from engine.search import search as search_module
from engine.search.search import Search
from engine.types import Block, Model, Plan
from tests.families import TEXTS
from tests.judge.test_objectives import objective_of
from tests.methods.test_baselines import naive_score, without
from tests.naive import token_ids

SEEDS = range(6)
KEEPS = (7, 6, 5, 4)
GENEROUS = 60.0  # seconds; a search of these models ends by itself within a tenth of one


def eight(tiny: Callable[..., Model], seed: int = 0) -> Model:
    return tiny("llama", num_hidden_layers=8, seed=seed)


def scores(search: Search) -> list[float]:
    return [found.score for found in search.history]


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
def test_a_plan_is_given_up_where_it_falls_behind_the_best_and_not_before(
    seed: int, tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "_MARGIN", 0.02)  # what a small model's plans cost is much alike
    objective = drafted(tiny, monkeypatch, seed)
    every, real = objective.every, objective.score
    ran: dict[tuple[Block, ...], set[int]] = {}

    def score(plan: Plan, packs: tuple[int, ...] | None = None) -> float:
        ran.setdefault(plan.blocks, set()).update(packs or every)
        return real(plan, packs)

    objective.score = score  # type: ignore[method-assign]
    search = Search(objective, 4, GENEROUS)
    history = drain(search.run())
    assert [found.score for found in history] == [real(found.plan) for found in history]  # over all tokens
    bests = [found.plan for found in history]
    lengths = set()

    def behind(plan: Plan, best: Plan, packs: tuple[int, ...]) -> bool:
        return real(plan, packs) > real(best, packs) * (1 + 0.02 * (1 - objective.share(packs)))

    for plan in search.best(1000):
        seen = len(ran[plan.blocks])
        lengths.add(seen)
        raced = [every[:count] for count in range(1, seen + 1)]
        if seen < len(every):  # given up: within the margin but for the last step
            assert any(behind(plan, best, raced[-1]) and not any(behind(plan, best, packs) for packs in raced[:-1]) for best in bests)
        elif plan.blocks != bests[0].blocks:  # measured: never behind one that was the best before
            assert any(not any(behind(plan, best, packs) for packs in raced[:-1]) for best in bests)
    assert {1, len(every)} <= lengths


def test_a_race_ends_at_the_text_where_it_is_lost(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    objective = drafted(tiny, monkeypatch)
    every = objective.every
    best, late, early = (plan_of_kept(8, kept, "hand-made") for kept in ((0, 1, 2, 3), (0, 1, 2, 4), (0, 1, 2, 5)))
    costs = {best.blocks: [1.0] * len(every), late.blocks: [1.0, 1.0, 2.0, 0.0, 0.0], early.blocks: [2.0, 0.0, 0.0, 0.0, 0.0]}
    asked: list[tuple[tuple[Block, ...], int]] = []

    def score(plan: Plan, packs: tuple[int, ...] | None = None) -> float:
        asked.append((plan.blocks, len(packs or every)))
        known = costs.get(plan.blocks, [0.0] * len(every))  # the source's own
        return sum(known[index] for index in packs or every) / len(packs or every)

    monkeypatch.setattr(objective, "score", score)
    search = Search(objective, 4, GENEROUS)
    assert search._measure(best, "grow") == 1.0
    assert search._measure(early, "swap") == search._measure(late, "swap") == math.inf
    assert max(count for blocks, count in asked if blocks == early.blocks) == 1
    assert max(count for blocks, count in asked if blocks == late.blocks) == 3
    assert [plan.blocks for plan in search.best(3)] == [best.blocks, late.blocks, early.blocks]  # 1 + 1/3, 1 + 1


def test_the_best_few_are_in_the_order_of_what_is_known_of_them(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(drafted(tiny, monkeypatch), 4, GENEROUS)
    best = drain(search.run())[-1]
    few = search.best(5)
    assert len(few) == 5
    assert few[0].blocks == best.plan.blocks
    real = [search.objective.score(plan) for plan in few]
    assert real == pytest.approx(sorted(real), rel=0.1)  # one that was given up is where it was heading for


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
        assert {"keep": 3, "objective": name, **dict(objective.recorded)} == dict(found.plan.settings)
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
            allowed = {RULES[rule].run(group): rule for rule in ("mean", "reference", "keep-first")}
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
    with pytest.raises(SettingsError, match=f"got {seconds} seconds"):
        Search(objective_of(eight(tiny)), 4, seconds)


@pytest.mark.parametrize(("keep", "nearest"), [(0, 1), (-1, 1), (9, 8)])
def test_a_target_out_of_range_is_refused_with_the_nearest(keep: int, nearest: int, tiny: Callable[..., Model]) -> None:
    with pytest.raises(SettingsError, match=rf"{keep} of 8 layers cannot be kept; .* {nearest}$"):
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


# --- the first plan ---


def test_a_first_plan_comes_before_anything_is_estimated_and_is_shortgpts(
    tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, guessed = drafted(tiny, monkeypatch), list[Found]()
    search = Search(objective, 5, GENEROUS, guess=guessed.append)
    running = search.run()
    while "Estimating" not in next(running).label:
        pass
    running.close()
    (found,) = guessed
    states = [[record.states[point][0].double() for record in search._records] for point in range(9)]
    alike = torch.nn.functional.cosine_similarity
    influence = [1 - float(torch.cat([alike(*pair, dim=-1) for pair in zip(*states[i : i + 2], strict=True)]).mean()) for i in range(8)]
    assert found.plan.kept == tuple(sorted(sorted(range(8), key=lambda layer: influence[layer])[3:]))
    assert (found.score, found.stage) == (objective.score(found.plan, search.draft), "guess")
    assert search.history == []


def test_where_the_estimate_would_take_more_than_the_budget_the_first_plan_is_the_answer(
    tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "Sensitivity", lambda *_: pytest.fail("the budget was for two passes"))
    now = [0.0]
    monkeypatch.setattr(Objective, "watch", staticmethod(lambda: lambda: now[0]))
    objective = drafted(tiny, monkeypatch)
    record = objective.record
    monkeypatch.setattr(objective, "record", lambda index: now.__setitem__(0, now[0] + 1) or record(index))  # a pass takes a second
    (found,) = drain(Search(objective, 5, 2.5).run())
    assert (found.stage, found.plan.depth) == ("guess", 5)
