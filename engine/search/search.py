"""Find better plans than greedy ones for a number of layers to keep: propose cheaply, measure few, improve by swaps.

1. A bottom-up beam: a state is a prefix plan with its activations; keeping the next layer runs one layer, dropping it runs none. Of
the prefixes with equally many dropped layers, the one whose states cost least by `Sensitivity` survives.
2. The second-order estimate is valid only for few dropped layers, so the beam stops at depth / 6 of them. From there one layer is dropped
at a time: the few that the estimate ranks first are measured, and the best is taken.
3. Swaps (a dropped layer returns in place of a kept one, which can also make the last layer of a seam survive) and survivors (a seam's
block takes the projections of the last layer it covers, as `reference` does, or their mean), in the order of the estimate, each measured
from the lowest changed layer up, until nothing improves or the time is up.

Everything is first tried on a part of the practice tokens (`DRAFT_TOKENS`). After that a plan races the best one, text by text: it is
given up if it looks worse so far, by a margin that shrinks with more texts; only plans that have run on all texts are compared. Each new
best plan is reported when found.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from engine.errors import SettingsError
from engine.jobs import Job, Progress
from engine.judge.objectives import Found, Objective, Stage
from engine.messages import Message
from engine.methods.depth.baselines import BASELINES, baseline, plan_of_kept, require_target
from engine.models.texts import beginning
from engine.passes.forward import Capture
from engine.passes.sensitivity import DRAWS, Sensitivity
from engine.plans.rules import untouched
from engine.search.moves import double_swaps, most_influential, moves
from engine.search.settings import SURVIVORS, SearchSettings
from engine.types import Block, Plan

MOST_PLANS = 5000  # exhaustive search is allowed up to this many plans
DRAFT_TOKENS = 512
_FEW = 6  # candidates measured per additional dropped layer
_HANDFUL, _MEASURED, _SLACK = 12, 3, 1.15  # moves estimated together; how many of them are measured; how much worse an estimate may be
_MARGIN = 0.1  # how much worse than the best plan one may be at the start of the race, as a share of the best plan's cost

Report = Callable[[Found], object]
Prefix = tuple[float, tuple[int, ...], list[torch.Tensor]]  # in the beam: estimated cost, kept layers, states


def _rank(score: float) -> float:
    return math.inf if math.isnan(score) else score


class Search:
    """One search for the best plan that keeps `keep` layers. `history` contains every improvement, the best plan last."""

    def __init__(
        self,
        objective: Objective,
        keep: int,
        seconds: float = 120.0,
        survivors: tuple[str, ...] = SURVIVORS,
        forwards: float = math.inf,
        report: Report = lambda found: None,
        guess: Report | None = None,
    ) -> None:
        """`forwards` limits the blocks run; `report` is called with every improvement. `guess` is called with a first plan once the source
        has run on the draft: ShortGPT's choice, scored on the draft alone and therefore not in `history`.

        Raises:
            SettingsError: the target or the budget is invalid.
        """
        require_target(objective.model.spec.depth, keep)
        SearchSettings(seconds=seconds, survivors=survivors).checked()
        self.objective, self.keep, self.seconds, self.survivors = objective, keep, seconds, survivors
        self.depth = objective.model.spec.depth
        self.history: list[Found] = []
        self._report, self._guess = report, guess
        self._watch = objective.watch()
        self._before = objective.forwards
        self._most = forwards
        self._tried: dict[tuple[Block, ...], float] = {}  # measured in full, or on the draft if there was no time for more
        self._passed: dict[tuple[Block, ...], float] = {}  # given up in the race, with the predicted score
        self.draft = objective.every[: beginning(objective.packs, DRAFT_TOKENS)]

    @property
    def forwards(self) -> float:
        """Blocks run so far, over all practice tokens."""
        return self.objective.forwards - self._before

    @property
    def over(self) -> bool:
        """Whether the time is up, or the remaining forwards may not suffice for one more plan and the missing passes over the source."""
        return self._watch() >= self.seconds or self.forwards + self.depth * (1 + self.objective.missing) > self._most

    def run(self) -> Job[tuple[Found, ...]]:
        """Search, and return every improvement in order."""
        self._watch = self.objective.watch()
        yield self._progress(Message("Running the model on the practice texts"))
        records, took = self._records, self._watch()
        first = self._plan(most_influential(records, self.keep))
        if self._guess is not None:
            score = self.objective.score(first, self.draft)
            self._guess(Found(first, score, self._watch(), self.forwards, "guess"))
        yield self._progress(Message("Estimating the importance of each layer"))
        if self._watch() + (1 + DRAWS) * took > self.seconds:  # the estimate alone takes this many passes
            self._measure(first, "guess", hurried=True)
            return tuple(self.history)
        sensitivity = self._sensitivity()
        drop = self.depth - self.keep
        start = min(drop, max(1, self.depth // 6))
        kept = (yield from self._beam(sensitivity, start)) if start else tuple(range(self.depth))
        kept = yield from self._grow(sensitivity, kept)
        self._measure(self._plan(kept), "grow" if start < drop else "beam")
        yield from self._improve(sensitivity)
        return tuple(self.history)

    def exhaust(self) -> Job[tuple[Found, ...]]:
        """Try every plan that keeps `keep` whole layers; only for small models.

        Raises:
            SettingsError: there are too many.
        """
        total = math.comb(self.depth, self.keep)
        if total > MOST_PLANS:
            raise SettingsError(
                "there are {total} ways to keep {keep} of {depth} layers, too many to try all; search without trying every plan",
                total=total,
                keep=self.keep,
                depth=self.depth,
            )
        for done, kept in enumerate(itertools.combinations(range(self.depth), self.keep)):
            yield Progress(Message("Trying plan {done} of {total}", done=done + 1, total=total), done / total)
            self._measure(self._plan(kept), "exhaustive", all_tokens=True)
        return tuple(self.history)

    def best(self, count: int) -> list[Plan]:
        """Return the best few of all plans tried, the best first."""
        scores = self._passed | self._tried
        order = sorted(scores, key=lambda blocks: _rank(scores[blocks]))
        return [replace(self._plan(()), blocks=blocks) for blocks in order[:count]]

    def _sensitivity(self) -> Sensitivity:
        found = Sensitivity(self.objective.model, self._records)
        self.objective.forwards += (1 + DRAWS) * self.depth * self.objective.share(self.draft)
        return found

    @property
    def _records(self) -> tuple[Capture, ...]:
        return tuple(self.objective.record(index) for index in self.draft)

    def _progress(self, label: str) -> Progress:
        facts = Message("{label}; best so far {score:.4f}", label=label, score=self.history[-1].score) if self.history else label
        return Progress(facts, min(self._watch() / self.seconds, 1.0))

    def _plan(self, kept: tuple[int, ...]) -> Plan:
        return plan_of_kept(self.depth, kept, "search", keep=self.keep, objective=self.objective.name, **dict(self.objective.recorded))

    def _cost(self, plan: Plan, packs: tuple[int, ...]) -> float:
        """Return a plan's cost on some packs: its score minus the source's, which is not zero for perplexity."""
        return _rank(self.objective.score(plan, packs)) - self.objective.score(untouched(self.depth), packs)

    def _measure(self, plan: Plan, stage: Stage, all_tokens: bool = False, hurried: bool = False) -> float:
        """Score a plan and report a new best; return infinity if it was given up. If time is up before anything was measured, use
        the draft's score."""
        if plan.blocks in self._tried:
            return self._tried[plan.blocks]
        if self.history and not all_tokens and self._falls_behind(plan):
            return math.inf
        hurried = hurried or (not (self.history or all_tokens) and self.over)
        score = self._tried[plan.blocks] = self.objective.score(plan, self.draft if hurried else None)
        if not self.history or score < self.history[-1].score or math.isnan(self.history[-1].score):
            self.history.append(Found(plan, score, self._watch(), self.forwards, stage))
            self._report(self.history[-1])
        return score

    def _falls_behind(self, plan: Plan) -> bool:
        """Race a plan against the best one, starting with the draft; return True as soon as it is too far behind."""
        best, every = self.history[-1], self.objective.every
        for packs in (every[:count] for count in range(len(self.draft), len(every))):
            ours, theirs = self._cost(plan, packs), self._cost(best.plan, packs)
            if ours - theirs > _MARGIN * (1 - self.objective.share(packs)) * abs(theirs):
                self._passed[plan.blocks] = best.score + ours - theirs
                return True
        return False

    def _beam(self, sensitivity: Sensitivity, drop: int) -> Job[tuple[int, ...]]:
        source = self._records
        best: dict[int, Prefix] = {0: (0.0, (), [record.states[0] for record in source])}
        for layer in range(self.depth):
            if self.over:
                return self._by_estimate(sensitivity, tuple(range(self.depth)))
            yield self._progress(Message("Beam search at layer {layer}", layer=layer))
            following: dict[int, Prefix] = {}
            for gone, (_, kept, states) in best.items():
                point = layer + 1
                stay = (
                    states_after(source, point) if gone == 0 else self.objective.extend(states, Block(layer, ((layer, 1.0),)), self.draft)
                )
                options = [(gone, (sensitivity.cost(point, stay), (*kept, layer), stay))]
                if gone < drop:
                    options.append((gone + 1, (sensitivity.cost(point, states), kept, states)))
                for count, option in options:
                    if drop - count <= self.depth - point and (count not in following or option[0] < following[count][0]):
                        following[count] = option
            best = following
        return best[drop][1]

    def _grow(self, sensitivity: Sensitivity, kept: tuple[int, ...]) -> Job[tuple[int, ...]]:
        while len(kept) > self.keep:
            gone = set(range(self.depth)) - set(kept)
            ranked = sorted(kept, key=lambda layer: sensitivity.without(gone | {layer}))
            scores: dict[int, float] = {}
            for layer in ranked[:_FEW]:
                yield self._progress(Message("{count} layers left, without layer {layer}", count=len(kept) - 1, layer=layer))
                rest = tuple(other for other in kept if other != layer)
                scores[layer] = self._cost(self._plan(rest), self.draft)
                if self.over:
                    break
            lost = min(scores, key=lambda layer: scores[layer])
            kept = tuple(other for other in kept if other != lost)
            if self.over:
                kept = self._by_estimate(sensitivity, kept)
        return kept

    def _by_estimate(self, sensitivity: Sensitivity, kept: tuple[int, ...]) -> tuple[int, ...]:
        """Drop layers by the estimate until the target is met: there is no time left to measure, but a plan is needed."""
        while len(kept) > self.keep:
            gone = set(range(self.depth)) - set(kept)
            worst = min(kept, key=lambda layer: sensitivity.without(gone | {layer}))
            kept = tuple(other for other in kept if other != worst)
        return kept

    def _improve(self, sensitivity: Sensitivity) -> Job[None]:
        """Take the first improving move until there is none or the time is up: first moves with good estimates, then the others, then two
        swaps at once."""
        improved = True
        while improved and not self.over:
            base, score = self.history[-1].plan, self.history[-1].score
            improved = (yield from self._try_likely(base, score, sensitivity)) or (
                yield from self._try_all(itertools.chain(moves(base, sensitivity, self.survivors), double_swaps(base, sensitivity)), score)
            )

    def _try_likely(self, base: Plan, score: float, sensitivity: Sensitivity) -> Job[bool]:
        """Estimate moves in batches, in the order of the second-order estimate, and measure the best of each batch. Each is run up to the
        point from which the plan follows the source's layers again; the estimate of its states there selects the plans to measure."""
        likely = (move for move in moves(base, sensitivity, self.survivors) if not self._known(move[1]))
        bar = self._estimate(base, sensitivity) * _SLACK
        while handful := list(itertools.islice(likely, _HANDFUL)):
            estimated = []
            for stage, plan in handful:
                if self.over:
                    return False
                yield self._progress(Message("Trying a swap") if stage == "swap" else Message("Trying another survivor"))
                estimated.append((self._estimate(plan, sensitivity), stage, plan))
            chosen = [entry for entry in sorted(estimated, key=lambda entry: entry[0])[:_MEASURED] if entry[0] <= bar]
            if (yield from self._try_all(((stage, plan) for _, stage, plan in chosen), score)):
                return True
        return False

    def _try_all(self, moves: Iterator[tuple[Stage, Plan]], score: float) -> Job[bool]:
        for stage, plan in moves:
            if self._known(plan):
                continue
            if self.over:
                return False
            yield self._progress(Message("Measuring a plan"))
            if self._measure(plan, stage) < score:
                return True
        return False

    def _estimate(self, plan: Plan, sensitivity: Sensitivity) -> float:
        """Estimate a plan's cost from its states at the last point where it differs from the source's layers."""
        place = plan.depth
        while place > 0 and plan.blocks[place - 1] == Block(layer := self.depth - plan.depth + place - 1, ((layer, 1.0),)):
            place -= 1
        return sensitivity.cost(self.depth - plan.depth + place, self.objective.run(plan, place, self.draft))

    def _known(self, plan: Plan) -> bool:
        return plan.blocks in self._tried or plan.blocks in self._passed


def rivals(objective: Objective, keep: int, optimum: float, seconds: float = 60.0) -> Job[dict[str, tuple[float, float]]]:
    """Return the scores, by name, of the plans found by a search ("search") and by every baseline, and their ratios to the optimum of
    `Search.exhaust` (ratios of perplexities if those are scored)."""
    run = Search(objective, keep, seconds, survivors=())
    scores = {"search": (yield from run.run())[-1].score}
    for method in BASELINES:
        scores[method] = objective.score((yield from baseline(objective, method, keep)))
    return {name: (score, _times(objective, score, optimum)) for name, score in scores.items()}


def _times(objective: Objective, score: float, optimum: float) -> float:
    if objective.name == "perplexity":
        return math.exp(score - optimum)
    return score / optimum if optimum > 0 else math.nan


def states_after(records: tuple[Capture, ...], point: int) -> list[torch.Tensor]:
    """Return the source's own states at a point, one per capture."""
    return [record.states[point] for record in records]
