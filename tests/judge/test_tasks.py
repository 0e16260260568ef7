import builtins
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.errors import PlanError, SettingsError, TextError
from engine.jobs import drain
from engine.judge import tasks as harness
from engine.judge.tasks import BUNDLED_TASKS, CHOICE, CLOZE, TaskScore, evaluate_tasks, read_task, score_bundled, scores_of, split
from engine.plans.live import live_network
from engine.plans.rules import fold_spans, untouched
from engine.types import Model

PLAN = fold_spans(6, [(2, 4)], "mean")
LIMIT = 12


def likelihood(network: Any, tokenizer: Any, before: str, after: str) -> tuple[float, bool]:
    """Score a continuation in a pass of its own, and decode it greedily a token at a time without a cache."""
    context, whole = (torch.tensor([tokenizer(text)["input_ids"]]) for text in (before, before + after))
    start = context.shape[1]
    with torch.no_grad():
        logs = network(whole, use_cache=False).logits[0].log_softmax(-1)
        total = sum(float(logs[place - 1, whole[0, place]]) for place in range(start, whole.shape[1]))
        while context.shape[1] < whole.shape[1]:
            best = network(context, use_cache=False).logits[0, -1].argmax()
            context = torch.cat([context, best[None, None]], dim=1)
    return total, torch.equal(context, whole)


def naive(network: Any, tokenizer: Any, task: str) -> list[bool]:
    marks = []
    for item in read_task(task)[:LIMIT]:
        if task == CLOZE:
            marks.append(likelihood(network, tokenizer, item["context"], " " + item["answer"])[1])
        else:
            each = [likelihood(network, tokenizer, item["question"], " " + choice)[0] / len(choice) for choice in item["choices"]]
            marks.append(each.index(max(each)) == item["answer"])
    return marks


# --- The bundled tasks ---


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_the_scores_are_a_naive_transcriptions(family: str, tiny: Callable[..., Model]) -> None:
    longer = {"n_positions": 512} if family == "gpt2" else {"max_position_embeddings": 512}
    model, steps = tiny(family, **longer), []
    for score in drain(score_bundled(model, PLAN, LIMIT), steps.append):
        assert score.metric == BUNDLED_TASKS[score.task][1]
        for network, value, error in (
            (model.network, score.source, score.source_stderr),
            (live_network(model, PLAN), score.plan, score.plan_stderr),
        ):
            marks = naive(network, model.tokenizer, score.task)
            assert value == sum(marks) / LIMIT
            assert error == pytest.approx(float(torch.tensor(marks).float().std() / LIMIT**0.5), abs=1e-6)
    fractions = [step.fraction for step in steps if step.fraction is not None]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] < 1


