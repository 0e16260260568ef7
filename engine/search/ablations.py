"""The ablations of the LaCo paper (2402.11187), as jobs on one model: the effect of each choice in Algorithm 1.

Every ablation varies one choice, keeps the other settings, and evaluates each plan on the judge's texts.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from engine.errors import SettingsError
from engine.jobs import Job, as_part
from engine.judge.evaluation import Judge
from engine.judge.similarity import SimilarityMeter
from engine.messages import Message
from engine.methods.depth.acceptance import METERS
from engine.methods.depth.laco import LacoSettings, Landscape, Proposal, landscape
from engine.models.texts import bundled, calibration_of
from engine.plans.rules import RULES, fold, fold_spans, untouched
from engine.search.ablation_rows import Ablation, Row, folding, mean_similarity, named, proposed, row_of, telling_of
from engine.search.frontier import Step, frontier
from engine.types import Block, Plan, TextSet

MAP_PLANS = 6  # plans of the T map, each of another depth, on which acceptance measures are compared
T_MIN = 0.5
T = TypeVar("T")
Ablate = Callable[[SimilarityMeter, Judge, LacoSettings], "Job[Ablation]"]


QUESTIONS = {
    "drop-or-merge": "Do folds cost less when layers are merged or when they are dropped?",
    "iterative-or-at-once": "Is it worth measuring again after every fold, or can all folds be placed at once?",
    "acceptance": "Which measure separates good plans from bad ones: the cosine, the KL divergence or CKA?",
    "C": "What changes with more layers per fold?",
    "I": "What changes with a longer step down after a fold?",
    "T": "What changes with a lower threshold?",
    "calibration": "Does the plan depend on the texts that similarity is measured on?",
}


def ablate(name: str, meter: SimilarityMeter, judge: Judge, settings: LacoSettings) -> Job[Ablation]:
    """Start an ablation by its name.

    Raises:
        SettingsError: the name is unknown, or see `LacoSettings.checked`; while running, if an ablation of folds finds no accepted fold.
    """
    require_ablation(name)
    return ABLATIONS[name](meter, judge, settings.checked(meter.model.spec.depth))


def require_ablation(name: str) -> None:
    """Raise SettingsError unless an ablation has this name."""
    if name not in ABLATIONS:
        raise SettingsError("unknown ablation '{name}'; choose one of {choices}", name=name, choices=", ".join(ABLATIONS))


# --- The choices of the algorithm ---


def drop_or_merge(meter: SimilarityMeter, judge: Judge, settings: LacoSettings) -> Job[Ablation]:
    """Apply the folds that the settings accept, in the same order, under every rule."""
    depth, parts = meter.model.spec.depth, len(RULES) + 1
    proposal = yield from as_part(folding(meter, settings), "", 0, parts)
    rows = []
    for place, rule in enumerate(RULES):
        varied = replace(settings, rule=rule)
        plan = Plan(depth, _refolded(proposal, rule), "laco-folds", (*named(meter, varied), ("folds_of", settings.rule)))
        rows.append(
            (
                yield from as_part(
                    row_of(meter, judge, Message("rule {rule}", rule=rule), varied, plan),
                    Message("Rule {rule}", rule=rule),
                    place + 1,
                    parts,
                )
            )
        )
    return _answer("drop-or-merge", rows)


def _refolded(proposal: Proposal, rule: str) -> tuple[Block, ...]:
    blocks = untouched(proposal.plan.source_depth).blocks
    for trial in proposal.trials:
        if trial.accepted:
            blocks = fold(blocks, trial.pointer, trial.absorbed + 1, rule)
    return blocks


def iterative_or_at_once(meter: SimilarityMeter, judge: Judge, settings: LacoSettings) -> Job[Ablation]:
    """Compare Algorithm 1 with folds of the same size placed where single folds of the source are most similar."""
    proposal = yield from as_part(folding(meter, settings), "", 0, 4)
    plan = yield from as_part(at_once(meter, settings, proposal), Message("At once"), 1, 4)
    iterative = yield from as_part(
        row_of(meter, judge, Message("iterative (Algorithm 1)"), settings, proposal.plan), Message("Iterative"), 2, 4
    )
    return _answer(
        "iterative-or-at-once",
        [iterative, (yield from as_part(row_of(meter, judge, Message("at once"), settings, plan), Message("At once"), 3, 4))],
    )


def at_once(meter: SimilarityMeter, settings: LacoSettings, proposal: Proposal) -> Job[Plan]:
    """Return a plan of the proposal's depth with folds placed without measuring in between: each where it alone keeps the source's states
    most similar.

    Folds have C layers; the last may have fewer. They stay apart while there is room. After that the last layer of one may be the first of
    another, and finally they become narrower, so that the depth is always reached.
    """
    depth, left = proposal.plan.source_depth, proposal.plan.source_depth - proposal.plan.depth
    settings = settings.checked(depth)
    absorbed = set(range(depth)) - {block.home for block in _refolded(proposal, "keep-first")}  # some may be above H
    region = range(settings.lowest, max(settings.highest or depth, max(absorbed, default=-1) + 1))
    spans: list[tuple[int, int]] = []
    known: dict[int, Landscape] = {}
    width = settings.C
    while left:
        width = min(width, left + 1)
        if width not in known:
            known[width] = yield from landscape(meter, settings.rule, settings.similarity, (width,))
        base = _best_base(known[width].similarity[0], spans, region, width)
        if base is None:
            width -= 1
            continue
        spans.append((base, base + width - 1))
        left -= width - 1
    folds = fold_spans(depth, spans, settings.rule)
    return replace(folds, method="laco-at-once", settings=(*named(meter, settings), ("spans", tuple(sorted(spans)))))


def _best_base(scores: Sequence[float], spans: Sequence[tuple[int, int]], region: range, width: int) -> int | None:
    """Return the base of the most similar fold that is apart from all spans, or else only touches them; None if no fold fits."""
    for touch in (0, 1):
        free = [
            base
            for base in range(region.start, region.stop - width + 1)
            if all(base + width - 1 < first + touch or base > last - touch for first, last in spans)
        ]
        if free:
            return max(free, key=lambda base: -math.inf if math.isnan(scores[base]) else scores[base])
    return None


def acceptance(meter: SimilarityMeter, judge: Judge, settings: LacoSettings) -> Job[Ablation]:
    """Accept folds by each measure down to the same depth; then compare how the measures rank the plans of the cosine's T map."""
    meters: dict[str, SimilarityMeter] = {"cosine": meter, **{name: kind(meter) for name, kind in METERS.items()}}
    parts = 1 + 2 * len(meters) + MAP_PLANS
    target = (yield from as_part(folding(meter, settings), "", 0, parts)).plan.depth
    rows, path, floor = list[Row](), tuple[Step, ...](), min(T_MIN, settings.T)
    for place, (name, other) in enumerate(meters.items()):
        if rows:  # this measure of the cosine's plan estimates how far down the map must go
            value = mean_similarity(other, rows[0].plan, settings)
            floor = 0.0 if math.isnan(value) else value
        steps = yield from as_part(
            _down_to(other, settings, target, floor), Message("Accepting by {name}", name=Message(name)), 2 * place + 1, parts
        )
        path = path or steps
        step = min(steps, key=lambda step: abs(step.proposal.plan.depth - target))  # of equal ones the highest T
        job = _measured(meters, judge, Message("accepted by {name}", name=Message(name)), settings, step, name)
        rows.append((yield from as_part(job, Message("Accepted by {name}", name=Message(name)), 2 * place + 2, parts)))
    mapped = []
    for place, step in enumerate(_spread_out(path)):
        label = Message("T map, T = {t_from:.4f}", t_from=step.t_from)
        mapped.append(
            (yield from as_part(_measured(meters, judge, label, settings, step, "cosine"), label, parts - MAP_PLANS + place, parts))
        )
    return replace(_answer("acceptance", [*rows, *mapped]), telling=tuple(telling_of(name, mapped) for name in meters))


