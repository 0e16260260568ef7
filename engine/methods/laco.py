"""LaCo, Layer Collapse (Yang, Cao, Zhao 2024, 2402.11187), Algorithm 1.

A pointer l starts at H - C and moves down. At each l the layers l+1 .. l+C-1 are folded into l; where the final hidden
states of the candidate stay similar to the source's (strictly above T), the candidate becomes the model and the pointer
moves down by I, otherwise by one. It ends below L. Near the top fewer than C-1 layers may be left to absorb; then those
are, as in the published code. (The code's clamp `if lay >= len(layers)` cannot fire: a fold at l leaves at least l + 1
layers and l falls.)
"""

import math
from statistics import fmean, pstdev

from engine.jobs import Job, Progress
from engine.plans.rules import fold, untouched
from engine.settings import LacoSettings
from engine.similarity import SimilarityMeter
from engine.types import DepthPlan, Landscape, Proposal, Similarity, SimilarityDefinition, Trial


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
    blocks, trials = untouched(depth).blocks, list[Trial]()
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
                yield Progress(f"Folding {width} layers at layer {base}", done / total)
            row[base], _ = mean_and_spread(meter.measure(candidate, base), definition)
        rows.append(tuple(row))
    return Landscape(rule, definition, widths, tuple(rows))
