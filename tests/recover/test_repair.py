import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import PlanError, SettingsError
from engine.jobs import drain
from engine.judge.evaluation import Judge
from engine.judge.objectives import Objective
from engine.methods.depth.baselines import plan_of_kept
from engine.models.families import blocks_of
from engine.models.texts import calibration_of
from engine.passes.forward import run_block
from engine.plans.rules import fold_spans, untouched
from engine.plans.tensor_store import tensor_file, tensor_of
from engine.recover.repair.seam_maps import STRENGTHS, held_out, objective_for_repair, repair, repair_best, ridge_fit, scalar_fit, seams
from engine.types import Block, Model, Part, Plan
from tests.repairing import DROPPED, FOLDABLE, TEXTS, TOKENS, mended, objective_of

MEAN = fold_spans(6, [(1, 2), (4, 5)], "mean")


# --- The two fits ---

sizes = st.tuples(st.integers(3, 40), st.integers(1, 6), st.integers(0, 10_000), st.floats(-3, 3))


def samples(tokens: int, width: int, seed: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    written, wanted = torch.randn(2, tokens, width, generator=generator, dtype=torch.float64)
    return written, wanted * (spread * torch.randn(tokens, 1, generator=generator, dtype=torch.float64)).exp()


@given(sizes)
def test_the_factor_is_the_weighted_least_squares(size: tuple[int, int, int, float]) -> None:
    written, wanted = samples(*size)
    scale = 1 / wanted.norm(dim=-1, keepdim=True)  # every token weighs the inverse square of its size
    column, right = ((scale * side).numpy().reshape(-1) for side in (written, wanted))
    (expected,), *_ = np.linalg.lstsq(column[:, None], right, rcond=None)
    assert scalar_fit(written, wanted) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(sizes, st.sampled_from([1e-4, *STRENGTHS]))
def test_the_matrix_is_the_weighted_least_squares_drawn_to_the_identity(size: tuple[int, int, int, float], strength: float) -> None:
    written, wanted = samples(*size)
    width = size[1]
    scale = 1 / wanted.norm(dim=-1, keepdim=True)
    left, right = (scale * written).numpy(), (scale * wanted).numpy()
    penalty = strength * np.mean(np.linalg.eigvalsh(left.T @ left))
    stacked = np.concatenate([left, math.sqrt(penalty) * np.eye(width)])
    expected, *_ = np.linalg.lstsq(stacked, np.concatenate([right, math.sqrt(penalty) * np.eye(width)]), rcond=None)
    np.testing.assert_allclose(ridge_fit(written, wanted, strength).numpy(), expected.T, rtol=1e-6, atol=1e-7)


def test_fits_by_hand() -> None:
    written, wanted = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double(), torch.tensor([[3.0, 0.0], [0.0, 2.0]]).double()
    # weights 1/9 and 1/4: s = (3/9 + 4/4) / (1/9 + 4/4)
    assert scalar_fit(written, wanted) == pytest.approx((4 / 3) / (10 / 9))
    # gram = diag(1/9, 1), penalty = (1/9 + 1) / 2 = 5/9: each place is (w u y + penalty) / (w u^2 + penalty)
    expected = [[(3 / 9 + 5 / 9) / (1 / 9 + 5 / 9), 0.0], [0.0, 1.0]]
    assert ridge_fit(written, wanted, 1.0).tolist() == [pytest.approx(row) for row in expected]


def test_a_map_that_is_there_is_found_and_a_strong_penalty_leaves_things_alone() -> None:
    written, _ = samples(200, 4, 1, 0.0)
    matrix = torch.tensor([[1.0, 0.5, 0, 0], [0, 2.0, 0, 0], [0, 0, -1.0, 0.3], [0.1, 0, 0, 1.0]]).double()
    assert torch.allclose(ridge_fit(written, written @ matrix.mT, 1e-9), matrix, atol=1e-6)
    assert torch.allclose(ridge_fit(written, written @ matrix.mT, 1e9), torch.eye(4).double(), atol=1e-6)
    assert scalar_fit(written, -2.5 * written) == pytest.approx(-2.5)


def test_what_is_nothing_or_not_finite_is_no_error() -> None:
    nothing, wanted = torch.zeros(8, 4, dtype=torch.float64), torch.ones(8, 4, dtype=torch.float64)
    assert torch.equal(ridge_fit(nothing, wanted, 1e-3), torch.eye(4).double())
    assert math.isnan(scalar_fit(nothing, wanted))
    assert ridge_fit(nothing + math.inf, wanted, 1e-3).isnan().any()


# --- Seams ---


def whole(*layers: int) -> tuple[Block, ...]:
    return tuple(Block(layer, ((layer, 1.0),)) for layer in layers)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        (whole(0, 1, 2, 3, 4, 5), ()),
        (whole(0, 1, 4, 5), ((1, 4),)),
        (whole(0, 1, 4), ((1, 4), (2, 6))),
        (whole(0, 1, 2, 3), ((3, 6),)),
        (whole(0, 2, 4), ((0, 2), (1, 4), (2, 6))),
        (whole(3), ((0, 6),)),
        (whole(2, 3, 4, 5), ()),  # what is missing below the first block has no block to stand in
        ((Block(0, ((0, 1.0),)), Block(1, ((1, 0.5), (2, 0.5))), *whole(3, 4, 5)), ((1, 3),)),
        ((Block(0, ((1, 1.0),)), *whole(1, 2, 3, 4, 5)), ((0, 1),)),  # another's projections, nothing missing
        ((Block(0, ((0, 2.0),)), *whole(1, 2, 3, 4, 5)), ((0, 1),)),
        ((*whole(0, 1, 2, 3, 4), Block(5, ((5, 1.0),), "a" * 64)), ()),  # a repair alone makes no seam
    ],
)
def test_seams_are_where_layers_are_missing_or_stand_in_for_others(
    blocks: tuple[Block, ...], expected: tuple[tuple[int, int], ...]
) -> None:
    assert seams(Plan(6, blocks, "hand-made")) == expected


