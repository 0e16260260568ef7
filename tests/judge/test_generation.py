import dataclasses
import threading
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import engine.judge.generation
from engine.errors import PlanError, SettingsError, TextError
from engine.jobs import Progress, drain
from engine.judge.generation import (
    PROMPTS,
    Generated,
    Sample,
    decoding_config,
    distinct,
    encode,
    generate,
    generate_beside,
    is_loop,
    longest_repeat,
    measured,
    verdict,
)
from engine.model_lock import Cancelled, working
from engine.plans.live import live_network
from engine.plans.rules import fold_spans, untouched
from engine.types import Model
from tests.families import FAMILIES, tiny_tokenizer

PLAN = fold_spans(6, [(2, 4)], "mean")
TOKENS = st.lists(st.integers(0, 3), max_size=60)
WORDS = Generated("words", 8, 1.0, 1.0, 0, False)
LOOP = dataclasses.replace(WORDS, loops=True)
BLANK = dataclasses.replace(WORDS, text=" \n", tokens=1)


def sides(*pairs: tuple[Generated, Generated]) -> list[Sample]:
    return [Sample("A", "greedy", source, plan) for source, plan in pairs]


# --- Repetition ---


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("", 0),
        ("a", 0),
        ("abcabd", 0),
        ("aa", 2),
        ("xaaay", 3),
        ("ababab", 6),
        ("abababa", 6),  # whole repetitions only
        ("abab", 4),
        ("xabcabcy", 6),
        ("aabbb", 3),
        ("abcdefghijklmnopqrst" * 2, 40),
        ("abcdefghijklmnopqrstu" * 2, 0),  # a unit of 21
    ],
)
def test_the_longest_repeat_by_hand(tokens: str, expected: int) -> None:
    assert longest_repeat([ord(token) for token in tokens]) == expected


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [("", False), ("aaa", True), ("abab", False), ("ababab", True), ("xyzababab", True), ("xyzwvuababab", True), ("xyzwvutababab", False)],
)
def test_a_loop_is_three_repetitions_over_half_of_the_tokens(tokens: str, expected: bool) -> None:
    assert is_loop([ord(token) for token in tokens]) is expected


def test_a_longer_pair_does_not_hide_a_loop_nor_make_one() -> None:
    assert not is_loop([1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 9, 9, 9])  # the longest repeat has but two repetitions
    assert is_loop([1, 1, 1, 1, 1, 1, 2, 3, 4, 5])


