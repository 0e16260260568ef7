import json
import re
from dataclasses import fields, replace
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.methods.depth.laco import DEFINITIONS
from engine.models.sources import DTYPES
from engine.models.texts import BUNDLED
from engine.plans.rules import RULES
from ui.page.controls import FIRST, PLANS, PRESETS, PageState, read_spans, state_from_query

DEFAULTS = PageState()  # the paper's
BALANCED = PageState(**dict(zip(FIRST, PRESETS["balanced"], strict=True)))
CHOICES = {*DTYPES, *BUNDLED, *RULES, *DEFINITIONS, *PLANS}
encodable = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
spans = st.tuples(st.integers(0, 500), st.integers(1, 50)).map(lambda pair: [pair[0], pair[0] + pair[1]])
states = st.builds(
    PageState,
    model=encodable,
    dtype=st.sampled_from(DTYPES),
    device=st.sampled_from(["cpu", "mps", "cuda:0", "cuda:12"]),
    texts=st.sampled_from(BUNDLED),
    T=st.floats(-1, 1),
    C=st.integers(2, 8),
    I=st.integers(1, 8),
    L=st.integers(0, 500),
    H=st.none() | st.integers(1, 500),
    rule=st.sampled_from(sorted(RULES)),
    similarity=st.sampled_from(DEFINITIONS),
    plan=st.sampled_from(PLANS),
    spans=st.lists(spans).map(json.dumps),
)


def link(state: PageState) -> str:
    return "?" + urlencode({field.name: value for field in fields(state) if (value := getattr(state, field.name)) is not None})


def assert_spans(spans: object) -> None:
    """Pairs of layers, the first below the last."""
    assert isinstance(spans, list)
    assert all(len(span) == 2 and 0 <= span[0] < span[1] for span in spans)


def assert_usable(state: PageState) -> None:
    """Whatever the link said, the page can show this state."""
    assert state.dtype in DTYPES
    assert re.fullmatch(r"cpu|mps|cuda:\d+", state.device)
    assert state.rule in RULES
    assert state.similarity in DEFINITIONS
    assert state.plan in PLANS
    assert state.texts in BUNDLED
    assert_spans(json.loads(state.spans))
    assert -1 <= state.T <= 1  # NaN is not
    assert 2 <= state.C <= 8
    assert 1 <= state.I <= 8
    assert state.L >= 0
    assert state.H is None or state.H >= 1
    state.settings()


@given(states)
def test_a_link_brings_every_state_back(state: PageState) -> None:
    assert state_from_query(link(state), "another model") == state


@given(states)
def test_a_link_holds_what_the_settings_are(state: PageState) -> None:
    settings = state_from_query(link(state), "demo").settings()
    assert (settings.C, settings.I, settings.lowest, settings.highest) == (state.C, state.I, state.L, state.H)
    assert (settings.rule, settings.similarity, settings.T) == (state.rule, state.similarity, 1.0)


@pytest.mark.parametrize("query", ["", "?", "?T=", "?model=&C=", "?unknown=5&t=0.1", "#", "&&&=&=="])
def test_a_link_that_names_no_setting_opens_on_the_balanced_ones(query: str) -> None:
    assert state_from_query(query, "demo") == BALANCED
    assert state_from_query(query, "/some/folder") == replace(BALANCED, model="/some/folder")
    assert state_from_query("?model=/a&texts=korean", "demo") == replace(BALANCED, model="/a", texts="korean")
    assert (BALANCED.T, BALANCED.C, BALANCED.rule) == (0.8, 3, "keep-last")


@pytest.mark.parametrize("name", ["T", "C", "I", "L", "H", "rule", "similarity"])
def test_a_link_that_names_a_setting_has_the_papers_beside_it(name: str) -> None:
    value = getattr(DEFAULTS, name) or 7
    assert state_from_query(f"?{name}={value}", "demo") == replace(DEFAULTS, **{name: value})


@given(st.text())
@example("?%ff%fe=%00&T=%ff")
@example("?T=" + "9" * 5000)
def test_any_text_at_all_opens(query: str) -> None:
    assert_usable(state_from_query(query, "demo"))


# Letters, signs and spaces: no number in any script, and (as good as) never a choice.
garbage = st.text(st.characters(categories=["L", "P", "S", "Z"]), min_size=1).filter(lambda text: text not in CHOICES)


@given(st.sampled_from([field.name for field in fields(PageState) if field.name not in ("model", "C")]), garbage)
def test_garbage_in_a_field_falls_back_to_its_default_and_the_rest_still_counts(name: str, text: str) -> None:
    assert state_from_query(f"?{name}={quote(text)}&C=5", "demo") == PageState(C=5)


OUT_OF_RANGE = """
    T=nan T=inf T=1.01 T=-1e999 T=0,5 C=1 C=9 C=5.0 C=0x5 I=0 I=-2 L=-1
    H=0 H=1e3 rule=Mean rule=mean%20 similarity=cosine dtype=int8 plan=none texts=french texts=own L=99999999999999999999999
    device=cuda: device=cuda:x device=CPU device=cpu:0 device=cuda:1;2 device=meta device=cuda:9999 device=cuda:-1 device=/dev/null
    spans=[[3,1]] spans=[[-1,1]]
    spans=[[1e999,2]] spans=[[0,1e999]] spans=[[0,NaN]] spans=[0,1] spans=null
"""


@pytest.mark.parametrize("query", OUT_OF_RANGE.split())
def test_values_out_of_range_fall_back(query: str) -> None:
    assert state_from_query(f"C=4&{query}" if not query.startswith("C=") else query, "demo") == DEFAULTS


def test_a_card_without_a_number_is_the_first() -> None:
    assert state_from_query("device=cuda", "demo").device == "cuda:0"


def test_the_last_of_several_values_counts() -> None:
    assert state_from_query("C=3&C=6", "demo").C == 6


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_state_that_a_link_can_hold(preset: str) -> None:
    T, C, I, L, H, rule, similarity = PRESETS[preset]
    state = PageState(T=T, C=C, I=I, L=L, H=H, rule=rule, similarity=similarity)
    assert state_from_query(link(state), "demo") == state
    state.settings().checked(30)


# --- spans ---


@given(st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists).map(json.dumps))
@example("[[1e999, 2]]")
@example("[[0, Infinity]]")
@example("[" * 100_000)
@example("[[0, 1, 2]]")
@example('{"ab": 1}')
def test_any_text_gives_spans_or_none(text: str) -> None:
    assert_spans(read_spans(text))


def test_spans_are_read_as_they_were_written() -> None:
    assert read_spans("[[3, 5], [12, 15]]") == [[3, 5], [12, 15]]
    assert read_spans("[]") == []
    assert read_spans("[[3, 5], [5, 3]]") == []
