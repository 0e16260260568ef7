"""Search objectives: a plan's distance from its source on practice texts, with the cost of a search counted in blocks run."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from engine.judge.evaluation import windows
from engine.judge.practice import kept_apart
from engine.judge.similarity import cosine
from engine.models.texts import Pack, tokens_in
from engine.passes.forward import Capture, Trails, capture, normed, resume, run_block
from engine.passes.logits import KEEP, ROWS, SourceLogs, by_rows, divergence
from engine.plans.files import plan_to_json
from engine.plans.surgery import Mixer
from engine.settings import Registry
from engine.types import Block, Model, Plan, TextSet

PRACTICE_TOKENS = 2048


Stage = Literal["guess", "beam", "grow", "swap", "survivor", "exhaustive", "repair", "greedy"]


@dataclass(frozen=True, slots=True)
class Found:
    """The best plan of a search after `seconds` and `forwards` (blocks run over all practice texts)."""

    plan: Plan
    score: float
    seconds: float
    forwards: float
    stage: Stage


@dataclass(frozen=True, eq=False, slots=True)
class Places:
    """The scored positions of a pack, over which an objective sums.

    `source` and `plan` are the final states [places, hidden] after the final norm; `next_tokens` [places] are the tokens to predict.
    """

    source: torch.Tensor
    plan: torch.Tensor
    next_tokens: torch.Tensor
    logs: Callable[[], Iterator[torch.Tensor]]  # the plan's log-probabilities [rows, vocabulary], see `by_rows`
    # the source's and the plan's log-probabilities, see `SourceLogs.paired`
    paired: Callable[[], Iterator[tuple[torch.Tensor, torch.Tensor]]]


OBJECTIVES: Registry[Callable[[Places], float]] = Registry("objective")  # each returns its sum over the places


@OBJECTIVES.register("kl", "the KL divergence from the source's next-token distribution, nats per token")
def kl(places: Places) -> float:
    """Return KL(source || plan) of the next-token distributions."""
    return sum(float(divergence(source, plan).sum()) for source, plan in places.paired())


@OBJECTIVES.register("perplexity", "the negative log-likelihood of the texts, nats per token")
def perplexity(places: Places) -> float:
    """Return the plan's negative log-likelihood; divided by the number of places it is the logarithm of its perplexity."""
    wanted = places.next_tokens[:, None].split(ROWS)
    return sum(float(-logs.gather(1, tokens).sum()) for logs, tokens in zip(places.logs(), wanted, strict=True))


@OBJECTIVES.register("cosine", "one minus the cosine of the final states, LaCo's measure", reference="2402.11187")
def cosine_distance(places: Places) -> float:
    """Return one minus the cosine of the source's and the plan's final state."""
    return float((1 - cosine(places.source.float(), places.plan.float())).sum())


