"""Estimate the work of a T map before it starts and while it runs."""

import math
from collections.abc import Iterator

from engine.jobs import Progress
from engine.judge.similarity import SimilarityMeter
from engine.messages import Message
from engine.methods.depth.laco import LacoSettings, mean_and_spread
from engine.passes.forward import work_of_pass
from engine.plans.rules import fold, untouched
from engine.types import Block

_SHARED = 8  # a candidate after the first pass runs one in this many layers, thanks to shared trails
_FIRST = _SHARED / 2  # cost of a candidate of the first pass, relative to a later one
_USUAL = 0.3  # times the pointers to the power of 2.5: the candidates of a map whose folds are all accepted in the end
_TRUST = 0.1  # the share of the map at which its own count gets the same weight as the usual one


class MapEffort:
    """The number of candidates a T map still has, and their time.

    Its first pass, at T = 1, has one candidate per pointer; the number of later ones cannot be known in advance. The numbers above were
    counted on models of 24 and 80 layers. The running map gives better estimates: its remaining share is about the share of folds still
    rejected above t_min, times the remaining share of the range of T. The progress is the work done divided by done plus remaining work; it
    never decreases.
    """

    def __init__(self, meter: SimilarityMeter, settings: LacoSettings, t_min: float) -> None:
        """`settings` must be checked, with T = 1."""
        self._meter, self._settings, self._t_min = meter, settings, t_min
        self._singles = list(_singles(meter.model.spec.depth, settings))
        self._first, self._above = 0, 0  # first pass: known candidates, and those of them above t_min
        self._begun: tuple[int, float] | None = None  # after the first pass: folds rejected above t_min, and its T
        self._left = 1.0  # the remaining share of the work after the first pass
        self._seen = 0.0  # the share of it that needed measurements
        self._later = self._new = 0  # the candidates measured for it: in all, and in the current step
        self._done = self._share = 0.0
        self._look()

    @property
    def candidates(self) -> tuple[float, float]:
        """The number of remaining candidates: at least, and probably at most."""
        first = len(self._singles) - self._first
        return first, first + self._more()

    @property
    def seconds(self) -> tuple[float, float]:
        """Their time in seconds at the model's pace, which the pass over the texts measures."""
        model, (least, most) = self._meter.model, self.candidates
        tokens = sum(record.pack.ids.shape[1] for record in self._meter.captures)
        layer = model.pace * work_of_pass(model, tokens) / model.spec.depth
        first = sum(len(blocks) - pointer for blocks, pointer in self._singles[self._first :]) * layer
        return first, first + (most - least) * model.spec.depth / _SHARED * layer

    def estimate(self) -> Progress:
        """Return the progress shown before the map starts."""
        candidates, (least, most) = spoken(*self.candidates), self.seconds
        if most < 120:
            return Progress(
                Message("Mapping T: {candidates} candidates, about {spoken} s", candidates=candidates, spoken=spoken(least, most)),
                self._share,
            )
        return Progress(
            Message("Mapping T: {candidates} candidates, about {spoken} min", candidates=candidates, spoken=spoken(least / 60, most / 60)),
            self._share,
        )

    def measuring(self, upper: float) -> Progress:
        """Return the progress shown before the next candidate is measured."""
        self._look()
        facts = Message(
            "Mapping T: finished down to {min:.3f}, about {candidates:.0f} candidates left",
            min=min(upper, 1.0),
            candidates=self.candidates[1],
        )
        progress = Progress(facts, self._fraction())
        later = self._first == len(self._singles)
        self._done += 1 if later else _FIRST
        self._later, self._new = self._later + later, self._new + later
        return progress

    def passed(self, rejected: int, threshold: float) -> None:
        """Record a finished step that begins at T = `threshold`, with `rejected` candidates rejected above t_min."""
        self._look()
        self._begun = self._begun or (rejected, threshold)
        folds, highest = self._begun
        left = rejected / max(folds, 1) * (threshold - self._t_min) / max(highest - self._t_min, 1e-9)
        if self._new:
            self._seen += self._left - left
        self._left, self._new = left, 0

    def _more(self) -> float:
        """Return the likely number of candidates after the first pass."""
        pointers = len(self._singles)
        share = self._begun[0] / max(pointers, 1) if self._begun else (self._above + 1) / (self._first + 1)
        usual = _USUAL * share * pointers**2.5
        return (usual * _TRUST + self._later) / (_TRUST + max(self._seen, 0.0)) * self._left

    def _fraction(self) -> float:
        left = _FIRST * (len(self._singles) - self._first) + self._more()
        self._share = max(self._share, self._done / max(self._done + left, 1e-9))
        return self._share

    def _look(self) -> None:
        """Count the candidates of the first pass that have been measured."""
        while self._first < len(self._singles) and self._meter.known(self._singles[self._first][0]):
            blocks, pointer = self._singles[self._first]
            value, _ = mean_and_spread(self._meter.measure(blocks, pointer), self._settings.similarity)
            self._above += value > self._t_min
            self._first += 1


def _singles(depth: int, settings: LacoSettings) -> Iterator[tuple[tuple[Block, ...], int]]:
    """Yield the candidates of Algorithm 1 at T = 1, where none is accepted, and the pointer of each."""
    source = untouched(depth).blocks
    for pointer in range((settings.highest or depth) - settings.C, settings.lowest - 1, -1):
        yield fold(source, pointer, min(settings.C, depth - pointer), settings.rule), pointer


def spoken(least: float, most: float) -> str:
    """Return a range of integers, or a single number if both are equal."""
    least, most = (math.ceil(number) for number in (least, most))
    return f"{least}" if least == most else f"{least}–{most}"
