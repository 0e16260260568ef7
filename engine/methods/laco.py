"""LaCo, Layer Collapse (Yang, Cao, Zhao 2024, 2402.11187), Algorithm 1.

A pointer l starts at H - C and moves down. At each l the layers l+1 .. l+C-1 are folded into l; where the final hidden
states of the candidate stay similar to the source's (strictly above T), the candidate becomes the model and the pointer
moves down by I, otherwise by one. It ends below L. Near the top fewer than C-1 layers may be left to absorb; then those
are, as in the published code. (The code's clamp `if lay >= len(layers)` cannot fire: a fold at l leaves at least l + 1
layers and l falls.)
"""

import math
from dataclasses import dataclass, field, fields
from statistics import fmean, pstdev
from typing import Any

from engine.errors import SettingsError
from engine.jobs import Job, Progress
from engine.plans import RULES, fold, untouched
from engine.similarity import SimilarityMeter, require_definition
from engine.types import DepthPlan, Landscape, Proposal, Similarity, SimilarityDefinition, Trial


def _setting(default: Any, help: str, low: float | None = None, high: float | None = None, step: float | None = None) -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high, "step": step})


@dataclass(frozen=True, slots=True)
class LacoSettings:
    """Everything Algorithm 1 depends on besides the model and the texts. Layers are counted from 0.

    `lowest` (L) is the lowest base tried, `highest` (H) the exclusive end of the first window; None means the depth.
    """

    C: int = _setting(4, "Layers in one fold: C - 1 are absorbed by one. Higher folds deeper at once. Paper: 3 to 6.", 2, 8, 1)
    I: int = _setting(2, "Layers to step down after an accepted fold. Higher spreads the folds. Paper: 1 to 3.", 1, 8, 1)  # noqa: E741
    T: float = _setting(0.65, "A fold is kept when similarity stays above T. Lower removes more layers. Paper: about 0.65.", -1.0, 1.0, 0.001)
    lowest: int = _setting(1, "L: the lowest layer that may become a base. Early layers matter most; keep them out.", 0, None, 1)
    highest: int | None = _setting(None, "H: the first window ends below this layer. The depth lets the last layer fold.", 2, None, 1)
    rule: str = _setting("reference", "How folded layers become one.")
    similarity: SimilarityDefinition = _setting("flattened", "How two final hidden states are compared.")

    def checked(self, depth: int) -> "LacoSettings":
        """Return the settings for a model of this depth, `highest` filled in.

        Raises:
            SettingsError: a value lies outside what Algorithm 1 and this depth allow.
        """
        highest = depth if self.highest is None else self.highest
        if not 2 <= self.C <= depth:
            raise SettingsError(f"C is {self.C}; it must lie between 2 and the model's depth, {depth}")
        if self.I < 1:
            raise SettingsError(f"I is {self.I}; it must be at least 1")
        if not -1.0 <= self.T <= 1.0:  # also refuses NaN
            raise SettingsError(f"T is {self.T}; it must be a number between -1 and 1")
        if not 0 <= self.lowest < depth:
            raise SettingsError(f"L is {self.lowest}; it must lie between 0 and {depth - 1}")
        if not 1 <= highest <= depth:
            raise SettingsError(f"H is {highest}; it must lie between 1 and the model's depth, {depth}")
        if self.lowest > highest:
            raise SettingsError(f"L ({self.lowest}) lies above H ({highest})")
        if self.rule not in RULES:
            raise SettingsError(f"unknown rule '{self.rule}'; choose one of {', '.join(RULES)}")
        require_definition(self.similarity)
        return LacoSettings(self.C, self.I, float(self.T), self.lowest, highest, self.rule, self.similarity)

    def items(self) -> tuple[tuple[str, Any], ...]:
        """Return name and value of each setting, in order."""
        return tuple((f.name, getattr(self, f.name)) for f in fields(self))


def mean_and_spread(similarity: Similarity, definition: SimilarityDefinition) -> tuple[float, float]:
    """Return mean and standard deviation over texts; NaN where any text's value is."""
    values = similarity.of(definition)
    if any(math.isnan(value) for value in values):
        return math.nan, math.nan
    return fmean(values), pstdev(values)


def propose(meter: SimilarityMeter, settings: LacoSettings) -> Job[Proposal]:
    """Run Algorithm 1 and return its plan and every trial. Only plans not measured before cost anything.

    Raises:
        SettingsError: see `LacoSettings.checked`.
    """
    depth = meter.model.spec.depth
    settings = settings.checked(depth)
    blocks, trials = untouched(depth).blocks, []
    first = pointer = (settings.highest or depth) - settings.C
    while pointer >= settings.lowest:
        absorbed = min(settings.C - 1, len(blocks) - pointer - 1)
        candidate = fold(blocks, pointer, absorbed + 1, settings.rule)
        if not meter.known(candidate):
            yield Progress(f"Folding {absorbed} layers into layer {pointer}", (first - pointer) / (first + 1 - settings.lowest))
        similarity, spread = mean_and_spread(meter.measure(candidate, pointer), settings.similarity)
        accepted = similarity > settings.T  # NaN is not above anything
        if accepted:
            blocks = candidate
        trials.append(Trial(len(trials), pointer, absorbed, similarity, spread, accepted, len(blocks)))
        pointer -= settings.I if accepted else 1
    named = (*settings.items(), ("calibration", meter.calibration.fingerprint))
    return Proposal(DepthPlan(depth, blocks, "laco", named), tuple(trials))


def landscape(meter: SimilarityMeter, rule: str, definition: SimilarityDefinition, widths: tuple[int, ...] = tuple(range(2, 9))) -> Job[Landscape]:
    """Return the final-state similarity after every single fold: each width from each base, under one rule."""
    depth = meter.model.spec.depth
    source = untouched(depth).blocks
    widths = tuple(width for width in widths if width <= depth)
    total, done, rows = sum(depth - width + 1 for width in widths), 0, []
    for width in widths:
        row = [math.nan] * depth
        for base in range(depth - width + 1):
            done += 1
            candidate = fold(source, base, width, rule)
            if not meter.known(candidate):
                yield Progress(f"Folding {width} layers at layer {base}", done / total)
            row[base], _ = mean_and_spread(meter.measure(candidate, base), definition)
        rows.append(tuple(row))
    return Landscape(rule, definition, widths, tuple(rows))