class Objective:
    """Scores plans of one model on practice texts by one of OBJECTIVES, as the mean over all places; lower is better. The texts used for
    quick costs are left out (see `kept_apart`).

    `forwards` counts blocks run over all texts; running the source once counts as its depth.
    """

    def __init__(self, model: Model, texts: TextSet, name: str = "kl", limit: int = PRACTICE_TOKENS) -> None:
        self._score = OBJECTIVES.require(name).run
        self.model, self.name, self.texts = model, name, texts
        self.protocol, self.packs, skips = windows(model.tokenizer, model.config, kept_apart(texts), limit=limit)
        self.places = [_places(pack, skipped) for pack, skipped in zip(self.packs, skips, strict=True)]
        self.forwards = 0.0
        self.tokens = tokens_in(self.packs)
        self.mixer = Mixer(model.network)
        self._records: dict[int, Capture] = {}
        self._source = SourceLogs(model)
        self._known: dict[tuple[tuple[Block, ...], int], float] = {}  # sums over the places of a pack
        self._trails = Trails(KEEP)

    @property
    def recorded(self) -> tuple[tuple[str, Any], ...]:
        """The settings that record the practice texts in a plan found with this objective."""
        return ("texts", self.texts.name), ("practice", self.texts.fingerprint), ("practice_tokens", self.protocol.tokens)

    @staticmethod
    def watch() -> Callable[[], float]:
        """Return a function that returns the seconds elapsed since this call."""
        began = time.monotonic()
        return lambda: time.monotonic() - began

    @property
    def every(self) -> tuple[int, ...]:
        """The indices of all packs."""
        return tuple(range(len(self.packs)))

    @property
    def records(self) -> tuple[Capture, ...]:
        """The source's pass over every pack, computed on first use."""
        return tuple(self.record(index) for index in self.every)

    def record(self, index: int) -> Capture:
        """Return the source's pass over one pack."""
        if index not in self._records:
            with self.model.lock:
                self._records[index] = capture(self.model, self.packs[index])
            self.forwards += self.model.spec.depth * self.share((index,))
        return self._records[index]

    @property
    def missing(self) -> float:
        """The share of all tokens that the source has not been run over yet."""
        return 1.0 - self.share(tuple(self._records))

    def share(self, packs: tuple[int, ...]) -> float:
        """Return the share of all tokens in some packs."""
        return sum(self.packs[index].ids.shape[1] for index in packs) / self.tokens

    def score(self, plan: Plan, packs: tuple[int, ...] | None = None) -> float:
        """Return a plan's score, over all packs or some; NaN where its states are not finite. Cached states of leading blocks are
        reused."""
        packs = packs or self.every
        new = tuple(index for index in packs if (plan.blocks, index) not in self._known)
        with self.model.lock:
            for index, state in zip(new, self.run(plan, packs=new) if new else (), strict=True):
                self._known[plan.blocks, index] = self._sum(index, state, plan.blocks)
        total = sum(self._known[plan.blocks, index] for index in packs)
        return total / sum(len(self.places[index]) for index in packs) if math.isfinite(total) else math.nan

    def run(self, plan: Plan, count: int | None = None, packs: tuple[int, ...] | None = None) -> list[torch.Tensor]:
        """Return the raw states, one per pack, after a plan's first `count` blocks, or after all of them."""
        count = plan.depth if count is None else count
        records = [self.record(index) for index in packs or self.every]
        states, ran = [], 0.0
        with self.model.lock:
            for record in records:
                prefix = min(plan.prefix, count)
                entered = self.mixer.cutter.silenced(record.states[prefix], plan.blocks[0].trim)
                start, _ = self._trails.longest(record, plan.blocks[:count], prefix, entered)
                ran += (count - start) * record.pack.ids.shape[1]
                states.append(resume(self.model, self.mixer, record, plan.blocks[:count], prefix, self._trails) if count else entered)
        self.forwards += ran / self.tokens
        return states

    def extend(self, states: list[torch.Tensor], block: Block, packs: tuple[int, ...] | None = None) -> list[torch.Tensor]:
        """Return the states of all packs (or some) after one more block; counts one forward, or the packs' share of one."""
        packs = packs or self.every
        records = [self.record(index) for index in packs]
        self.forwards += self.share(packs)
        with self.model.lock:
            return [run_block(self.model, self.mixer, block, state, record) for state, record in zip(states, records, strict=True)]

    @torch.no_grad()
    def _sum(self, index: int, state: torch.Tensor, blocks: tuple[Block, ...]) -> float:
        """Return the objective's sum over a pack, from the raw last state after these blocks."""
        record, places = self.record(index), self.places[index]
        source, plan = record.final[0, places], normed(self.model, state, blocks)[0, places]
        next_tokens = record.pack.ids[0, places + 1].to(plan.device)
        logs, paired = partial(by_rows, self.model, plan), partial(self._source.paired, index, source, plan)
        return self._score(Places(source, plan, next_tokens, logs, paired))


def _places(pack: Pack, skips: tuple[int, ...]) -> torch.Tensor:
    """Return the positions [n] of a pack whose next token is scored."""
    return torch.cat([torch.arange(start + skip - 1, stop - 1) for (_, start, stop), skip in zip(pack.spans, skips, strict=True)])


def search_to_json(found: Sequence[Found], others: Mapping[str, tuple[float, float]] | None = None) -> dict[str, Any]:
    """Return a search: the best plan and its score, every improvement on the way, and what others find for as many layers:
    their scores, and how many times the optimum those are."""
    best = found[-1]
    history = [{"score": f.score, "seconds": f.seconds, "forwards": f.forwards, "stage": f.stage} for f in found]
    answer = {"score": best.score, "depth": best.plan.depth, "plan": plan_to_json(best.plan), "history": history}
    if others is not None:
        answer["others"] = {name: {"score": score, "times": ratio} for name, (score, ratio) in others.items()}
    return answer
