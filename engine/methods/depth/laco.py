"""LaCo, Layer Collapse (Yang, Cao, Zhao 2024, 2402.11187), Algorithm 1.

A pointer l starts at H - C and moves down. At each l the layers l+1 .. l+C-1 are folded into l. If the candidate's final hidden states stay
similar to the source's (strictly above T), the candidate becomes the model and the pointer moves down by I, otherwise by one. The search
ends below L. Near the top there may be fewer than C-1 layers to absorb; then all of them are absorbed, as in the published code. (The
code's clamp `if lay >= len(layers)` cannot take effect: a fold at l leaves at least l + 1 layers, and l decreases.)
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from engine.errors import SettingsError
from engine.jobs import Job, Progress
from engine.messages import Message
from engine.plans.files import plan_to_json
from engine.plans.rules import RULES, fold, untouched
from engine.records import Count, FloatOrNaN
from engine.settings import Action, control
from engine.types import Plan, SimilarityDefinition

if TYPE_CHECKING:  # imports torch, which the terminal's help does not need
    from engine.judge.similarity import Similarity, SimilarityMeter

DEFINITIONS: tuple[SimilarityDefinition, ...] = ("flattened", "per-token")


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate of Algorithm 1: fold `absorbed` layers into the one at `pointer`; accepted if strictly above T.

    `similarity` is the mean over texts, `spread` their standard deviation.
    """

    step: Count
    pointer: Count
    absorbed: Count
    similarity: FloatOrNaN
    spread: FloatOrNaN
    accepted: bool
    depth_after: Count


@dataclass(frozen=True, slots=True)
class Proposal:
    """The result of Algorithm 1 at one T: its plan and its trials."""

    plan: Plan
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Landscape:
    """Similarity after a single fold of layers base .. base + width - 1, for widths[i] and base j; NaN where the fold does not fit."""

    rule: str
    definition: str
    widths: tuple[int, ...]
    similarity: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class LacoSettings:
    """The settings of LaCo's Algorithm 1. Layers are counted from 0.

    `lowest` (L) is the lowest base tried, `highest` (H) the exclusive end of the first window; None means the depth.
    """

    C: int = field(
        default=4,
        metadata=control(
            "layers per fold; C - 1 of them are absorbed. Higher values remove more layers at once (paper: 3 to 6)", 2, 8, 1, flag="-C"
        ),
    )
    I: int = field(
        default=2,
        metadata=control("layers to step down after an accepted fold; higher values spread the folds (paper: 1 to 3)", 1, 8, 1, flag="-I"),
    )
    T: float = field(
        default=0.65,
        metadata=control(
            "threshold: a fold is accepted if the similarity is strictly above T; lower values remove more layers (paper: about 0.65)",
            -1.0,
            1.0,
            0.0001,
            flag="-T",
            page=False,
        ),
    )
    lowest: int = field(default=1, metadata=control("L: the lowest base layer of a fold; early layers matter most", 0, None, 1))
    highest: int | None = field(default=None, metadata=control("H: the first window ends below this layer; default: the depth", 1, None, 1))
    rule: str = field(
        default="reference",
        metadata=control(
            "how folded layers become one: " + "; ".join(f"{rule.name} ({rule.help})" for rule in RULES.values()), choices=RULES
        ),
    )
    similarity: SimilarityDefinition = field(
        default="flattened",
        metadata=control("flattened (one cosine per text, as in LaCo's code) or per-token (the mean over tokens)", choices=DEFINITIONS),
    )

    def checked(self, depth: int) -> LacoSettings:
        """Return the settings for a model of this depth, with `highest` filled in.

        Raises:
            SettingsError: a value is outside the range that Algorithm 1 and this depth allow.
        """
        highest = depth if self.highest is None else self.highest
        if not 2 <= self.C <= depth:
            raise SettingsError("C is {c}; it must lie between 2 and the model's depth, {depth}", c=self.C, depth=depth)
        if self.I < 1:
            raise SettingsError("I is {i}; it must be at least 1", i=self.I)
        if not -1.0 <= self.T <= 1.0:  # also refuses NaN
            raise SettingsError("T is {t}; it must be a number between -1 and 1", t=self.T)
        if not 0 <= self.lowest < depth:
            raise SettingsError("L is {lowest}; it must lie between 0 and {depth}", lowest=self.lowest, depth=depth - 1)
        if not 1 <= highest <= depth:
            raise SettingsError("H is {highest}; it must lie between 1 and the model's depth, {depth}", highest=highest, depth=depth)
        if self.lowest > highest:
            raise SettingsError("L ({lowest}) must not exceed H ({highest})", lowest=self.lowest, highest=highest)
        RULES.require(self.rule)
        if self.similarity not in DEFINITIONS:
            raise SettingsError(
                "unknown similarity '{similarity}'; choose one of {choices}", similarity=self.similarity, choices=", ".join(DEFINITIONS)
            )
        return LacoSettings(self.C, self.I, float(self.T), self.lowest, highest, self.rule, self.similarity)

    def items(self) -> tuple[tuple[str, Any], ...]:
        """Return name and value of each setting, in order."""
        return tuple((f.name, getattr(self, f.name)) for f in fields(self))


