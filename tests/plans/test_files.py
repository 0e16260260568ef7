import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import PlanError
from engine.plans.description import describe, require_depth, runs, type_conflicts
from engine.plans.files import plan_from_json, plan_to_json, read_plan
from engine.plans.rules import RULES, fold, fold_spans, untouched
from engine.types import Block, Plan

TWELVE_TO_FIFTEEN = {
    "reference": Block(12, ((15, 1.0),)),
    "paper": Block(12, ((12, -2.0), (13, 1.0), (14, 1.0), (15, 1.0))),
    "mean": Block(12, ((12, 0.25), (13, 0.25), (14, 0.25), (15, 0.25))),
    "keep-first": Block(12, ((12, 1.0),)),
    "keep-last": Block(15, ((15, 1.0),)),
}


def naive_fold(group: list[tuple[int, dict[int, float]]], rule: str) -> tuple[int, dict[int, float]]:
    """The rules once more, on dicts of coefficients, straight from their definitions."""
    if rule == "keep-first":
        return group[0]
    if rule == "keep-last":
        return group[-1]
    homes, mixes = zip(*group, strict=True)
    layers = sorted(set().union(*mixes))
    if rule == "reference":
        mix = dict(mixes[-1])
    elif rule == "mean":
        mix = {layer: sum(m.get(layer, 0.0) for m in mixes) / len(mixes) for layer in layers}
    else:  # W + sum of (W_d - W)
        mix = {layer: mixes[0].get(layer, 0.0) + sum(m.get(layer, 0.0) - mixes[0].get(layer, 0.0) for m in mixes[1:]) for layer in layers}
    return homes[0], mix


@st.composite
def folding(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, str]]]:
    """A depth and a series of folds (first, count, rule), each of which fits what the ones before have left."""
    depth = left = draw(st.integers(2, 14))
    folds = []
    for _ in range(draw(st.integers(1, 4))):
        if left >= 2:
            count = draw(st.integers(2, left))
            folds.append((draw(st.integers(0, left - count)), count, draw(st.sampled_from(list(RULES)))))
            left -= count - 1
    return depth, folds


def folded(depth: int, folds: list[tuple[int, int, str]]) -> Plan:
    blocks = untouched(depth).blocks
    for first, count, rule in folds:
        blocks = fold(blocks, first, count, rule)
    return Plan(depth, blocks, "test", (("rule", "mean"), ("T", 0.65), ("spans", ((1, 2), (4, 5)))))


# --- Rules and folds ---


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_gives_what_the_design_says_for_layers_12_to_15(rule: str) -> None:
    blocks = fold(untouched(30).blocks, 12, 4, rule)
    assert blocks[12] == TWELVE_TO_FIFTEEN[rule]
    assert [block.home for block in blocks] == [*range(12), blocks[12].home, *range(16, 30)]


@given(folding())
def test_folding_folds_is_composing_their_coefficients(case: tuple[int, list[tuple[int, int, str]]]) -> None:
    depth, folds = case
    naive: list[tuple[int, dict[int, float]]] = [(layer, {layer: 1.0}) for layer in range(depth)]
    for first, count, rule in folds:
        naive[first : first + count] = [naive_fold(naive[first : first + count], rule)]
    plan = folded(depth, folds)
    assert plan.kept == tuple(home for home, _ in naive)
    for block, (_, expected) in zip(plan.blocks, naive, strict=True):
        found = dict(block.mix)
        assert found == pytest.approx({layer: expected.get(layer, 0.0) for layer in found})
        assert all(abs(value) < 1e-9 for layer, value in expected.items() if layer not in found)


@given(folding())
def test_books_are_kept(case: tuple[int, list[tuple[int, int, str]]]) -> None:
    depth, folds = case
    plan = folded(depth, folds)
    assert plan.depth == depth - sum(count - 1 for _, count, _ in folds)
    assert list(plan.kept) == sorted(set(plan.kept))
    for block in plan.blocks:
        layers = [layer for layer, _ in block.mix]
        assert layers == sorted(set(layers))
        size = sum(abs(value) for _, value in block.mix)
        assert math.isclose(sum(value for _, value in block.mix), 1.0, abs_tol=1e-12 * size)
    assert plan.blocks[: plan.prefix] == untouched(depth).blocks[: plan.prefix]
    assert plan.prefix == plan.depth or plan.blocks[plan.prefix] != Block(plan.prefix, ((plan.prefix, 1.0),))
    used = set(plan.kept) | {layer for block in plan.blocks for layer, _ in block.mix}
    assert set(plan.dropped) == set(range(depth)) - used
    assert hash(plan) == hash(folded(depth, folds))


def test_reference_and_paper_are_the_same_for_two_blocks_only() -> None:
    blocks = untouched(8).blocks
    assert fold(blocks, 3, 2, "reference") == fold(blocks, 3, 2, "paper")
    assert fold(blocks, 3, 3, "reference") != fold(blocks, 3, 3, "paper")


