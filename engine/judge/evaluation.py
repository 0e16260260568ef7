"""Measure a plan's cost on held-out texts: perplexity, divergence from the source, agreement.

A text is cut into windows of `context` tokens, each `stride` tokens after the previous one. A token is scored at most once, with at least
context - stride tokens before it where the text has them. The first token of a window cannot be predicted: a text's first token, and with
stride = context the first of every window. Windows are laid into packs, so there is no padding. Source and plan share one pass up to the
first block that differs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from engine.cache import Definition, key_of
from engine.errors import SettingsError, TextError
from engine.jobs import Job, Progress
from engine.judge.settings import CONTEXT, TOKENS
from engine.judge.similarity import blocks_key, cosine
from engine.measurements import Measurements
from engine.messages import Message
from engine.models.texts import Pack, pack_rows, tokens_of
from engine.passes.forward import Capture, Trails, capture, normed, resume
from engine.passes.logits import KEEP, ROWS, SourceLogs, divergence
from engine.plans.surgery import Mixer
from engine.records import Count, FloatOrNaN, from_json
from engine.types import Model, Plan, TextSet
from engine.untrusted import ForeignError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

EVALUATION = Definition("evaluation", 1)


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a plan was evaluated: texts, windows of `context` tokens at `stride`, scored tokens, with BOS or without."""

    texts: str
    fingerprint: str
    context: Count
    stride: Count
    tokens: Count
    bos: bool


@dataclass(frozen=True, slots=True)
class TextScore:
    """One text's sums over its `tokens` scored tokens: negative log-likelihoods (nats), KL divergence of the plan from the source, top-1
    agreements, and cosines of the final states. NaN where the plan's states are not finite."""

    tokens: Count
    source_nll: FloatOrNaN
    plan_nll: FloatOrNaN
    kl: FloatOrNaN
    agreement: FloatOrNaN
    cosine: FloatOrNaN


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Perplexity of source and plan, and plan / source with its 95 % interval over texts."""

    source: FloatOrNaN
    plan: FloatOrNaN
    ratio: FloatOrNaN
    interval: tuple[FloatOrNaN, FloatOrNaN]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A plan's cost relative to its source. KL is in nats per token; shares are in [0, 1]."""

    perplexity: Perplexity
    kl: FloatOrNaN
    top1_agreement: FloatOrNaN
    cosine: FloatOrNaN
    protocol: Protocol
    texts: tuple[TextScore, ...]


def evaluation_from_json(value: Any) -> Evaluation:
    """Return the evaluation that JSON values describe.

    Raises:
        ForeignError: a value is missing or of another type, or a plan that can be judged lacks a figure.
    """
    found = from_json(Evaluation, value, "forbid")
    figures = (found.perplexity.source, found.perplexity.ratio, found.kl, found.top1_agreement)
    if not math.isnan(found.perplexity.plan) and any(map(math.isnan, figures)):
        raise ForeignError("a figure is missing")
    return found


