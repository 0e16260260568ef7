"""Tasks with right answers, for source and plan: two small bundled ones, and any of lm-evaluation-harness.

`score_bundled` needs only the engine; `evaluate_tasks` needs the optional extra `eval`. On the bundled tasks both follow
lm-evaluation-harness's definitions: where a text is split into context and continuation, how a long one is truncated from the left, and how
a choice is made.
"""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import SettingsError, TextError, reason_of
from engine.jobs import Job, Progress
from engine.messages import Message
from engine.models.texts import assets_folder, pack_rows, tokens_of
from engine.passes.forward import capture, logits_of, normed, resume
from engine.plans.description import require_depth
from engine.plans.live import live_network
from engine.plans.rules import untouched
from engine.plans.surgery import Mixer
from engine.types import Model, Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLOZE, CHOICE = "layerscope_cloze", "layerscope_choice"
BUNDLED_TASKS: dict[str, tuple[str, str]] = {CLOZE: ("cloze-english.jsonl", "acc"), CHOICE: ("choice-english.jsonl", "acc_norm")}
_BATCH = 8
_BOOTSTRAPS = 1000  # lm-evaluation-harness's default of 100 000 takes longer than a small model's task


def run_tasks(model: Model, plan: Plan, names: str = "bundled", limit: int | None = None) -> Job[tuple["TaskScore", ...]]:
    """Score source and plan on "bundled", the two bundled tasks, or on a comma-separated list of lm-evaluation-harness tasks."""
    if names.strip() in ("", "bundled"):
        return score_bundled(model, plan, limit)
    return evaluate_tasks(model, plan, [name.strip() for name in names.split(",") if name.strip()], limit)


# --- The bundled tasks, without lm-evaluation-harness ---


def read_task(name: str) -> tuple[dict[str, Any], ...]:
    """Return the items of a bundled task: {"context", "answer"} for cloze, {"question", "choices", "answer"} for choice."""
    text = (assets_folder() / "tasks" / BUNDLED_TASKS[name][0]).read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in text.splitlines() if line.strip())


def score_bundled(model: Model, plan: Plan, limit: int | None = None) -> Job[tuple["TaskScore", ...]]:
    """Score source and plan on the bundled tasks, on the first `limit` items of each or on all.

    layerscope_cloze, acc: greedy decoding after the context gives the answer (a space and the word), token by token. layerscope_choice,
    acc_norm: the right choice (each follows the question and a space) has the highest log-likelihood per character. Standard errors are
    binomial, sqrt(p (1 - p) / (items - 1)), as in the harness.

    Raises:
        PlanError: the plan does not fit the model.
        SettingsError: the limit is below 1.
        TextError: an item exceeds the model's context, or has no token.
    """
    require_depth(plan, model.spec.depth)
    _require_limit(limit)
    found = []
    for place, (name, (_, metric)) in enumerate(BUNDLED_TASKS.items()):
        items = read_task(name)[:limit]
        requests = tuple(requests_of(name, items))
        answers = yield from _answer(model, plan, [split(model, *request) for request in requests], name, place / len(BUNDLED_TASKS))
        right = [_mark(name, items, requests, side) for side in zip(*answers, strict=True)]
        scores = [number for marks in right for number in _accuracy(marks)]
        found.append(TaskScore(name, metric, *scores))
    return tuple(found)