@pytest.mark.parametrize(("first", "count"), [(0, 1), (-1, 2), (5, 2), (0, 7)])
def test_a_fold_must_fit(first: int, count: int) -> None:
    with pytest.raises(PlanError):
        fold(untouched(6).blocks, first, count, "mean")


# --- Spans ---


def test_spans_fold_where_they_say_and_join_where_they_overlap() -> None:
    plan = fold_spans(12, [(8, 10), (1, 2), (2, 4)], "reference")
    assert plan.kept == (0, 1, 5, 6, 7, 8, 11)
    assert plan.folds == (Block(1, ((4, 1.0),)), Block(8, ((10, 1.0),)))
    assert dict(plan.settings) == {"rule": "reference", "spans": ((1, 4), (8, 10))}


def test_touching_spans_stay_two_folds_and_a_span_within_another_adds_nothing() -> None:
    assert fold_spans(8, [(1, 2), (3, 4)], "mean").kept == (0, 1, 3, 5, 6, 7)
    assert fold_spans(8, [(1, 6), (2, 3)], "mean").blocks == fold_spans(8, [(1, 6)], "mean").blocks


@pytest.mark.parametrize("span", [(2, 2), (3, 2), (-1, 2), (4, 6)])
def test_a_span_outside_the_model_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(PlanError, match="between 0 and 5"):
        fold_spans(6, [span], "mean")


# --- JSON ---


@given(folding())
def test_a_plan_survives_json(case: tuple[int, list[tuple[int, int, str]]]) -> None:
    plan = folded(*case)
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan
    assert plan_from_json({"plan": json.loads(json.dumps(plan_to_json(plan))), "trials": []}) == plan


def good(**changes: Any) -> dict[str, Any]:
    blocks = [{"home": 0, "mix": [[0, 1.0]]}, {"home": 1, "mix": [[1, 0.5], [2, 0.5]]}]
    return {"source_depth": 3, "blocks": blocks, "method": "test", "settings": {}, **changes}


def mixing(*mix: Any) -> dict[str, Any]:
    return good(blocks=[{"home": 0, "mix": list(mix)}])


def test_what_the_malformed_plans_start_from_is_sound() -> None:
    assert plan_from_json(good()).depth == 2


MALFORMED: dict[str, Any] = {
    "nothing": None,
    "a list": [],
    "a text": "plan",
    "a number": 3,
    "an empty object": {},
    "no depth": {"blocks": good()["blocks"]},
    "no blocks": {"source_depth": 3},
    "an empty plan under plan": {"plan": {}},
    "a whole map": {"t_min": 0.5, "steps": [{"t_from": 0.5, "t_to": 1.0, "plan": good()}]},
    "depth true": good(source_depth=True),
    "depth a fraction": good(source_depth=3.0),
    "depth a text": good(source_depth="3"),
    "depth null": good(source_depth=None),
    "depth zero": good(source_depth=0),
    "depth negative": good(source_depth=-3),
    "more blocks than layers": good(source_depth=1),
    "empty blocks": good(blocks=[]),
    "blocks an object": good(blocks={"home": 0, "mix": [[0, 1.0]]}),
    "blocks a text": good(blocks="01"),
    "a block that is a list": good(blocks=[[0, [[0, 1.0]]]]),
    "a block without home": good(blocks=[{"mix": [[0, 1.0]]}]),
    "a block without mix": good(blocks=[{"home": 0}]),
    "home true": good(blocks=[{"home": True, "mix": [[0, 1.0]]}]),
    "home a fraction": good(blocks=[{"home": 0.0, "mix": [[0, 1.0]]}]),
    "home negative": good(blocks=[{"home": -1, "mix": [[0, 1.0]]}]),
    "home beyond the depth": good(blocks=[{"home": 3, "mix": [[0, 1.0]]}]),
    "homes that fall": good(blocks=list(reversed(good()["blocks"]))),
    "homes that repeat": good(blocks=[good()["blocks"][0]] * 2),
    "mix empty": mixing(),
    "mix null": good(blocks=[{"home": 0, "mix": None}]),
    "mix a number": mixing(0),
    "mix of one": mixing([0]),
    "mix of three": mixing([0, 1.0, 2]),
    "layer true": mixing([True, 1.0]),
    "layer a text": mixing(["0", 1.0]),
    "layer negative": mixing([-1, 1.0]),
    "layer beyond the depth": mixing([3, 1.0]),
    "layer twice": mixing([1, 0.5], [1, 0.5]),
    "coefficient null": mixing([0, None]),
    "coefficient true": mixing([0, True]),
    "coefficient a text": mixing([0, "1.0"]),
    "coefficient a list": mixing([0, [1.0]]),
    "coefficient NaN": mixing([0, math.nan]),
    "coefficient inf": mixing([0, math.inf]),
    "coefficient -inf": mixing([0, -math.inf]),
    "coefficient too large for a float": mixing([0, 10**400]),
    "settings a list": good(settings=[1]),
    "settings a text": good(settings="T"),
    "tokens a text": good(settings={"practice_tokens": "many"}),
    "masks an empty object": good(masks={}),
    "masks a number": good(masks=0),
    "width an empty text": good(width=""),
    "sparsity null": good(masks={"method": "wanda", "settings": {"sparsity": None}, "layers": [{}, {}]}),
}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_plan_is_refused(value: Any) -> None:
    with pytest.raises(PlanError):
        plan_from_json(value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (good(source_depth="3"), r"source_depth: Input should be a valid integer, not \"3\""),
        (good(blocks=[{"home": 0.5, "mix": [[0, 1.0]]}]), "blocks 0 home: Input should be a valid integer"),
        (mixing([0, None]), "blocks 0 mix 0 1: Input should be a valid number, not null"),
        (good(blocks=[{"home": 0, "mix": [[0, 1.0]], "repair": "x"}]), r"blocks 0 repair: String should match pattern .*, not \"x\""),
        (good(settings={"tokens": "many"}), r"tokens: Input should be a valid integer, not \"many\""),
        ({"source_depth": 3}, "blocks: Field required"),
        (good(masks={"method": "wanda", "layers": [{}]}), "shorter"),
    ],
)
def test_a_malformed_plan_is_refused_by_the_name_and_the_value(value: Any, told: str) -> None:
    with pytest.raises(PlanError, match=told):
        plan_from_json(value)


