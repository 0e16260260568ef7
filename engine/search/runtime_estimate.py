"""What a T map takes: told before it is begun, and as it goes."""

import math
from collections.abc import Iterator

from engine.jobs import Progress
from engine.judge.similarity import SimilarityMeter
from engine.methods.laco import LacoSettings, mean_and_spread
from engine.passes.forward import work_of_pass
from engine.plans.rules import fold, untouched
from engine.types import Block

_SHARED = 8  # a candidate beyond the first pass runs one in so many of the layers, since it shares trails
_FIRST = _SHARED / 2  # what a candidate of the first pass takes beside it
_USUAL = 0.3  # times the pointers to the power of 2.5: the candidates of a map all of whose folds are accepted in the end
_TRUST = 0.1  # how soon the map's own count outweighs the usual one, as a share of the map


class MapEffort:
    """How many candidates a T map still has, and how long they take.

    Its first pass, at T = 1, has one candidate a pointer; how many more there are nobody can know before. The numbers above were
    counted on models of 24 and 80 layers. On the way the map tells more: the share of it that is left is about that of the folds
    that are still rejected above t_min, times that of the range of T. How far it is, is the work done as a share of that and of what
    is left; it never goes back.
    """

    def __init__(self, meter: SimilarityMeter, settings: LacoSettings, t_min: float) -> None:
        """`settings` are checked ones, at T = 1."""
        self._meter, self._settings, self._t_min = meter, settings, t_min
        self._singles = list(_singles(meter.model.spec.depth, settings))
        self._first, self._above = 0, 0  # of the first pass: candidates that are known, and those of them that lie above t_min
        self._begun: tuple[int, float] | None = None  # after the first pass: folds rejected above t_min, and its T
        self._left = 1.0  # of what comes after the first pass, as a share
        self._seen = 0.0  # the share of it that took measuring, and
        self._later = self._new = 0  # how many candidates that took, and the step that is under way
        self._done = self._share = 0.0
        self._look()

    @property
    def candidates(self) -> tuple[float, float]:
        """How many candidates are left: at least, and likely at most."""
        first = len(self._singles) - self._first
        return first, first + self._more()

    @property
    def seconds(self) -> tuple[float, float]:
        """How long those take at the model's pace, which its pass over the texts tells."""
        model, (least, most) = self._meter.model, self.candidates
        tokens = sum(record.pack.ids.shape[1] for record in self._meter.captures)
        layer = model.pace * work_of_pass(model, tokens) / model.spec.depth
        first = sum(len(blocks) - pointer for blocks, pointer in self._singles[self._first :]) * layer
        return first, first + (most - least) * model.spec.depth / _SHARED * layer

    def estimate(self) -> Progress:
        """What is told before the map is begun."""
        candidates, (least, most) = spoken(*self.candidates), self.seconds
        if most < 120:
            return Progress(f"Mapping T: {candidates} candidates, about {spoken(least, most)} s", self._share)
        return Progress(f"Mapping T: {candidates} candidates, about {spoken(least / 60, most / 60)} min", self._share)

    def measuring(self, upper: float) -> Progress:
        """What is told before the next candidate is measured."""
        self._look()
        told = f"Mapping T: {min(upper, 1.0):.3f} and above is done, about {self.candidates[1]:.0f} candidates left"
        progress = Progress(told, self._fraction())
        later = self._first == len(self._singles)
        self._done += 1 if later else _FIRST
        self._later, self._new = self._later + later, self._new + later
        return progress

    def passed(self, rejected: int, threshold: float) -> None:
        """A step is done; so many of its candidates were rejected above t_min, and it begins at this T."""
        self._look()
        self._begun = self._begun or (rejected, threshold)
        folds, highest = self._begun
        left = rejected / max(folds, 1) * (threshold - self._t_min) / max(highest - self._t_min, 1e-9)
        if self._new:
            self._seen += self._left - left
        self._left, self._new = left, 0

    def _more(self) -> float:
        """Return how many candidates are likely to be left after the first pass."""
        pointers = len(self._singles)
        share = self._begun[0] / max(pointers, 1) if self._begun else (self._above + 1) / (self._first + 1)
        usual = _USUAL * share * pointers**2.5
        return (usual * _TRUST + self._later) / (_TRUST + max(self._seen, 0.0)) * self._left

    def _fraction(self) -> float:
        left = _FIRST * (len(self._singles) - self._first) + self._more()
        self._share = max(self._share, self._done / max(self._done + left, 1e-9))
        return self._share

    def _look(self) -> None:
        """See which candidates of the first pass are known by now."""
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
    """Return a range of whole numbers, or the one number that both come to."""
    least, most = (math.ceil(number) for number in (least, most))
    return f"{least}" if least == most else f"{least}–{most}"