def _down_to(meter: SimilarityMeter, settings: LacoSettings, depth: int, floor: float) -> Job[tuple[Step, ...]]:
    """Map T down to `floor`, or to 0 if no plan of this depth is above `floor`."""
    found = yield from frontier(meter, settings, floor)
    if floor > 0.0 and all(step.proposal.plan.depth != depth for step in found.steps):
        found = yield from frontier(meter, settings, 0.0)
    return found.steps


def _measured(meters: dict[str, SimilarityMeter], judge: Judge, label: str, settings: LacoSettings, step: Step, by: str) -> Job[Row]:
    plan = replace(step.proposal.plan, settings=(*step.proposal.plan.settings, ("acceptance", by)))
    row = yield from row_of(meters["cosine"], judge, label, replace(settings, T=step.t_from), plan)
    return replace(row, measures=tuple((name, mean_similarity(meter, plan, settings)) for name, meter in meters.items()))


def _spread_out(steps: Sequence[Step]) -> list[Step]:
    """Return the first folding step of each depth; of more than MAP_PLANS depths, an even selection."""
    first = {step.proposal.plan.depth: step for step in reversed(steps) if step.proposal.plan.depth < step.proposal.plan.source_depth}
    found = [first[depth] for depth in sorted(first, reverse=True)]
    if len(found) <= MAP_PLANS:
        return found
    return [found[round(place * (len(found) - 1) / (MAP_PLANS - 1))] for place in range(MAP_PLANS)]


