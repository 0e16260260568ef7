import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from engine.export.checkpoint.export import ExportReport
from engine.jobs import drain
from engine.judge.similarity import SimilarityMeter
from engine.methods.depth.laco import LacoSettings, Proposal, Trial
from engine.methods.width.minitron import RemovalPerplexity
from engine.models.families import resized_config
from engine.models.texts import calibration_of
from engine.passes.profiling import profile
from engine.plans.description import weigh
from engine.plans.rules import RULES, fold_spans, untouched
from engine.search.frontier import Frontier, Step, frontier
from engine.types import Block, Check, Model, Plan
from tests.families import FAMILIES, TEXTS
from ui.page import charts

DEPTH = 6
texts = calibration_of(TEXTS, "three texts")


def strict(text: str) -> Any:
    """Read JSON as a browser does: it knows no NaN and no Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


# --- encode ---


def test_encode_makes_null_of_what_json_cannot_say() -> None:
    value = {"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": ((math.nan,), {"d": math.nan})}
    assert strict(charts.encode(value)) == {"a": None, "b": [None, None, 1.5], "c": [[None], {"d": None}]}


def test_encode_rounds_fractions_to_six_digits_and_leaves_everything_else() -> None:
    assert charts.encode([1 / 3, 1e-12 / 3, 123_456_789.0, 0.1 + 0.2]) == "[0.333333,3.33333e-13,123457000.0,0.3]"
    assert charts.encode({"n": 123_456_789, "yes": True, "none": None, "text": "NaN, 한글"}) == json.dumps(
        {"n": 123_456_789, "yes": True, "none": None, "text": "NaN, 한글"}, separators=(",", ":")
    )


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(anything)
def test_encode_is_json_of_the_same_shape(value: Any) -> None:
    def same(a: Any, b: Any) -> bool:
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, list):
            return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, float):
            return b is None if not math.isfinite(a) else math.isclose(a, b, rel_tol=1e-5)
        return a == b and type(a) is type(b)

    assert same(value, strict(charts.encode(value)))


# --- weigh ---


@pytest.mark.parametrize("family", FAMILIES)
def test_weigh_counts_what_the_pruned_model_has(family: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny(family)
    for plan in (untouched(DEPTH), fold_spans(DEPTH, [(1, 3)], "reference"), fold_spans(DEPTH, [(0, 1), (3, 5)], "keep-last")):
        resized_config(model.config, plan.kept).save_pretrained(tmp_path)
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path, local_files_only=True))
        network.tie_weights()
        counted = sum(parameter.numel() for parameter in network.parameters())  # tied ones once
        assert weigh(model.spec, plan) == (counted, 4 * counted)
    half = replace(model.spec, dtype="bfloat16", bytes_per_parameter=2)
    assert weigh(half, untouched(DEPTH)) == (model.spec.parameters, 2 * model.spec.parameters)


def test_weigh_is_exact_where_layers_differ_in_size(tiny: Callable[..., Model]) -> None:
    uneven = replace(tiny("llama").spec, parameters=1000 + 21, block_parameters=(1, 2, 3, 4, 5, 6))
    assert weigh(uneven, fold_spans(DEPTH, [(1, 3)], "reference"))[0] == 1000 + 1 + 2 + 5 + 6
    assert weigh(uneven, fold_spans(DEPTH, [(1, 3)], "keep-last"))[0] == 1000 + 1 + 4 + 5 + 6


# --- the map ---


def plan_of(depth: int) -> Plan:
    return Plan(DEPTH, untouched(DEPTH).blocks[:depth], "laco")


def map_of(*depths: int, similarity: float = 0.5) -> Frontier:
    """A map of plans of these depths, from T = 1 down; each has one accepted trial."""
    ends = [1.0, *(0.9 - 0.1234567890123 * place for place in range(len(depths)))]
    steps = [
        Step(ends[place + 1], ends[place], Proposal(plan_of(depth), (Trial(0, 3, 2, similarity, 0.1, True, depth),)))
        for place, depth in enumerate(depths)
    ]
    return Frontier(ends[-1], tuple(steps))


@pytest.mark.parametrize(
    ("depths", "monotone"),
    [((6,), True), ((6, 5, 3), True), ((6, 5, 5, 4), True), ((6, 4, 5), False), ((5, 6), False), ((6, 3, 5, 4), False)],
)
def test_a_map_says_whether_depth_falls_steadily(depths: tuple[int, ...], monotone: bool, tiny: Callable[..., Model]) -> None:
    data = strict(charts.map_data(tiny("llama"), texts, LacoSettings(), map_of(*depths)))
    assert data["monotone"] is monotone
    assert [step["depth"] for step in data["steps"]] == list(depths)


def test_a_map_keeps_every_digit_of_its_thresholds(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    settings = LacoSettings(C=2, I=1, lowest=0, rule="mean").checked(DEPTH)
    found = drain(frontier(SimilarityMeter(model, texts), settings, -1.0))
    assert len(found.steps) > 2
    data = strict(charts.map_data(model, texts, settings, found))
    assert [(step["t_from"], step["t_to"]) for step in data["steps"]] == [(step.t_from, step.t_to) for step in found.steps]
    assert (data["depth"], data["rule"], data["definition"], data["texts"], data["t_min"]) == (DEPTH, "mean", "flattened", 3, -1.0)
    assert data["settings"]["calibration"] == texts.fingerprint
    for shown, step in zip(data["steps"], found.steps, strict=True):
        plan, accepted = step.proposal.plan, [trial for trial in step.proposal.trials if trial.accepted]
        assert [(block["home"], tuple(layer for layer, _ in block["mix"])) for block in shown["blocks"]] == [
            (block.home, tuple(layer for layer, _ in block.mix)) for block in plan.blocks
        ]
        assert shown["parameters"] == weigh(model.spec, plan)[0]
        assert shown["similarity"] == pytest.approx(accepted[-1].similarity if accepted else 1.0, rel=1e-5)
        assert [trial["pointer"] for trial in shown["trials"]] == [trial.pointer for trial in step.proposal.trials]


def test_a_similarity_that_is_no_number_is_null_in_the_map(tiny: Callable[..., Model]) -> None:
    data = strict(charts.map_data(tiny("llama"), texts, LacoSettings(), map_of(5, similarity=math.nan)))
    assert data["steps"][0]["trials"][0]["similarity"] is None
    assert data["steps"][0]["similarity"] is None


@pytest.mark.parametrize("rule", RULES)
def test_coefficients_of_a_plan_arrive_as_they_are(rule: str, tiny: Callable[..., Model]) -> None:
    """What the page saves, the terminal exports: a plan must not lose digits on its way through the page."""
    plan = fold_spans(DEPTH, [(0, 2), (3, 5)], rule)
    data = strict(charts.plan_data(tiny("llama"), plan, math.nan))
    assert tuple(Block(block["home"], tuple((layer, weight) for layer, weight in block["mix"])) for block in data["blocks"]) == plan.blocks
    assert data["similarity"] is None
    assert data["method"] == "hand-made"


def test_a_plan_names_the_blocks_where_types_meet(tiny: Callable[..., Model]) -> None:
    model = tiny("gemma3_text")  # layers 2 and 5 attend fully, the others through a sliding window
    assert strict(charts.plan_data(model, fold_spans(DEPTH, [(1, 2)], "reference"), 0.5))["conflicts"] == [1]
    assert strict(charts.plan_data(model, fold_spans(DEPTH, [(3, 4)], "reference"), 0.5))["conflicts"] == []


# --- the rest ---


def test_the_profile_of_one_token_texts_is_json(tiny: Callable[..., Model]) -> None:
    found = drain(profile(SimilarityMeter(tiny("llama"), calibration_of(("a", "b"))).captures))
    data = strict(charts.similarity_data(found, RemovalPerplexity(math.inf, (1.5, math.nan))))
    assert data["similarity_rest"] == [[None] * (DEPTH + 1)] * (DEPTH + 1)
    assert data["removal"] == {"source": None, "removed": [1.5, None]}
    assert [len(row) for row in data["similarity"]] == [DEPTH + 1] * (DEPTH + 1)
    assert strict(charts.similarity_data(found, None))["removal"] is None


def test_the_spec_card_says_what_is_open(tiny: Callable[..., Model]) -> None:
    model = tiny("qwen3")
    card = strict(charts.spec_card(model.spec, model.source, model.fingerprint))
    assert (card["type"], card["depth"], card["dtype"], card["source"]) == ("qwen3", DEPTH, "float32", str(model.folder))
    assert card["parameters"] == sum(parameter.numel() for parameter in model.network.parameters())
    assert card["bytes"] == 4 * card["parameters"]
    assert model.fingerprint.startswith(card["fingerprint"])
    assert len(card["fingerprint"]) == 12
    assert strict(charts.spec_card(model.spec, model.source))["fingerprint"] == "…"  # not known yet


def test_a_report_passes_only_when_every_check_does() -> None:
    checks = (Check("loads", True, ""), Check("logits", False, "largest difference 0.1"))
    assert strict(charts.report_data(ExportReport("/x", checks, (("a", 1),))))["passed"] is False
    data = strict(charts.report_data(ExportReport("/x", checks[:1], (("a", 1),))))
    assert (data["passed"], data["path"], data["files"]) == (True, "/x", [["a", 1]])