# --- Repairing ---


@pytest.mark.parametrize("family", FOLDABLE)
@pytest.mark.parametrize("kind", ["ridge", "scalar"])
@pytest.mark.parametrize("plan", [DROPPED, MEAN], ids=["dropped", "mean"])
def test_no_repair_makes_it_worse_on_texts_it_was_not_fitted_to(family: str, kind: str, plan: Plan, tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny(family))
    held = held_out(len(objective.packs))
    assert 0 < len(held) < len(objective.records)
    before = objective.score(plan, held)
    found = drain(repair(objective, plan, kind))
    assert objective.score(found, held) <= before
    assert [entry.place for entry in found.repairs] == sorted({entry.place for entry in found.repairs})
    assert {entry.place for entry in found.repairs} <= {place for place, _ in seams(plan)}
    for entry in found.repairs:
        assert entry.after < entry.before <= before
        assert entry.kind == kind
        assert found.blocks[entry.place].repair == entry.fingerprint
        assert tensor_file(entry.fingerprint).exists()
        assert tuple(tensor_of(entry.fingerprint).shape) == ((1,) if kind == "scalar" else (32, 32))
        assert entry.strength in STRENGTHS or kind == "scalar"
    chain = [value for entry in found.repairs for value in (entry.before, entry.after)]
    assert chain == sorted(chain, reverse=True)
    if found.repairs:
        assert found.repairs[0].before == before
        assert found.repairs[-1].after == objective.score(found, held)
    assert tuple(replace(block, repair="") for block in found.blocks) == plan.blocks
    assert sum(bool(block.repair) for block in found.blocks) == len(found.repairs)
    kept = {key: value for key, value in found.settings if key in ("repair", "practice", "practice_tokens")}
    assert kept == {"repair": kind, "practice": objective.texts.fingerprint, "practice_tokens": objective.protocol.tokens}


def test_some_repair_really_helps(tiny: Callable[..., Model]) -> None:
    """Judged on other texts, by other code."""
    model = tiny("llama")
    assert mended(tiny("llama")).repairs
    judge = Judge(model, calibration_of(tuple(text.title() for text in TEXTS[:10])))
    assert drain(judge.judge(mended(tiny("llama")))).kl < drain(judge.judge(DROPPED)).kl


def test_the_scalar_is_fitted_by_hand_alike(tiny: Callable[..., Model]) -> None:
    """The first seam of DROPPED: u of layer 1 over the packs that are not held out, against what enters layer 4."""
    model, objective = tiny("llama"), objective_of(tiny("llama"))
    total, weights = 0.0, 0.0
    for index, record in enumerate(objective.records):
        if index % 3 == 0:
            continue
        wrote: list[torch.Tensor] = []
        hook = blocks_of(model.network)[1].mlp.down_proj.register_forward_hook(lambda _m, _a, output, wrote=wrote: wrote.append(output))
        after = run_block(model, objective.mixer, DROPPED.blocks[1], record.states[1], record)
        hook.remove()
        for u, out, x in zip(wrote[0][0].double(), after[0].double(), record.states[4][0].double(), strict=True):
            y = x - (out - u)
            total += float(u @ y / (y @ y))
            weights += float(u @ u / (y @ y))
    found = mended(tiny("llama"), "scalar")
    at_seam = [entry for entry in found.repairs if entry.place == 1]
    assert at_seam
    assert at_seam[0].strength == pytest.approx(total / weights, rel=1e-6)
    assert tensor_of(at_seam[0].fingerprint).item() == pytest.approx(total / weights, rel=1e-6)


@pytest.mark.parametrize("plan", [untouched(6), plan_of_kept(6, (2, 3, 4, 5), "hand-made")], ids=["untouched", "first gone"])
def test_a_plan_without_seams_keeps_its_blocks(plan: Plan, tiny: Callable[..., Model]) -> None:
    found = drain(repair(objective_of(tiny("llama")), plan))
    assert (found.blocks, found.repairs, found.method) == (plan.blocks, (), plan.method)


