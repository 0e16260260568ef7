import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SettingsError, TextError
from engine.jobs import Progress, drain
from engine.judge import evaluation
from engine.judge.evaluation import Evaluation, Judge, Protocol, TextScore, summary, windows
from engine.measurements import FILE
from engine.methods.depth.baselines import plan_of_kept
from engine.models.texts import calibration_of
from engine.plans.rules import fold_spans, untouched
from engine.records import to_json
from engine.types import Block, Model, Plan, TextSet
from tests.families import tiny_tokenizer
from tests.naive import merge, remove, token_ids
from ui.terminal.options import write

LONG = (
    "The cat sat on the mat, and nobody minded.",
    "x",  # one token predicts nothing and must weigh nothing
    "Rivers run to the sea, and the rain brings them back to the hills.",
    "Short.",
)
MEAN = fold_spans(6, [(2, 4)], "mean")
DROPPED = plan_of_kept(6, (0, 1, 2, 5), "hand-made")
PLANS: dict[str, Plan] = {"mean": MEAN, "dropped": DROPPED}


def pruned(network: Any, name: str) -> Any:
    """The network of one of PLANS, by deep copy."""
    if name == "mean":
        return merge(network, 2, 2, "mean")
    result = copy.deepcopy(network)
    remove(result, [3, 4])
    return result


# --- Windows ---