# --- Its settings and its texts ---


def _varied(name: str, values: Callable[[LacoSettings, int], Iterable[Any]]) -> Ablate:
    def job(meter: SimilarityMeter, judge: Judge, settings: LacoSettings) -> Job[Ablation]:
        rows, choices = list[Row](), list(values(settings, meter.model.spec.depth))
        for place, value in enumerate(choices):
            label, varied = f"{name} = {value:g}", replace(settings, **{name: value})
            rows.append((yield from as_part(proposed(meter, meter, judge, label, varied), label, place, len(choices))))
        return _answer(name, rows)

    job.__doc__ = f"Run Algorithm 1 with other values of {name} around the settings' own."
    return job


def _values_of_c(settings: LacoSettings, depth: int) -> Iterable[int]:
    return range(max(settings.C - 2, 2), min(settings.C + 2, depth) + 1)


def _values_of_i(settings: LacoSettings, depth: int) -> Iterable[int]:
    return range(max(settings.I - 2, 1), settings.I + 3)


def _values_of_t(settings: LacoSettings, depth: int) -> Iterable[float]:
    values = [settings.T if not offset else round(settings.T + offset * 0.05, 6) for offset in range(3, -4, -1)]
    return [value for value in values if -1.0 <= value <= 1.0]


def calibrations(meter: SimilarityMeter, judge: Judge, settings: LacoSettings) -> Job[Ablation]:
    """Run Algorithm 1 on the user's own texts, the bundled ones of each language, and each half of the English ones.

    `similarity` is measured on the user's own texts; the similarity compared with T is the row's measure "on these texts".
    """
    choices = list(_texts(meter.calibration))
    rows = []
    for place, (label, texts) in enumerate(choices):
        own = meter if texts.fingerprint == meter.calibration.fingerprint else SimilarityMeter(meter.model, texts)
        row = yield from as_part(proposed(own, meter, judge, label, settings), label, place, len(choices))
        rows.append(replace(row, measures=(("on these texts", mean_similarity(own, row.plan, settings)),)))
    return _answer("calibration", rows)


def _texts(own: TextSet) -> Iterator[tuple[str, TextSet]]:
    english = bundled("english")
    half = len(english.texts) // 2
    named = [(Message("{own_name} (yours)", own_name=own.name), own), (Message("english"), english), (Message("korean"), bundled("korean"))]
    named += [
        (Message("english, first half"), calibration_of(english.texts[:half])),
        (Message("english, second half"), calibration_of(english.texts[half:])),
    ]
    seen = set[str]()
    for label, texts in named:
        if texts.fingerprint not in seen:
            seen.add(texts.fingerprint)
            yield label, texts


ABLATIONS: dict[str, Ablate] = {
    "drop-or-merge": drop_or_merge,
    "iterative-or-at-once": iterative_or_at_once,
    "acceptance": acceptance,
    "C": _varied("C", _values_of_c),
    "I": _varied("I", _values_of_i),
    "T": _varied("T", _values_of_t),
    "calibration": calibrations,
}


def _answer(name: str, rows: Sequence[Row]) -> Ablation:
    return Ablation(name, QUESTIONS[name], tuple(rows))