def test_a_whole_map_is_told_apart_from_nonsense() -> None:
    with pytest.raises(PlanError, match="whole T map"):
        plan_from_json(MALFORMED["a whole map"])


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["home", "mix", "plan", "steps", "T"]), inner, max_size=3),
    max_leaves=8,
)


@example({"settings": {"T": {"from": 0.5}}})
@given(st.dictionaries(st.sampled_from(["source_depth", "blocks", "method", "settings", "plan"]), _ANYTHING))
def test_any_json_is_a_plan_or_a_plan_error(changes: dict[str, Any]) -> None:
    try:
        plan = plan_from_json(good(**changes))
    except PlanError:
        return
    hash(plan)
    assert plan_from_json(plan_to_json(plan)).blocks == plan.blocks


def test_a_plan_file_is_read_or_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(good()))
    assert read_plan(tmp_path / "plan.json") == plan_from_json(good())
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name, words in (
        ("broken.json", "not a readable JSON"),
        ("binary.json", "not a readable JSON"),
        (".", "not a readable JSON"),
        ("missing.json", "does not exist"),
    ):
        with pytest.raises(PlanError, match=words):
            read_plan(tmp_path / name)


def test_a_plan_for_another_depth_is_refused() -> None:
    require_depth(untouched(6), 6)
    with pytest.raises(PlanError, match=r"6 layers.*has 8"):
        require_depth(untouched(6), 8)


# --- Words ---


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("reference", "Layers 13-15 fold into 12: it takes the projections of 15 and keeps its own norms; 13-14 is dropped."),
        ("paper", "Layers 13-15 fold into 12: projections -2·W12 +1·W13 +1·W14 +1·W15 under its own norms."),
        ("mean", "Layers 13-15 fold into 12: the mean of their projections and its own, under its own norms."),
        ("keep-first", "Layers 13-15 dropped."),
        ("keep-last", "Layers 12-14 dropped."),
    ],
)
def test_a_fold_in_words(rule: str, sentence: str) -> None:
    assert describe(fold_spans(30, [(12, 15)], rule)) == (sentence,)


def test_words_for_nothing_for_one_layer_and_for_several_folds() -> None:
    assert describe(untouched(4)) == ("No layer is changed.",)
    assert describe(Plan(4, untouched(4).blocks[:3], "drop")) == ("Layer 3 dropped.",)
    assert len(describe(fold_spans(30, [(2, 3), (12, 15)], "reference"))) == 2


def test_a_block_at_home_above_its_sources_is_not_described_backwards() -> None:
    plan = Plan(6, (*untouched(6).blocks[:2], Block(4, ((2, 0.5), (3, 0.5))), untouched(6).blocks[5]), "by hand")
    assert "5-4" not in " ".join(describe(plan))


@given(st.sets(st.integers(0, 20)))
def test_runs_are_the_longest_stretches_of_consecutive_numbers(layers: set[int]) -> None:
    found = runs(sorted(layers))
    assert [layer for first, last in found for layer in range(first, last + 1)] == sorted(layers)
    assert all(first - 1 not in layers and last + 1 not in layers for first, last in found)


def test_type_conflicts_name_the_homes_that_borrow_from_another_type() -> None:
    types = ("sliding", "sliding", "full", "sliding", "sliding", "full")
    assert type_conflicts(fold_spans(6, [(1, 2), (3, 4)], "reference"), types) == (1,)
    assert type_conflicts(fold_spans(6, [(0, 2), (3, 5)], "mean"), types) == (0, 3)
    assert type_conflicts(fold_spans(6, [(1, 2)], "keep-first"), types) == ()
    assert type_conflicts(fold_spans(6, [(1, 2)], "reference"), None) == ()