def test_a_cloze_is_right_exactly_where_greedy_decoding_says_the_word(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", max_position_embeddings=512)
    context = torch.tensor([model.tokenizer("The dog")["input_ids"]])
    (first,) = (int(model.network(context).logits[0, -1].argmax()),)
    monkeypatch.setattr(harness, "read_task", lambda name: ITEMS[name])
    rows = ([*context[0].tolist()], [first]), ([*context[0].tolist()], [first + 1])
    monkeypatch.setattr(harness, "split", lambda _model, before, after: rows[after == " b"])
    choice = {"question": "Q", "choices": ["a", "b"], "answer": 0}
    ITEMS = {CLOZE: ({"context": "C", "answer": "a"}, {"context": "C", "answer": "b"}), CHOICE: (choice, {**choice, "answer": 1})}
    cloze, picked = drain(score_bundled(model, untouched(6)))
    assert cloze == TaskScore(CLOZE, "acc", 0.5, 0.5, 0.5, 0.5)
    assert picked == TaskScore(CHOICE, "acc_norm", 0.5, 0.5, 0.5, 0.5)


def test_an_untouched_plan_scores_what_its_source_scores(tiny: Callable[..., Model]) -> None:
    for score in drain(score_bundled(tiny("qwen3"), untouched(6), 5)):  # 128 tokens of context: long items are cut from the left
        assert (score.source, score.source_stderr) == (score.plan, score.plan_stderr)


def test_choices_are_weighed_by_their_characters() -> None:
    items = [{"choices": ["ab", "abcdef"], "answer": 1}]
    requests = [("Q", " ab"), ("Q", " abcdef")]
    answers = [harness._Answer(-2.0, False), harness._Answer(-5.0, False)]
    assert harness._mark(CHOICE, items, requests, answers) == [True]
    broken = [harness._Answer(math.nan, False), harness._Answer(-5.0, True)]
    assert harness._mark(CHOICE, items, requests, broken) == [False]
    assert harness._mark(CLOZE, items, requests, [harness._Answer(math.nan, True), harness._Answer(-1.0, True)]) == [False, True]


def test_what_is_read_and_scored(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    letters = model.tokenizer("ab cd")["input_ids"]
    assert split(model, "ab", " cd") == (letters[:-1], letters[2:])
    read, scored = split(model, "a" * 500, " bc")
    assert read == model.tokenizer("a" * 126 + " b")["input_ids"]
    assert scored == model.tokenizer(" bc")["input_ids"]
    with pytest.raises(TextError, match="200 tokens"):
        split(model, "a", "b" * 200)
    with pytest.raises(TextError, match="0 tokens"):
        split(model, "a", "")


@pytest.mark.parametrize("task", BUNDLED_TASKS)
def test_the_bundled_tasks_are_well_formed(task: str) -> None:
    items = read_task(task)
    assert len(items) >= 200
    for item in items:
        if task == CLOZE:
            assert item.keys() == {"context", "answer"}
            assert item["answer"].isalpha()
            assert item["context"] == item["context"].strip() != ""
        else:
            assert item.keys() == {"question", "choices", "answer"}
            assert item["question"] == item["question"].strip() != ""
            assert len(set(item["choices"])) == len(item["choices"]) == 4
            assert all(choice == choice.strip() != "" for choice in item["choices"])
            assert item["answer"] in range(4)
    asked = [item.get("context") or item["question"] for item in items]
    assert len(set(asked)) == len(asked)


def test_right_choices_are_spread_over_the_places() -> None:
    places = [item["answer"] for item in read_task(CHOICE)]
    assert all(places.count(place) > len(places) / 8 for place in range(4))


def test_what_cannot_be_scored_is_said(tiny: Callable[..., Model]) -> None:
    with pytest.raises(SettingsError, match="limit of items is 0"):
        drain(score_bundled(tiny("llama"), PLAN, 0))
    with pytest.raises(PlanError):
        drain(score_bundled(tiny("llama"), untouched(5)))


# --- lm-evaluation-harness ---


def test_without_the_harness_it_says_what_to_install(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] in ("lm_eval", "datasets"):
            raise ModuleNotFoundError(f"No module named '{name}'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(SettingsError, match=r"install layerscope\[eval\]"):
        drain(evaluate_tasks(tiny("llama"), PLAN, [CLOZE]))
    with pytest.raises(SettingsError, match="name at least one, such as"):
        drain(evaluate_tasks(tiny("llama"), PLAN, []))


def test_results_of_the_harness_become_scores() -> None:
    source = {"t": {"alias": "t", "acc,none": 0.5, "acc_stderr,none": 0.1, "em,strict": 1, "em_stderr,strict": "N/A", "sample_len": 5}}
    plan = {"t": {"alias": "t", "acc,none": 0.25, "acc_stderr,none": 0.2, "em,strict": 0, "em_stderr,strict": "N/A", "sample_len": 5}}
    first, second = scores_of(source, plan)
    assert first == TaskScore("t", "acc", 0.5, 0.1, 0.25, 0.2)
    assert (second.metric, second.source, second.plan) == ("em (strict)", 1.0, 0.0)
    assert math.isnan(second.source_stderr)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_harness_scores_the_bundled_tasks_as_we_do(family: str, tiny: Callable[..., Model]) -> None:
    pytest.importorskip("lm_eval")
    model = tiny(family)
    ours, theirs = drain(score_bundled(model, PLAN, LIMIT)), drain(evaluate_tasks(model, PLAN, list(BUNDLED_TASKS), LIMIT))
    assert [dataclasses.astuple(score) for score in theirs] == [pytest.approx(dataclasses.astuple(score)) for score in ours]


def test_a_task_that_the_harness_does_not_know_is_named(tiny: Callable[..., Model]) -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(SettingsError, match="knows no task no_such_task"):
        drain(evaluate_tasks(tiny("llama"), PLAN, ["no_such_task"]))