class Counting:
    """A tokenizer that reads "2:5" as the five tokens 2000, 2001 and so on."""

    bos_token_id = None

    def __call__(self, words: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        text, length = map(int, words.split(":"))
        return {"input_ids": [1000 * text + place for place in range(length)]}


ANY_LENGTH = SimpleNamespace(max_position_embeddings=None, vocab_size=1 << 20)


def texts_of(lengths: list[int]) -> TextSet:
    return TextSet("counted", tuple(f"{text}:{length}" for text, length in enumerate(lengths)), "fingerprint")


def scored_tokens(packs: Any, skips: Any) -> Iterator[tuple[int, int, int]]:
    """Return (text, token, tokens before it in its window) of every token that is scored, in order."""
    for pack, row in zip(packs, skips, strict=True):
        assert len(pack.spans) == len(row)
        for (text, start, stop), skip in zip(pack.spans, row, strict=True):
            window = pack.ids[0, start:stop].tolist()
            assert window == list(range(window[0], window[0] + len(window)))  # consecutive, and of one text
            assert {token // 1000 for token in window} == {text}
            assert pack.positions[0, start:stop].tolist() == list(range(len(window)))
            yield from ((text, token % 1000, before) for before, token in enumerate(window) if before >= skip)


lengths_of_texts = st.lists(st.integers(0, 60), min_size=1, max_size=5)
contexts = st.integers(2, 20).flatmap(lambda context: st.tuples(st.just(context), st.integers(1, context - 1)))


@given(lengths_of_texts, contexts, st.integers(1, 200))
def test_every_token_but_each_texts_first_is_scored_once_with_enough_before_it(
    lengths: list[int], sizes: tuple[int, int], limit: int
) -> None:
    context, stride = sizes
    expected = [(text, token) for text, length in enumerate(lengths) for token in range(1, length)][:limit]
    if not expected:
        with pytest.raises(TextError, match="counted is too short"):
            windows(Counting(), ANY_LENGTH, texts_of(lengths), context, stride, limit)
        return
    protocol, packs, skips = windows(Counting(), ANY_LENGTH, texts_of(lengths), context, stride, limit)
    found = list(scored_tokens(packs, skips))
    assert [(text, token) for text, token, _ in found] == expected
    assert all(before >= min(token, context - stride) for _, token, before in found)
    assert all(stop - start <= context for pack in packs for _, start, stop in pack.spans)
    assert protocol == Protocol("counted", "fingerprint", context, stride, len(expected), False)


@given(lengths_of_texts, st.integers(2, 20), st.integers(1, 200))
def test_windows_that_do_not_overlap_score_all_but_the_first_token_of_each(lengths: list[int], context: int, limit: int) -> None:
    """Where stride is context nothing stands before a window's first token, so nothing can predict it."""
    expected = [(text, token, token % context) for text, n in enumerate(lengths) for token in range(n) if token % context][:limit]
    if expected:
        protocol, packs, skips = windows(Counting(), ANY_LENGTH, texts_of(lengths), context, None, limit)
        assert list(scored_tokens(packs, skips)) == expected
        assert (protocol.stride, protocol.tokens) == (context, len(expected))


def test_what_the_model_cannot_read_at_once_shortens_the_context() -> None:
    protocol, packs, _ = windows(Counting(), SimpleNamespace(max_position_embeddings=16, vocab_size=1 << 20), texts_of([40]), 512, 4)
    assert protocol.context == 16
    assert max(stop - start for pack in packs for _, start, stop in pack.spans) == 16


@pytest.mark.parametrize(
    ("context", "stride", "limit"),
    [(1, None, 9), (0, None, 9), (-4, None, 9), (8, 0, 9), (8, -1, 9), (8, 9, 9)],
)
def test_windows_that_make_no_sense_are_refused(context: int, stride: int | None, limit: int) -> None:
    with pytest.raises(SettingsError, match=f"context {context}"):
        windows(Counting(), ANY_LENGTH, texts_of([40]), context, stride, limit)


def test_a_limit_that_makes_no_sense_is_named() -> None:
    with pytest.raises(SettingsError) as refused:
        windows(Counting(), ANY_LENGTH, texts_of([40]), 8, 8, 0)
    assert "token" in str(refused.value)


def test_texts_without_two_tokens_are_refused(tiny: Callable[..., Model]) -> None:
    with pytest.raises(TextError, match="texts is too short to evaluate on"):
        Judge(tiny("llama"), calibration_of(("x", "y")))


def test_a_beginning_token_is_told_of() -> None:
    class Beginning(Counting):
        bos_token_id = 7

        def __call__(self, words: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return {"input_ids": [7] * add_special_tokens + super().__call__(words)["input_ids"]}

    protocol, _, skips = windows(Beginning(), ANY_LENGTH, texts_of([3]))
    assert (protocol.bos, protocol.tokens, skips) == (True, 3, ((1,),))
    tokenizer = tiny_tokenizer()  # has such a token and does not put it there
    assert not windows(tokenizer, ANY_LENGTH, calibration_of(("abc",)))[0].bos


# --- Against the plain loop ---


@torch.no_grad()
def naive_evaluation(source: Any, plan: Any, sentences: list[torch.Tensor], context: int, stride: int) -> dict[str, float]:
    """The sliding window of the Hugging Face guide to perplexity, one window at a time, no packing."""
    sums = dict.fromkeys(("tokens", "source", "plan", "kl", "top1", "cosine"), 0.0)
    for ids in sentences:
        end_before = 0
        for begin in range(0, ids.shape[1], stride):
            end = min(begin + context, ids.shape[1])
            window = ids[:, begin:end]
            outputs = [network(window, output_hidden_states=True) for network in (source, plan)]
            a, b = (output.logits[0].double().log_softmax(-1) for output in outputs)
            finals = [output.hidden_states[-1][0].double() for output in outputs]
            for place in range(max(end_before - begin, 1), end - begin):
                target = window[0, place]
                sums["tokens"] += 1
                sums["source"] -= a[place - 1, target].item()
                sums["plan"] -= b[place - 1, target].item()
                sums["kl"] += (a[place - 1].exp() * (a[place - 1] - b[place - 1])).sum().item()
                sums["top1"] += float(a[place - 1].argmax() == b[place - 1].argmax())
                sums["cosine"] += torch.cosine_similarity(finals[0][place - 1], finals[1][place - 1], dim=0).item()
            end_before = end
            if end == ids.shape[1]:
                break
    return {name: value / sums["tokens"] for name, value in sums.items()} | {"tokens": sums["tokens"]}


@pytest.mark.parametrize("family", ["gemma3_text", "gpt2", "qwen2"])
@pytest.mark.parametrize(("context", "stride"), [(16, 16), (16, 5), (100, 100)])
@pytest.mark.parametrize("name", PLANS)
def test_judges_as_the_plain_loop_does(family: str, context: int, stride: int, name: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    found = drain(Judge(model, calibration_of(LONG), context, stride).judge(PLANS[name]))
    sentences = token_ids(model.tokenizer, LONG)
    expected = naive_evaluation(model.network, pruned(model.network, name), sentences, context, stride)
    assert found.protocol.tokens == expected["tokens"] == sum(score.tokens for score in found.texts)
    assert found.perplexity.source == pytest.approx(math.exp(expected["source"]), rel=1e-4)
    assert found.perplexity.plan == pytest.approx(math.exp(expected["plan"]), rel=1e-4)
    assert found.perplexity.ratio == pytest.approx(math.exp(expected["plan"] - expected["source"]), rel=1e-4)
    assert found.kl == pytest.approx(expected["kl"], rel=1e-4)
    assert found.top1_agreement == pytest.approx(expected["top1"], rel=1e-4)
    assert found.cosine == pytest.approx(expected["cosine"], rel=1e-4)
    assert found.kl > 1e-3
    assert found.top1_agreement < 1


def test_capped_logits_are_capped(tiny: Callable[..., Model]) -> None:
    model = tiny("gemma3_text", final_logit_softcapping=0.5)
    found = drain(Judge(model, calibration_of(LONG), 16, 16).judge(MEAN))
    expected = naive_evaluation(model.network, pruned(model.network, "mean"), token_ids(model.tokenizer, LONG), 16, 16)
    assert found.kl == pytest.approx(expected["kl"], rel=1e-3)
    assert found.perplexity.plan == pytest.approx(math.exp(expected["plan"]), rel=1e-4)


def test_texts_that_need_several_packs_count_alike(tiny: Callable[..., Model]) -> None:
    model, texts = tiny("llama"), LONG * 8
    judge = Judge(model, calibration_of(texts))
    told: list[Progress] = []
    found = drain(judge.judge(DROPPED), told.append)
    assert [progress.fraction for progress in told] == [0.0, 0.5]  # 920 tokens in packs of 512
    once = drain(Judge(model, calibration_of(LONG)).judge(DROPPED))
    assert (found.kl, found.perplexity.ratio) == pytest.approx((once.kl, once.perplexity.ratio), rel=1e-4)
    assert [score.tokens for score in found.texts] == [score.tokens for score in once.texts] * 8


def test_the_limit_stops_the_scoring(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    found = drain(Judge(model, calibration_of(LONG), limit=50).judge(DROPPED))
    first, third = len(LONG[0]) - 1, 50 - (len(LONG[0]) - 1)
    assert [score.tokens for score in found.texts] == [first, third]
    cut = (LONG[0], LONG[2][: third + 1])
    assert found.kl == pytest.approx(drain(Judge(model, calibration_of(cut)).judge(DROPPED)).kl, rel=1e-4)


# --- What the figures say ---


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_the_untouched_plan_costs_nothing(family: str, tiny: Callable[..., Model]) -> None:
    found = drain(Judge(tiny(family), calibration_of(LONG)).judge(untouched(6)))
    assert (found.perplexity.ratio, *found.perplexity.interval, found.top1_agreement) == (1.0, 1.0, 1.0, 1.0)
    assert found.perplexity.plan == found.perplexity.source > 1
    assert found.kl == pytest.approx(0, abs=1e-6)
    assert found.cosine == pytest.approx(1, abs=1e-6)


PROTOCOL = Protocol("hand", "made", 8, 8, 30, False)


def test_the_interval_is_the_ratio_estimators() -> None:
    scores = (TextScore(10, 20.0, 25.0, 1.0, 5.0, 9.0), TextScore(20, 50.0, 52.0, 2.0, 20.0, 18.0))
    found = summary(PROTOCOL, scores)
    mean = 7 / 30  # nats a token that the plan is worse by
    residuals = (5 - 10 * mean) ** 2 + (2 - 20 * mean) ** 2
    spread = 1.96 * math.sqrt(2 / 1 * residuals) / 30
    low, high = found.perplexity.interval
    assert (low, found.perplexity.ratio, high) == pytest.approx(tuple(math.exp(mean + s) for s in (-spread, 0, spread)))
    assert (found.perplexity.source, found.perplexity.plan) == pytest.approx((math.exp(70 / 30), math.exp(77 / 30)))
    assert (found.kl, found.top1_agreement, found.cosine) == pytest.approx((3 / 30, 25 / 30, 27 / 30))


sums_of_texts = st.lists(st.tuples(st.integers(1, 50), st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=6)


@given(sums_of_texts)
def test_the_interval_holds_the_ratio_and_narrows_with_more_of_the_same(sums: list[tuple[int, float, float]]) -> None:
    scores = [TextScore(tokens, source, plan, 0.0, 0.0, 0.0) for tokens, source, plan in sums]
    once, more = summary(PROTOCOL, scores), summary(PROTOCOL, scores * 4)
    assert once.perplexity.interval[0] <= once.perplexity.ratio <= once.perplexity.interval[1]
    assert more.perplexity.ratio == pytest.approx(once.perplexity.ratio)
    assert once.perplexity.interval[0] <= more.perplexity.interval[0] * (1 + 1e-9)
    assert more.perplexity.interval[1] <= once.perplexity.interval[1] * (1 + 1e-9)


def test_equal_texts_leave_no_doubt_and_one_text_says_nothing_of_it(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    same = drain(Judge(model, calibration_of((LONG[0],) * 4)).judge(DROPPED))
    assert same.perplexity.interval == pytest.approx((same.perplexity.ratio, same.perplexity.ratio), rel=1e-5)
    mixed = drain(Judge(model, calibration_of((LONG[0], LONG[2], LONG[3]))).judge(DROPPED))
    assert mixed.perplexity.interval[0] < mixed.perplexity.ratio * 0.999 < mixed.perplexity.ratio * 1.001 < mixed.perplexity.interval[1]
    one = drain(Judge(model, calibration_of(LONG[:1])).judge(DROPPED))
    assert [math.isnan(figure) for figure in (one.perplexity.ratio, *one.perplexity.interval)] == [False, True, True]


def test_perplexities_too_large_for_a_number_are_infinite() -> None:
    found = summary(PROTOCOL, (TextScore(1, 1.0, 5000.0, 0.0, 0.0, 0.0), TextScore(1, 1.0, 5000.0, 0.0, 0.0, 0.0)))
    assert found.perplexity.plan == found.perplexity.ratio == math.inf
    assert found.perplexity.source == pytest.approx(math.e)


# --- States that are no numbers ---

BROKEN = Plan(6, (*untouched(6).blocks[:2], Block(2, ((2, 1e38), (3, 1e38))), *untouched(6).blocks[3:]), "broken")


@pytest.fixture
def broken(tiny: Callable[..., Model]) -> Evaluation:
    return drain(Judge(tiny("llama"), calibration_of(LONG)).judge(BROKEN))


def test_states_that_are_not_finite_are_told_as_nan(broken: Evaluation) -> None:
    assert math.isfinite(broken.perplexity.source)
    figures = (broken.perplexity.plan, broken.perplexity.ratio, *broken.perplexity.interval, broken.kl, broken.cosine)
    assert all(math.isnan(figure) for figure in figures)
    assert [score.tokens for score in broken.texts] == [len(text) - 1 for text in LONG if len(text) > 1]


def test_nothing_agrees_or_disagrees_where_states_are_not_finite(broken: Evaluation) -> None:
    assert math.isnan(broken.top1_agreement)


def test_figures_that_do_not_exist_are_null_on_the_terminal(broken: Evaluation, capsys: pytest.CaptureFixture[str]) -> None:
    write(to_json(broken), None)
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["perplexity"]["source"] == broken.perplexity.source
    assert found["perplexity"]["plan"] is found["perplexity"]["ratio"] is found["kl"] is found["cosine"] is None
    assert found["perplexity"]["interval"] == [None, None]
    assert all(text["plan_nll"] is None and text["source_nll"] > 0 for text in found["texts"])


# --- What is remembered ---


def test_a_plan_is_judged_once(tiny: Callable[..., Model], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judges = [Judge(tiny("llama"), calibration_of(LONG)) for _ in range(2)]
    calls: list[int] = []
    counted = evaluation.resume
    monkeypatch.setattr(evaluation, "resume", lambda *arguments: calls.append(1) or counted(*arguments))
    assert not judges[0].known(MEAN)
    first = drain(judges[0].judge(MEAN))
    assert len(calls) == 1
    assert judges[0].known(MEAN)
    told: list[Progress] = []
    assert drain(judges[0].judge(MEAN), told.append) == first
    assert not told
    monkeypatch.setattr(evaluation, "resume", None)
    monkeypatch.setattr(evaluation, "capture", None)
    later = Judge(tiny("llama"), calibration_of(LONG))  # another session
    assert later.known(MEAN)
    assert drain(later.judge(MEAN)) == first
    assert not later.known(DROPPED)


def test_another_question_is_another_answer(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    model = tiny("llama")
    first = Judge(model, calibration_of(LONG), 16, 16)
    drain(first.judge(MEAN))
    others = [
        Judge(model, calibration_of(LONG), 16, 5),
        Judge(model, calibration_of(LONG), 20, 20),
        Judge(model, calibration_of(LONG), 16, 16, limit=30),
        Judge(model, calibration_of(LONG[:3]), 16, 16),
        Judge(tiny("llama", seed=1), calibration_of(LONG), 16, 16),
    ]
    assert not any(judge.known(MEAN) for judge in others)
    assert Judge(model, calibration_of(LONG), 16, 16).known(MEAN)


def test_what_is_broken_is_remembered_as_broken(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    model = tiny("llama")
    drain(Judge(model, calibration_of(LONG)).judge(BROKEN))
    again = Judge(model, calibration_of(LONG))
    assert again.known(BROKEN)
    found = drain(again.judge(BROKEN))
    assert math.isnan(found.kl)
    assert found.perplexity.source > 1


def test_asking_for_the_same_meanwhile_is_shared(tiny: Callable[..., Model], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = tiny("llama"), calibration_of(LONG * 8)
    judge, calls, counted = Judge(model, texts), list[int](), evaluation.resume
    monkeypatch.setattr(evaluation, "resume", lambda *arguments: calls.append(1) or counted(*arguments))
    first, second = judge.judge(MEAN), judge.judge(MEAN)
    for job in (first, second) * 2:  # in turns
        next(job)
    assert drain(first) == drain(second) == drain(Judge(model, texts).judge(MEAN))
    assert len(calls) == len(judge.packs) == 2


def test_a_stopped_judge_remembers_nothing_by_halves(tiny: Callable[..., Model], fresh_cache: Path) -> None:
    model, texts = tiny("llama"), calibration_of(LONG * 8)
    judge = Judge(model, texts)
    job = judge.judge(MEAN)
    next(job)
    assert next(job).fraction == 0.5  # the first of two packs is scored
    job.close()
    assert not judge.known(MEAN)
    assert not Judge(model, texts).known(MEAN)
    found = drain(judge.judge(MEAN))
    assert found.protocol.tokens == sum(score.tokens for score in found.texts) == sum(len(text) - 1 for text in LONG) * 8


def test_states_of_the_source_are_kept_within_their_bytes(
    tiny: Callable[..., Model], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, texts = tiny("llama"), calibration_of(LONG)
    calls: list[int] = []
    counted = evaluation.capture
    monkeypatch.setattr(evaluation, "capture", lambda *arguments: calls.append(1) or counted(*arguments))
    frugal, generous = Judge(model, texts, keep=0), Judge(model, texts)
    a = [drain(frugal.judge(plan)) for plan in (MEAN, DROPPED)]
    assert len(calls) == 2
    for file in fresh_cache.glob(f"{FILE}*"):
        file.unlink()
    generous = Judge(model, texts)
    b = [drain(generous.judge(plan)) for plan in (MEAN, DROPPED)]
    assert len(calls) == 3
    assert a == b