def mean_and_spread(similarity: Similarity, definition: SimilarityDefinition) -> tuple[float, float]:
    """Return mean and standard deviation over texts; NaN if any text's value is NaN."""
    values = similarity.of(definition)
    if any(math.isnan(value) for value in values):
        return math.nan, math.nan
    return fmean(values), pstdev(values)


def propose(meter: SimilarityMeter, settings: LacoSettings) -> Job[Proposal]:
    """Run Algorithm 1 and return its plan and every trial. Cached measurements cost nothing.

    Raises:
        SettingsError: see `LacoSettings.checked`.
    """
    depth = meter.model.spec.depth
    settings = settings.checked(depth)
    blocks, trials = untouched(depth).blocks, list[Trial]()
    first = pointer = (settings.highest or depth) - settings.C
    while pointer >= settings.lowest:
        absorbed = min(settings.C - 1, len(blocks) - pointer - 1)
        candidate = fold(blocks, pointer, absorbed + 1, settings.rule)
        if not meter.known(candidate):
            yield Progress(
                Message("Folding {absorbed} layers into layer {pointer}", absorbed=absorbed, pointer=pointer),
                (first - pointer) / (first + 1 - settings.lowest),
            )
        similarity, spread = mean_and_spread(meter.measure(candidate, pointer), settings.similarity)
        accepted = similarity > settings.T  # False for NaN
        if accepted:
            blocks = candidate
        trials.append(Trial(len(trials), pointer, absorbed, similarity, spread, accepted, len(blocks)))
        pointer -= settings.I if accepted else 1
    named = (*settings.items(), ("calibration", meter.calibration.fingerprint))
    return Proposal(Plan(depth, blocks, "laco", named), tuple(trials))


def landscape(
    meter: SimilarityMeter, rule: str, definition: SimilarityDefinition, widths: tuple[int, ...] = tuple(range(2, 9))
) -> Job[Landscape]:
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
                yield Progress(Message("Folding {width} layers at layer {base}", width=width, base=base), done / total)
            row[base], _ = mean_and_spread(meter.measure(candidate, base), definition)
        rows.append(tuple(row))
    return Landscape(rule, definition, widths, tuple(rows))


def proposal_to_json(proposal: Proposal) -> dict[str, Any]:
    """Return a proposal: settings, trials, depth, plan."""
    return {
        "settings": dict(proposal.plan.settings),
        "trials": [asdict(trial) for trial in proposal.trials],
        "depth": proposal.plan.depth,
        "plan": plan_to_json(proposal.plan),
    }


PROPOSE = Action("propose", "Run Layer Collapse (Algorithm 1) at one T and write every trial and the plan.", LacoSettings)