def windows(
    tokenizer: "PreTrainedTokenizerBase",
    config: "PretrainedConfig",
    texts: TextSet,
    context: int = CONTEXT,
    stride: int | None = None,
    limit: int = TOKENS,
    each: int | None = None,
) -> tuple[Protocol, tuple[Pack, ...], tuple[tuple[int, ...], ...]]:
    """Cut texts into windows and lay them into packs, until `limit` tokens are scored; use only the first `each` tokens of a text.

    Returns the protocol, the packs, and for each pack how many leading tokens of each span are not scored.

    Raises:
        TextError: there is nothing to score.
        SettingsError: limit, context or stride are invalid.
    """
    longest = getattr(config, "max_position_embeddings", None) or context
    context = min(context, longest)
    stride = context if stride is None else stride
    if limit < 1:
        raise SettingsError("{limit} tokens are too few to evaluate on; allow at least 1", limit=limit)
    if context < 2 or not 1 <= stride <= context:
        raise SettingsError(
            "context {context} with stride {stride} is invalid; need context >= 2, 1 <= stride <= context", context=context, stride=stride
        )
    rows: list[tuple[int, list[int]]] = []
    unscored: list[int] = []
    scored, bos = 0, False
    for text, words in enumerate(texts.texts):
        if scored >= limit:
            break
        most = 2 * (limit - scored) + 1  # without overlap, the first token of each window is not scored
        ids = tokens_of(tokenizer, config, words, most if each is None else min(each, most))
        bos = bos or bool(
            ids and ids[0] == tokenizer.bos_token_id and tokenizer(words[:100], add_special_tokens=False)["input_ids"][:1] != ids[:1]
        )
        done = 1  # tokens that are already scored or cannot be
        for start in range(0, len(ids), stride):
            window = ids[start : start + context]
            if start + len(window) <= done:
                break
            skip = max(done - start, 1)
            window = window[: skip + limit - scored]
            if len(window) <= skip:
                break
            rows.append((text, window))
            unscored.append(skip)
            scored += len(window) - skip
            done = start + len(window)
    if not scored:
        raise TextError("{texts_name} is too short to evaluate on; at least one text needs two tokens", texts_name=texts.name)
    packs = pack_rows(rows, max(context, CONTEXT))
    ends = [0]
    for pack in packs:
        ends.append(ends[-1] + len(pack.spans))
    skips = tuple(tuple(unscored[a:b]) for a, b in pairwise(ends))
    return Protocol(texts.name, texts.fingerprint, context, stride, scored, bos), packs, skips


Scores = list[tuple[int, list[float]]]  # for one pack: each text's number and its sums, see `Judge._compare`


