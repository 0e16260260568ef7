"""The first part of a report: the verdict, the gains, and the most informative sample."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.export.report.figures import bytes_of, change, number, percent, spread
from engine.judge.cost import LEVELS
from engine.judge.evaluation import Evaluation
from engine.plans.description import Say, in_english, weigh
from engine.types import ModelSpec, Plan

Row = tuple[str, str, str, str]  # label, source, plan, change


# --- The verdict ---


def verdict(plan: Plan, evaluation: Evaluation | None, say: Say = in_english) -> tuple[str, str, tuple[str, ...]]:
    """Return a level (none, good, fair, poor or broken), a headline, and the sentences that explain it."""
    if evaluation is None:
        why = say("Evaluate the plan before you base a decision on this report.")
        return "none", say("The cost of the plan has not been measured"), (why,)
    broken = _broken(evaluation, say)
    if broken is not None:
        return "broken", broken[0], broken[1:]
    level, headline = _level(plan, evaluation, say)
    return level, headline, _explained(evaluation, say)


def _broken(e: Evaluation, say: Say) -> tuple[str, ...] | None:
    """Return a headline and sentences if the ratio is not a finite number, else None."""
    if not math.isfinite(e.perplexity.source):
        headline = say("No verdict: the source model itself fails on these texts")
        return headline, say("Its perplexity is not a finite number.")
    if math.isnan(e.perplexity.plan) or math.isnan(e.perplexity.ratio):
        bad = sum(not math.isfinite(text.plan_nll) for text in e.texts)
        why = say(
            "On {bad} of {all} texts the smaller model produces values that are not numbers (NaN), so it cannot be used.",
            bad=bad,
            all=len(e.texts),
        )
        return say("The plan is broken"), why, say("Choose another plan.")
    if math.isinf(e.perplexity.plan):
        return say("The plan is broken"), say("Its perplexity is too large to write as a number."), say("Choose another plan.")
    return None


def _level(plan: Plan, e: Evaluation, say: Say) -> tuple[str, str]:
    level, headline = next((level, say(words)) for limit, level, words in LEVELS if e.perplexity.ratio <= limit)
    facts = _has_interval(e)
    if plan.depth == plan.source_depth and all(block.untouched for block in plan.blocks):
        headline = say("Nothing was changed, so nothing is lost")
    elif facts and e.perplexity.interval[1] < 1.0:
        headline = say("It predicts these texts better than its source, which is unusual: check it on others")
    elif facts and e.perplexity.interval[0] <= 1.0 < e.perplexity.interval[1]:
        close = e.perplexity.interval[1] <= LEVELS[1][0]
        level = "good" if close else "fair"
        headline = say("On these texts it does not differ measurably from its source") if close else say("No verdict: too few texts")
    if level == "good" and e.top1_agreement < 0.5:  # perplexity alone would approve a model with different predictions
        return "fair", say("Its perplexity is close to the source's, but it predicts other tokens")
    return level, headline


def _explained(e: Evaluation, say: Say) -> tuple[str, ...]:
    unsure = spread(e.perplexity.ratio, e.perplexity.interval[0], e.perplexity.interval[1])
    facts = {"source": number(e.perplexity.source), "plan": number(e.perplexity.plan), "ratio": number(e.perplexity.ratio, unsure)}
    agree = say("Both models predict the same next token at {share} of positions.", share=say(percent(e.top1_agreement)))
    if not _has_interval(e):
        lead = say(
            "At each token the source is, on average, as uncertain as a choice among {source} continuations (its "
            "perplexity); the smaller model among {plan}, {ratio} times as many.",
            **facts,
        )
        return lead, say("One text gives no confidence interval; evaluate on more texts."), agree
    facts |= {"low": number(e.perplexity.interval[0], unsure), "high": number(e.perplexity.interval[1], unsure)}
    lead = say(
        "At each token the source is, on average, as uncertain as a choice among {source} continuations (its "
        "perplexity); the smaller model among {plan}, {ratio} times as many (95 % confidence interval: {low} to {high} "
        "times).",
        **facts,
    )
    return lead, agree


def _has_interval(e: Evaluation) -> bool:
    return not math.isnan(e.perplexity.interval[0]) and not math.isnan(e.perplexity.interval[1])


# --- gains ---


def gains(
    spec: ModelSpec, plan: Plan, speed: Mapping[str, Any] | None, memory: Mapping[str, Any] | None, say: Say = in_english
) -> list[Row]:
    """Return the rows of sizes and speeds."""
    parameters, size = weigh(spec, plan)
    rows = [
        (say("Layers"), str(plan.source_depth), str(plan.depth), change(plan.source_depth, plan.depth)),
        (say("Parameters"), f"{spec.parameters:,}", f"{parameters:,}", change(spec.parameters, parameters)),
        (say("Weights in memory ({dtype})", dtype=spec.dtype), bytes_of(spec.bytes), bytes_of(size), change(spec.bytes, size)),
    ]
    if memory is not None:
        before, after = memory["source_cache"], memory["plan_cache"]
        label = say("KV cache of {context} tokens × {batch}", context=f"{memory['context']:,}", batch=memory["batch"])
        rows.append((label, bytes_of(before), bytes_of(after), change(before, after)))
    if speed is not None:
        for name, part in (
            (say("Reading a prompt (prefill), tokens per second"), "prefill"),
            (say("Writing (decoding), tokens per second"), "decode"),
        ):
            before, after = (float(f"{speed[f'{side}_{part}']:.3g}") for side in ("source", "plan"))
            rows.append((name, number(before), number(after), faster(before, after, speed.get(f"{part}_range"), say)))
    return rows


def faster(before: float, after: float, rounds: Sequence[float] | None, say: Say = in_english) -> str:
    """Return the speed-up from the two figures shown; `rounds` are the lowest and highest ratio of any round, if known."""
    ratio = after / before
    if rounds is None or rounds[0] == rounds[1]:
        return say("{ratio}× as fast", ratio=number(ratio))
    unsure = (rounds[1] - rounds[0]) / 2
    facts = {"ratio": number(ratio, unsure), "low": number(rounds[0], unsure), "high": number(rounds[1], unsure)}
    if rounds[0] <= 1.0 <= rounds[1]:
        return say("no clear difference in speed ({low}× to {high}×)", **facts)
    return say("{ratio}× as fast ({low}× to {high}×)", **facts)


def further(speed: Mapping[str, Any] | None, memory: Mapping[str, Any] | None, say: Say = in_english) -> list[Row]:
    """Return the rows of further details."""
    rows = []
    if memory is not None:
        rows.append((say("Checkpoint on disk"), "–", bytes_of(memory["plan_disk"]), "–"))
    if speed is not None:
        if "source_peak" in speed:
            before, after = speed["source_peak"], speed["plan_peak"]
            rows.append((say("Peak memory while reading and writing"), bytes_of(before), bytes_of(after), change(before, after)))
        ideal = say("{ratio}× as fast", ratio=number(1 / speed["depth_ratio"]))
        rows.append((say("Writing (decoding), if only layers took time"), "–", "–", ideal))
    return rows


# --- How it writes ---


def telling(samples: Sequence[Mapping[str, Any]], say: Say = in_english) -> tuple[Mapping[str, Any], str] | None:
    """Return the most informative sample and why it was chosen; None without samples.

    In order of preference: only the plan loops, only the plan writes nothing, the texts differ. Among equals, a greedy sample is preferred,
    because it involves no randomness.
    """
    if not samples:
        return None
    count = len(samples)
    reasons = (
        say("In all {count} samples the smaller model writes the same text as its source; this is one of them.", count=count),
        say("One of {count} samples: here the two models write different text.", count=count),
        say("One of {count} samples, chosen because the smaller model writes nothing.", count=count),
        say("One of {count} samples, chosen because the smaller model repeats itself and its source does not.", count=count),
    )

    def length(sample: Mapping[str, Any]) -> int:
        source, plan = sample["source"], sample["plan"]
        if plan["loops"] and not source["loops"]:
            return 3
        if source["text"].strip() and not plan["text"].strip():
            return 2
        return int(source["text"] != plan["text"])

    best = max(samples, key=lambda sample: (length(sample), sample["decoding"] == "greedy"))
    return best, reasons[length(best)]