def requests_of(name: str, items: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the (context, continuation) pairs of a bundled task's items: one per cloze item, one per choice."""
    if name == CLOZE:
        return [(item["context"], f" {item['answer']}") for item in items]
    return [(item["question"], f" {choice}") for item in items for choice in item["choices"]]


def split(model: Model, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Return the input tokens and the tokens to score, which are the continuation predicted at the end of the input.

    Both texts are tokenised together and split where the context alone ends. The input is truncated from the left to the model's context;
    it never includes the continuation's last token.
    """
    whole = tokens_of(model.tokenizer, model.config, context + continuation)
    scored = whole[len(model.tokenizer(context)["input_ids"]) :]
    read = whole[:-1][-(getattr(model.config, "max_position_embeddings", None) or len(whole)) :]
    if not scored or len(scored) > len(read):
        raise TextError(
            "{continuation!r} after {context!r} has {count} tokens, but the model can read only {readable} tokens "
            "before the last; shorten the item",
            continuation=continuation,
            context=context[:40],
            count=len(scored),
            readable=len(read),
        )
    return read, scored


def _answer(
    model: Model, plan: Plan, rows: Sequence[tuple[list[int], list[int]]], name: str, begin: float
) -> Job[list[tuple["_Answer", "_Answer"]]]:
    """Return the source's and the plan's answer to each row, in order."""
    mixer, found = Mixer(model.network), list[tuple[_Answer, _Answer]]()
    packs = pack_rows([(index, read) for index, (read, _) in enumerate(rows)])
    for index, pack in enumerate(packs):
        yield Progress(Message("Scoring {name}", name=name), begin + index / len(packs) / len(BUNDLED_TASKS))
        with model.lock:
            record = capture(model, pack)
            finals = record.final, normed(model, resume(model, mixer, record, plan.blocks, plan.prefix), plan.blocks)
            for row, _, stop in pack.spans:
                source, changed = (_look(model, final[0, :stop], rows[row][1]) for final in finals)
                found.append((source, changed))
    return found


@torch.no_grad()
def _look(model: Model, final: torch.Tensor, scored: list[int]) -> "_Answer":
    """Return the answer that the last of these final states [tokens, hidden] give for the scored tokens."""
    logs = logits_of(model, final[-len(scored) :]).float().log_softmax(-1)
    targets = torch.tensor(scored, device=logs.device)
    return _Answer(float(logs.gather(1, targets[:, None]).sum()), bool((logs.argmax(-1) == targets).all()))


def _mark(name: str, items: Sequence[Mapping[str, Any]], requests: Sequence[tuple[str, str]], answers: Sequence["_Answer"]) -> list[bool]:
    """Return whether each item was answered correctly; a non-finite answer is wrong."""
    if name == CLOZE:
        return [answer.greedy and math.isfinite(answer.likelihood) for answer in answers]
    marks, rest = [], iter(zip(requests, answers, strict=True))
    for item in items:
        scores = [answer.likelihood / len(text[1:]) for _, ((_, text), answer) in zip(item["choices"], rest, strict=False)]
        marks.append(all(map(math.isfinite, scores)) and scores.index(max(scores)) == item["answer"])
    return marks


def _accuracy(marks: Sequence[bool]) -> tuple[float, float]:
    """Return the share of right answers and its standard error (NaN for a single item)."""
    share = sum(marks) / len(marks)
    return share, math.sqrt(share * (1 - share) / (len(marks) - 1)) if len(marks) > 1 else math.nan


def _require_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise SettingsError("the limit of items is {limit}; it must be at least 1, or absent to score all items", limit=limit)


# --- lm-evaluation-harness ---


def evaluate_tasks(model: Model, plan: Plan, tasks: Sequence[str], limit: int | None = None) -> Job[tuple["TaskScore", ...]]:
    """Run source and plan through tasks of lm-evaluation-harness, zero-shot or as each task specifies; nothing is saved.

    The bundled tasks need no network; others download their data sets. Each task is one progress step per side: the harness cannot be
    cancelled within a task.

    Raises:
        SettingsError: lm-evaluation-harness is not installed, a task is unknown or fails, or the limit is below 1.
        PlanError: the plan does not fit the model.
    """
    require_depth(plan, model.spec.depth)
    _require_limit(limit)
    if not tasks:
        raise SettingsError("no task was named; name at least one, such as {cloze}", cloze=CLOZE)
    harness = _harness()
    yield Progress(Message("Finding the tasks"), 0.0)
    manager = _manager(harness, tasks)
    sides = [_wrap(harness, model, live_network(model, side)) for side in (untouched(plan.source_depth), plan)]
    found: list[TaskScore] = []
    for index, task in enumerate(tasks):
        results = []
        for side, wrapped in enumerate(sides):
            yield Progress(
                Message("Running {task} on {value}", task=task, value=("the source", "the plan")[side]),
                (2 * index + side) / (2 * len(tasks)),
            )
            results.append(_evaluate(harness, manager, model, wrapped, task, limit))
        found.extend(scores_of(*results))
    return tuple(found)


def _harness() -> Any:
    """Return the classes used of lm-evaluation-harness and datasets; they are imported only here."""
    try:
        from datasets import Dataset
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise SettingsError(
            "install layerscope[eval] to run tasks of lm-evaluation-harness (pip install 'layerscope[eval]'); "
            "the bundled tasks run without it ({reason})",
            reason=reason_of(error),
        ) from error
    return SimpleNamespace(Dataset=Dataset, simple_evaluate=simple_evaluate, HFLM=HFLM, TaskManager=TaskManager)


def _manager(harness: Any, tasks: Sequence[str]) -> Any:
    """Return the harness's task index, which takes seconds to build and is left empty if only bundled tasks are asked for."""
    foreign = [task for task in tasks if task not in BUNDLED_TASKS]
    manager = harness.TaskManager(include_defaults=bool(foreign))
    unknown = sorted(set(foreign) - set(manager.all_tasks))
    if unknown:
        raise SettingsError(
            "lm-evaluation-harness has no task {choices}; list its tasks with `lm_eval ls tasks`", choices=", ".join(unknown)
        )
    return manager


def _wrap(harness: Any, model: Model, network: "PreTrainedModel") -> Any:
    tokenizer = copy.deepcopy(model.tokenizer)  # the harness adds a padding token
    return harness.HFLM(pretrained=network, tokenizer=tokenizer, device=model.source.device, batch_size=_BATCH)


def _evaluate(harness: Any, manager: Any, model: Model, wrapped: Any, task: str, limit: int | None) -> Mapping[str, Mapping[str, Any]]:
    """Return the harness's results of one task: {task: {"metric,filter": value}}."""
    asked = task_config(harness.Dataset, task) if task in BUNDLED_TASKS else task
    options = {"limit": limit, "bootstrap_iters": _BOOTSTRAPS, "log_samples": False, "task_manager": manager}
    try:
        with model.lock, torch.random.fork_rng():  # the harness seeds torch's global generator
            return harness.simple_evaluate(model=wrapped, tasks=[asked], **options)["results"]
    except Exception as error:  # external tasks may raise anything, for example without a network for their data sets
        raise SettingsError(
            "lm-evaluation-harness could not run {task}: {name}: {reason}", task=task, name=type(error).__name__, reason=reason_of(error)
        ) from error


def task_config(dataset: Any, name: str) -> dict[str, Any]:
    """Return a bundled task's configuration for lm-evaluation-harness; `dataset` is the class datasets.Dataset.

    The items are passed in memory, because a data set read by path is copied into a cache on disk.
    """
    metric = BUNDLED_TASKS[name][1]
    kind = {
        CLOZE: {"output_type": "loglikelihood", "doc_to_text": "{{context}}", "doc_to_target": "{{' ' + answer}}"},
        CHOICE: {"output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_target": "answer", "doc_to_choice": "choices"},
    }[name]
    return {
        "task": name,
        "custom_dataset": lambda **_: {"test": dataset.from_list(list(read_task(name)))},
        "test_split": "test",
        **kind,
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }


def scores_of(source: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Mapping[str, Any]]) -> list["TaskScore"]:
    """Return the scores in two results of lm-evaluation-harness, whose keys are "metric,filter" or "metric_stderr,filter"."""
    found = []
    for task, values in source.items():
        for key, value in values.items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = f"{metric}_stderr,{chosen}"
            numbers = (_number(side[task].get(entry)) for side in (source, plan) for entry in (key, error))
            found.append(TaskScore(task, metric if chosen == "none" else f"{metric} ({chosen})", *numbers))
    return found


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


# --- Records ---


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One metric of one task for source and plan, with standard errors (NaN where unknown)."""

    task: str
    metric: str
    source: float
    source_stderr: float
    plan: float
    plan_stderr: float


@dataclass(frozen=True, slots=True)
class _Answer:
    """The log-likelihood of a continuation (nats), and whether greedy decoding gives it."""

    likelihood: float
    greedy: bool