def test_distinct_shares_by_hand() -> None:
    assert distinct([1, 2, 1, 2], 1) == 0.5
    assert distinct([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert distinct([7], 2) == distinct([], 1) == 1.0


def naive_longest(tokens: list[int]) -> int:
    """Try every unit at every place and count how often it follows itself."""
    found = 0
    for start in range(len(tokens)):
        for unit in range(1, 21):
            count = 1
            while tokens[start : start + unit] == tokens[start + count * unit : start + (count + 1) * unit] != []:
                count += 1
            whole = len(tokens[start : start + unit]) == unit and count >= 2
            found = max(found, count * unit if whole else 0)
    return found


@given(TOKENS)
def test_the_longest_repeat_is_the_naive_one_and_figures_keep_their_bounds(tokens: list[int]) -> None:
    assert longest_repeat(tokens) == naive_longest(tokens)
    assert 0 <= longest_repeat(tokens, 3) <= longest_repeat(tokens) <= len(tokens)
    for n in (1, 2):
        assert 0 < distinct(tokens, n) <= 1
    if len(tokens) > 2:
        assert is_loop([token for token in tokens[:1] for _ in tokens])


@given(TOKENS, st.integers(1, 20), st.integers(3, 8))
def test_a_repeated_unit_is_always_a_loop(prefix: list[int], unit: int, count: int) -> None:
    loop = list(range(100, 100 + unit)) * count
    assert longest_repeat(prefix + loop) >= len(loop)
    assert is_loop(prefix[: len(loop)] + loop)


# --- Verdicts ---


def test_the_verdict_by_hand() -> None:
    assert verdict(sides(*[(WORDS, WORDS)] * 16)) == "stable"
    assert verdict(sides(*[(WORDS, LOOP)] * 3, *[(WORDS, WORDS)] * 13)) == "stable"
    assert verdict(sides(*[(WORDS, LOOP)] * 4, *[(WORDS, WORDS)] * 12)) == "loops"
    assert verdict(sides(*[(LOOP, LOOP)] * 16)) == "stable"  # so does the source
    assert verdict(sides(*[(LOOP, WORDS)] * 4, *[(WORDS, LOOP)] * 4)) == "stable"
    assert verdict(sides(*[(WORDS, BLANK)] * 2, *[(WORDS, WORDS)] * 2)) == "stable"
    assert verdict(sides(*[(WORDS, BLANK)] * 3, (WORDS, LOOP))) == "empty"
    assert verdict(()) == "stable"


# --- Generation ---


def test_samples_come_prompt_by_prompt_and_are_reproducible(tiny: Callable[..., Model]) -> None:
    model, steps = tiny("llama"), []
    state = torch.random.get_rng_state()
    first = drain(generate_beside(model, PLAN, PROMPTS[:2], new_tokens=12, seed=5), steps.append)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [(sample.prompt, sample.decoding) for sample in first] == [(p, d) for p in PROMPTS[:2] for d in ("greedy", "sampled")]
    assert {part / 4 for part in range(4)} <= {step.fraction for step in steps}
    assert drain(generate_beside(model, PLAN, PROMPTS[:2], new_tokens=12, seed=5)) == first
    other = drain(generate_beside(model, PLAN, PROMPTS[:2], new_tokens=12, seed=6))
    assert [sample.plan for sample in other[::2]] == [sample.plan for sample in first[::2]]
    assert other[1].plan != first[1].plan
    assert other[1].source != first[1].source


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_greedy_is_what_the_networks_generate(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    (sample, _) = drain(generate_beside(model, PLAN, ["A river"], new_tokens=16))
    ids = torch.tensor([model.tokenizer("A river")["input_ids"]])
    for network, found in ((model.network, sample.source), (live_network(model, PLAN), sample.plan)):
        expected = network.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16)
        assert found.text == model.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_written_together_are_those_written_alone(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    prompts = ["A", "The rain fell on the hills", "A river ran"]
    together = drain(generate_beside(model, PLAN, prompts, new_tokens=12))
    alone = [sample for prompt in prompts for sample in drain(generate_beside(model, PLAN, [prompt], new_tokens=12))]
    assert len({len(encode(model, prompt, 12)) for prompt in prompts}) == 3
    assert [sample for sample in together if sample.decoding == "greedy"] == [sample for sample in alone if sample.decoding == "greedy"]


def test_an_untouched_plan_writes_what_its_source_writes(tiny: Callable[..., Model]) -> None:
    for sample in drain(generate_beside(tiny("qwen2"), untouched(6), ["The rain"], new_tokens=10)):
        assert sample.source == sample.plan


def test_the_models_own_penalties_play_no_part(tiny: Callable[..., Model]) -> None:
    model = tiny("mistral")
    ids = [encode(model, "aaaa", 8)]
    plain = drain(generate(model, live_network(model, PLAN), ids, 8))
    own = model.network.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size = 50.0, 1
    try:
        assert drain(generate(model, live_network(model, PLAN), ids, 8)) == plain
        assert own.repetition_penalty == 50.0
    finally:
        own.repetition_penalty, own.no_repeat_ngram_size = None, None


def test_states_that_overflow_do_not_stop_the_comparison(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    network = live_network(model, PLAN)
    network.model.norm.weight = torch.nn.Parameter(torch.full((32,), float("nan")), requires_grad=False)
    assert drain(generate(model, network, [encode(model, "A", 4)], 4, seed=0))[0].tokens <= 4


def test_the_token_that_ends_a_text_is_not_counted() -> None:
    tokenizer = tiny_tokenizer()
    words = tokenizer("aba")["input_ids"]
    found = measured([*words, 1], frozenset({1}), tokenizer)
    assert found == Generated("aba", 3, 2 / 3, 1.0, 0, False)
    assert measured([*words, 1, 1, 1], frozenset({1}), tokenizer) == found  # others wrote on
    assert measured([1], frozenset({1}), tokenizer) == Generated("", 0, 1.0, 1.0, 0, False)


def test_special_tokens_are_the_models_own(tiny: Callable[..., Model]) -> None:
    own = tiny("llama").network.generation_config
    config = decoding_config(own, 7, sampled=True)
    assert (config.eos_token_id, config.pad_token_id, config.max_new_tokens) == (1, 1, 7)
    assert (config.do_sample, config.temperature, config.top_p, config.top_k) == (True, 0.8, 0.95, 0)


def test_the_chat_template_is_used_only_when_asked_for(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    plain = encode(model, "Hi", 4)
    assert encode(model, "Hi", 4, chat=True) == plain  # the tokenizer has none
    model.tokenizer.chat_template = "{% for m in messages %}<{{ m.content }}>{% endfor %}{% if add_generation_prompt %}#{% endif %}"
    try:
        assert model.tokenizer.decode(encode(model, "Hi", 4, chat=True)) == "<Hi>#"
        assert encode(model, "Hi", 4) == plain
    finally:
        model.tokenizer.chat_template = None


def test_what_cannot_be_written_is_said_before_anything_is_run(tiny: Callable[..., Model]) -> None:
    model = tiny("gpt2")
    with pytest.raises(TextError, match="no token"):
        drain(generate_beside(model, PLAN, [""]))
    with pytest.raises(SettingsError, match="context of 128"):
        drain(generate_beside(model, PLAN, ["A"], new_tokens=128))
    with pytest.raises(PlanError):
        drain(generate_beside(model, untouched(5), ["A"]))


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_written_in_lots_is_what_one_call_of_transformers_writes(
    family: str, tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(family)
    rows = [encode(model, prompt, 20) for prompt in ("A", "The rain fell on the hills")]
    for at_once in (-1.0, 1000.0):  # a token at a time; one, two, four and so on
        monkeypatch.setattr(engine.judge.generation, "_AT_ONCE", at_once)
        for seed in (None, 5):
            longest = max(map(len, rows))
            ids = torch.tensor([[1] * (longest - len(row)) + row for row in rows])
            with torch.random.fork_rng():
                torch.manual_seed(seed or 0)
                expected = live_network(model, PLAN).generate(
                    ids,
                    attention_mask=(torch.arange(longest) >= torch.tensor([[longest - len(row)] for row in rows])).long(),
                    generation_config=decoding_config(model.network.generation_config, 20, seed is not None),
                )
            found = drain(generate(model, live_network(model, PLAN), rows, 20, seed))
            stops = frozenset({1})
            assert found == [measured(new, stops, model.tokenizer) for new in expected[:, longest:].tolist()]


def test_writing_tells_how_far_it_is_and_stops_within_a_token(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model, ran, stop = tiny("llama"), [0], threading.Event()
    monkeypatch.setattr(engine.judge.generation, "_AT_ONCE", 1000.0)
    steps: list[Progress] = []
    drain(generate_beside(model, PLAN, ["A river"], new_tokens=20), steps.append)
    assert len(steps) >= 12
    assert [step.fraction for step in steps] == sorted(step.fraction for step in steps)
    network = live_network(model, PLAN)

    def counting(*_: object) -> None:
        ran[0] += 1
        if ran[0] == 10:  # in the middle of a lot of tokens
            stop.set()

    network.model.embed_tokens.register_forward_hook(counting)
    with working("samples", stop.is_set), pytest.raises(Cancelled):
        drain(generate(model, network, [encode(model, "A river", 100)], 100))
    assert ran[0] == 10
    assert drain(generate(model, network, [encode(model, "A river", 4)], 4))[0].tokens  # and nothing is left locked