class Judge:
    """Judges plans of one model on one set of texts. Previous results are cached on disk."""

    def __init__(
        self,
        model: Model,
        texts: TextSet,
        context: int = CONTEXT,
        stride: int | None = None,
        limit: int = TOKENS,
        each: int | None = None,
        keep: int = 1 << 30,
    ) -> None:
        """`keep` bytes of the source's states stay in memory, so that several plans share its passes; for the other arguments see
        `windows`."""
        self.model = model
        self.protocol, self.packs, self._skips = windows(model.tokenizer, model.config, texts, context, stride, limit, each)
        tokens = [[pack.ids.tolist(), pack.spans, skips] for pack, skips in zip(self.packs, self._skips, strict=True)]
        self._measured = Measurements(key_of(model, EVALUATION, tokens))
        self._mixer = Mixer(model.network)
        self._records: dict[int, Capture] = {}
        self._scored: dict[str, dict[int, Scores]] = {}  # partial scores of plans being judged, by the key of their blocks: each pack's
        self._keep = keep
        self._source, self._trails = SourceLogs(model, 0), Trails(0)

    def keep_trails(self) -> None:
        """Cache states along judged plans and the source's log-probabilities from now on. This is worth its memory for many plans on few
        tokens; results do not change."""
        self._source, self._trails = SourceLogs(self.model), Trails(KEEP)

    def known(self, plan: Plan) -> bool:
        """Return whether a plan's result is cached."""
        return self._measured.get(blocks_key(plan.blocks)) is not None

    def judge(self, plan: Plan) -> Job[Evaluation]:
        """Measure a plan against its source, yielding progress per pack."""
        name = blocks_key(plan.blocks)
        value = self._measured.get(name)
        if value is None:
            sums, scored = dict[int, list[float]](), self._scored.setdefault(name, {})
            for index in range(len(self.packs)):
                yield Progress(Message("Evaluating the plan"), index / len(self.packs))
                for text, scores in self._score(index, plan, scored):
                    sums[text] = [a + b for a, b in zip(sums.get(text, [0.0] * 6), scores, strict=True)]
            value = [[None if not math.isfinite(x) else x for x in sums[text]] for text in sorted(sums)]
            self._measured.add(name, value)
            self._scored.pop(name, None)
        texts = tuple(TextScore(int(row[0]), *(math.nan if x is None else x for x in row[1:])) for row in value)
        return summary(self.protocol, texts)

    def _record(self, index: int) -> Capture:
        record = self._records.get(index)
        if record is None:
            record = capture(self.model, self.packs[index])
            size = sum(state.nbytes for state in record.states)
            if size * (len(self._records) + 1) <= self._keep:
                self._records[index] = record
        return record

    @torch.no_grad()
    def _score(self, index: int, plan: Plan, scored: dict[int, Scores]) -> Scores:
        with self.model.lock:
            if index in scored:  # scored by another caller, or before a cancel
                return scored[index]
            record = self._record(index)
            # a record that is freed may pass its id, which names its trails, to another
            trails = self._trails if index in self._records else None
            final = normed(self.model, resume(self.model, self._mixer, record, plan.blocks, plan.prefix, trails), plan.blocks)
            found = []
            for (text, start, stop), skip in zip(record.pack.spans, self._skips[index], strict=True):
                places = torch.arange(start + skip - 1, stop - 1)  # a token is predicted from the previous token's state
                found.append((text, self._compare(index, record, final, places)))
            scored[index] = found
        return found

    def _compare(self, index: int, record: Capture, final: torch.Tensor, places: torch.Tensor) -> list[float]:
        """Return sums over these positions of a pack: tokens, the source's and the plan's negative log-likelihood of the next tokens,
        KL(source || plan), top-1 agreement, and cosine of the final states."""
        totals = torch.zeros(5, dtype=torch.float64)
        states = [state[0, places] for state in (record.final, final)]
        targets = record.pack.ids[0, places + 1].to(final.device)[:, None].split(ROWS)
        alike = cosine(*(state.float() for state in states)).split(ROWS)
        logs = self._source.paired((index, int(places[0])), *states)
        for (source, plan), target, cosines in zip(logs, targets, alike, strict=True):
            picked = [-one.gather(1, target).sum() for one in (source, plan)]
            agreed = (source.argmax(-1) == plan.argmax(-1)).sum() + 0 * plan.sum()  # NaN where the plan's numbers are NaN
            totals += torch.stack([*picked, divergence(source, plan).sum(), agreed, cosines.sum()]).cpu().double()
        return [float(len(places)), *totals.tolist()]


def rise(texts: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the mean difference per token, from each text's tokens and summed difference, and the half-width of its 95 % interval by a
    ratio estimator over texts (NaN for one text)."""
    tokens = sum(count for count, _ in texts)
    mean = sum(difference for _, difference in texts) / tokens
    if len(texts) == 1:
        return mean, math.nan
    squares = sum((difference - mean * count) ** 2 for count, difference in texts)
    return mean, 1.96 * math.sqrt(squares * len(texts) / (len(texts) - 1)) / tokens


def summary(protocol: Protocol, texts: Sequence[TextScore]) -> Evaluation:
    """Return an evaluation from the texts' sums; the ratio's interval is that of a ratio estimator over texts."""
    tokens = sum(score.tokens for score in texts)
    mean, spread = rise([(score.tokens, score.plan_nll - score.source_nll) for score in texts])
    source, plan = (exp_of(sum(sums) / tokens) for sums in ([score.source_nll for score in texts], [score.plan_nll for score in texts]))
    return Evaluation(
        perplexity=Perplexity(source, plan, exp_of(mean), (exp_of(mean - spread), exp_of(mean + spread))),
        kl=sum(score.kl for score in texts) / tokens,
        top1_agreement=sum(score.agreement for score in texts) / tokens,
        cosine=sum(score.cosine for score in texts) / tokens,
        protocol=protocol,
        texts=tuple(texts),
    )


def exp_of(value: float) -> float:
    """Return e to a power; infinity on overflow."""
    if math.isnan(value):
        return math.nan
    return math.exp(value) if value < 700 else math.inf