def test_an_earlier_repair_is_dropped(tiny: Callable[..., Model]) -> None:
    again = drain(repair(objective_of(tiny("llama")), mended(tiny("llama"), "ridge"), "scalar"))
    assert (again.blocks, again.repairs) == (mended(tiny("llama"), "scalar").blocks, mended(tiny("llama"), "scalar").repairs)


def test_a_plan_repaired_twice_tells_only_of_the_last(tiny: Callable[..., Model]) -> None:
    again = drain(repair(objective_of(tiny("llama")), mended(tiny("llama"), "ridge"), "scalar"))
    assert [key for key, _ in again.settings].count("repair") == 1


def test_a_repair_that_cannot_help_is_thrown_out(tiny: Callable[..., Model]) -> None:
    """With every candidate's score above what there was, the plan stays as it is."""
    objective = objective_of(tiny("llama"))
    real = objective.score
    objective.score = lambda plan, packs=None: real(plan, packs) + bool(plan.folds)  # type: ignore[method-assign]
    found = drain(repair(objective, DROPPED))
    assert (found.blocks, found.repairs) == (DROPPED.blocks, ())


def test_states_that_are_no_numbers_may_become_some(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    real = objective.score
    objective.score = lambda plan, packs=None: real(plan, packs) if plan.folds else math.nan  # type: ignore[method-assign]
    found = drain(repair(objective, DROPPED))
    assert found.repairs
    assert math.isnan(found.repairs[0].before)
    assert math.isfinite(found.repairs[0].after)


# --- Refused ---


def test_a_family_without_a_last_projection_is_refused(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("gemma3_text"))
    with pytest.raises(PlanError, match="gemma3_text normalises after its last projection"):
        drain(repair(objective, DROPPED))
    assert objective.forwards == 0


def test_too_few_packs_are_refused(tiny: Callable[..., Model]) -> None:
    with pytest.raises(SettingsError, match="too little practice text"):
        drain(repair(objective_of(tiny("llama"), texts=TEXTS[:3]), DROPPED))
    assert len(objective_of(tiny("llama"), texts=TEXTS[:3]).records) == 1


def test_an_unknown_kind_is_refused(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    with pytest.raises(SettingsError, match=r"'magic'.*ridge, refit, scalar"):
        drain(repair(objective, DROPPED, "magic"))
    assert objective.forwards == 0


# --- The best of a few ---


def test_the_best_of_a_few_is_the_best_on_what_is_held_out(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    plans = [plan_of_kept(6, kept, "hand-made") for kept in ((0, 1, 2), (0, 1, 4), (1, 3, 5))]
    each = [drain(repair(objective, plan)) for plan in plans]
    scores = [objective.score(plan, held_out(len(objective.packs))) for plan in each]
    found = drain(repair_best(objective, plans))
    assert found.score == pytest.approx(min(scores))
    assert found.plan.blocks == each[scores.index(min(scores))].blocks
    assert found.stage == "repair"


def test_more_texts_are_used_than_the_search_had(tiny: Callable[..., Model]) -> None:
    small = objective_of(tiny("llama"), tokens=400)
    found = drain(repair_best(objective_for_repair(small, TOKENS), [DROPPED]))
    expected = drain(repair(objective_of(tiny("llama")), DROPPED))
    assert (found.plan.blocks, found.plan.repairs) == (expected.blocks, expected.repairs)


@pytest.mark.parametrize("name", ["cosine", "perplexity"])
def test_a_repair_tells_of_the_divergence_whatever_was_searched_for(name: str, tiny: Callable[..., Model]) -> None:
    """`Repair.before` and `after` are KL divergences."""
    model = tiny("llama")
    objective = objective_of(model, "kl")
    found = drain(repair_best(objective_for_repair(objective_of(model, name), TOKENS), [DROPPED]))
    assert found.score == pytest.approx(objective.score(found.plan, held_out(len(objective.packs))), rel=1e-6)


def test_layers_above_a_seam_are_solved_again_as_a_repair(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    lines = tuple(f"{text} {number} {text[::-1]}" for number in range(30) for text in TEXTS)
    objective = Objective(model, calibration_of(lines), "kl", 3000)
    found = drain(repair(objective, DROPPED, "refit"))
    assert any(block.refits for block in found.blocks)
    assert dict(found.settings)["repair"] == "refit"
    assert objective.score(found) < objective.score(DROPPED)
    assert drain(repair(objective, found, "refit")).blocks == found.blocks  # it starts from the bare plan


@pytest.mark.parametrize(
    ("kind", "parts", "why"), [("ridge", "width", "full width"), ("ridge", "masks", "zeros"), ("refit", "masks", "zeros")]
)
def test_a_repair_comes_before_what_it_would_undo(kind: str, parts: str, why: str, tiny: Callable[..., Model]) -> None:
    plan = replace(DROPPED, **{parts: Part("hand-made")})
    with pytest.raises(PlanError, match=why):
        drain(repair(objective_of(tiny("llama")), plan, kind))
