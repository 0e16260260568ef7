import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SettingsError
from engine.jobs import Job, Progress, drain
from engine.judge.evaluation import Judge
from engine.judge.similarity import SimilarityMeter
from engine.methods.depth.acceptance import CKAMeter, KLMeter
from engine.methods.depth.laco import LacoSettings, Landscape, Proposal, Trial, propose
from engine.models.texts import bundled, calibration_of
from engine.plans.rules import RULES, fold, fold_spans, untouched
from engine.search import ablations
from engine.search.ablation_rows import Ablation, ablation_to_json, spearman
from engine.search.ablations import ABLATIONS, QUESTIONS, ablate, at_once
from engine.search.frontier import frontier
from engine.types import Model
from tests.families import TEXTS
from tests.naive import cosines, last_states, merge, token_ids

SETTINGS = LacoSettings(C=2, I=2, T=-0.2, lowest=1)
JUDGED = ("Snow lies on the roofs until March.", "A bridge of stone, older than the town.")


@pytest.fixture(scope="module")
def model(tiny: Callable[..., Model]) -> Model:
    return tiny("llama", num_hidden_layers=8)


@pytest.fixture(scope="module")
def meter(model: Model) -> SimilarityMeter:
    return SimilarityMeter(model, calibration_of(TEXTS, "mine"))


@pytest.fixture(scope="module")
def judge(model: Model) -> Judge:
    return Judge(model, calibration_of(JUDGED, "judged"), context=32, limit=60)


@pytest.fixture(scope="module")
def found(meter: SimilarityMeter, judge: Judge) -> dict[str, Ablation]:
    """Every ablation of the tiny model."""
    return {name: drain(ablate(name, meter, judge, SETTINGS)) for name in ABLATIONS}


# --- Folds at once ---


def folded_like(absorbed: Sequence[int], depth: int) -> Proposal:
    """A proposal of Algorithm 1 that absorbed so many layers at bases from the top downwards, a fold each."""
    blocks, trials = untouched(depth).blocks, []
    for step, count in enumerate(absorbed):
        pointer = len(blocks) - 1 - count
        blocks = fold(blocks, pointer, count + 1, "reference")
        trials.append(Trial(step, pointer, count, 0.9, 0.0, True, len(blocks)))
    return Proposal(replace(untouched(depth), blocks=blocks), tuple(trials))


def spans_at_once(
    patch: pytest.MonkeyPatch, meter: SimilarityMeter, scores: Sequence[float], settings: LacoSettings, absorbed: Sequence[int]
) -> list[tuple[int, int]]:
    def fixed(_meter: object, rule: str, definition: str, widths: tuple[int, ...]) -> Job[Landscape]:
        yield Progress("Folding")
        row = (*scores[: len(scores) - widths[0] + 1], *[math.nan] * (widths[0] - 1))
        return Landscape(rule, definition, widths, (row,))

    patch.setattr(ablations, "landscape", fixed)
    plan = drain(at_once(meter, settings, folded_like(absorbed, len(scores))))
    assert plan.depth == len(scores) - sum(absorbed)
    spans = [tuple(span) for span in dict(plan.settings)["spans"]]
    assert plan.blocks == fold_spans(len(scores), spans, settings.rule).blocks
    return spans


@pytest.mark.parametrize(
    ("scores", "C", "absorbed", "spans"),
    [
        ([0.0, 0.1, 0.9, 0.8, 0.2, 0.3, 0.1, 0.0], 2, [1, 1], [(2, 3), (5, 6)]),  # base 3 would overlap the fold at 2
        ([0.0, 0.1, 0.9, math.nan, 0.2, 0.3, 0.1, 0.0], 4, [3], [(2, 5)]),
        ([0.0, 0.1, 0.9, 0.2, 0.3, 0.4, 0.1, 0.0], 3, [2, 1], [(2, 4), (5, 6)]),  # a fold that Algorithm 1 cut short
        ([0.0, 0.9, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0], 4, [3, 3], [(1, 4), (4, 7)]),  # no room apart: layer 4 is last and first
        ([0.9, 0.1, 0.2, 0.3], 2, [1, 1], [(1, 2), (2, 3)]),  # layer 0 lies below L
    ],
)
def test_folds_go_where_they_are_most_similar_alone(
    scores: list[float],
    C: int,
    absorbed: list[int],
    spans: list[tuple[int, int]],
    meter: SimilarityMeter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert spans_at_once(monkeypatch, meter, scores, LacoSettings(C=C, I=1, lowest=1), absorbed) == spans


def test_at_once_by_hand_on_a_model(meter: SimilarityMeter, model: Model) -> None:
    settings = LacoSettings(C=2, I=1, T=0.6, lowest=1)
    proposal = drain(propose(meter, settings))
    count = sum(trial.accepted for trial in proposal.trials)
    sentences = token_ids(model.tokenizer, TEXTS)
    source = last_states(model.network, sentences)
    alone = {base: sum(cosines(source, last_states(merge(model.network, base, 1, "reference"), sentences))) for base in range(1, 7)}
    placed: list[int] = []
    for base in sorted(alone, key=lambda base: -alone[base]):
        if len(placed) < count and all(abs(base - other) > 1 for other in placed):
            placed.append(base)
    assert len(placed) == count > 1
    plan = drain(at_once(meter, settings, proposal))
    assert plan.blocks == fold_spans(8, [(base, base + 1) for base in placed], "reference").blocks
    assert plan.blocks != proposal.plan.blocks


@pytest.mark.parametrize(("T", "top"), [(-1.0, 5), (0.5, 4)])
def test_folds_at_once_stay_among_the_layers_that_algorithm_1_folds(T: float, top: int, meter: SimilarityMeter) -> None:
    settings = LacoSettings(C=3, I=1, T=T, lowest=1, highest=5)
    proposal = drain(propose(meter, settings))
    folded = {layer for trial in proposal.trials if trial.accepted for layer in (trial.pointer, trial.pointer + trial.absorbed)}
    assert len(folded) == (4 if T < 0 else 2)  # the second fold reaches layer 5, above H, since 3 and 4 are in 2 by then
    plan = drain(at_once(meter, settings, proposal))
    assert plan.depth == proposal.plan.depth
    assert all(1 <= first < last <= top for first, last in dict(plan.settings)["spans"])


@given(data=st.data())
def test_at_once_always_reaches_the_depth(data: st.DataObject, meter: SimilarityMeter) -> None:
    depth, C = data.draw(st.integers(4, 12)), data.draw(st.integers(2, 4))
    scores = data.draw(st.lists(st.floats(-1, 1) | st.just(math.nan), min_size=depth, max_size=depth))
    absorbed, left = [], depth - 2
    while left and (count := data.draw(st.integers(0, min(C - 1, left)))):
        absorbed.append(count)
        left -= count
    with pytest.MonkeyPatch.context() as patch:
        spans = spans_at_once(patch, meter, scores, LacoSettings(C=C, I=1, lowest=0), absorbed)
    assert all(last - first < C for first, last in spans)
    assert all(below[1] <= above[0] for below, above in pairwise(spans))


# --- The ablations ---


def test_every_ablation_asks_and_answers(found: dict[str, Ablation]) -> None:
    assert set(found) == set(QUESTIONS)
    for name, ablation in found.items():
        assert (ablation.name, ablation.question) == (name, QUESTIONS[name])
        assert len(ablation.rows) >= 2
        assert len({row.label for row in ablation.rows}) == len(ablation.rows)


@pytest.mark.parametrize("name", ABLATIONS)
def test_rows_say_what_judge_and_meter_say(name: str, found: dict[str, Ablation], meter: SimilarityMeter, judge: Judge) -> None:
    for row in found[name].rows:
        assert judge.known(row.plan)
        assert row.evaluation == drain(judge.judge(row.plan))
        assert row.depth == row.plan.depth
        values = meter.measure(row.plan.blocks, row.plan.prefix).flattened
        assert row.similarity == fmean(values)
        assert row.folds


def test_drop_or_merge_folds_the_same_layers_under_every_rule(found: dict[str, Ablation], meter: SimilarityMeter) -> None:
    rows = found["drop-or-merge"].rows
    assert [row.settings.rule for row in rows] == list(RULES)
    assert len({row.depth for row in rows}) == 1
    plan = drain(propose(meter, SETTINGS)).plan
    assert rows[0].plan.blocks == plan.blocks
    assert len(plan.folds) > 1
    spans = [(block.home, block.mix[-1][0]) for block in plan.folds]
    for row in rows:
        assert row.plan.blocks == fold_spans(8, spans, row.settings.rule).blocks
    assert len({row.plan.blocks for row in rows}) == len(RULES) - 1  # at C = 2 Eq. 1 is what the code computes


def test_folds_of_folds_are_folded_again(meter: SimilarityMeter, judge: Judge) -> None:
    settings = LacoSettings(C=3, I=1, T=-0.5, lowest=3, highest=7)
    trials = [trial for trial in drain(propose(meter, settings)).trials if trial.accepted]
    assert [trial.pointer for trial in trials] == [4, 3]
    blocks = {row.settings.rule: row.plan.blocks for row in drain(ablate("drop-or-merge", meter, judge, settings)).rows}
    by_mean = fold(fold(untouched(8).blocks, 4, 3, "mean"), 3, 3, "mean")
    assert blocks["mean"] == by_mean != fold_spans(8, [(3, 7)], "mean").blocks
    assert blocks["reference"] == fold_spans(8, [(3, 7)], "reference").blocks


def test_at_once_and_iterative_are_of_one_depth(found: dict[str, Ablation], meter: SimilarityMeter) -> None:
    iterative, at_once_row = found["iterative-or-at-once"].rows
    proposal = drain(propose(meter, SETTINGS))
    assert iterative.plan == proposal.plan
    assert at_once_row.depth == iterative.depth < 8
    assert at_once_row.plan == drain(at_once(meter, SETTINGS, proposal))


def test_each_measure_accepts_down_to_the_same_depth(found: dict[str, Ablation], meter: SimilarityMeter) -> None:
    ablation = found["acceptance"]
    depth = drain(propose(meter, SETTINGS)).plan.depth
    first = ablation.rows[:3]
    assert [row.label for row in first] == ["accepted by cosine", "accepted by kl", "accepted by cka"]
    assert [row.depth for row in first] == [depth] * 3
    for row, other in zip(first, (meter, KLMeter(meter), CKAMeter(meter)), strict=True):
        assert drain(propose(other, row.settings)).plan.blocks == row.plan.blocks
        assert dict(row.plan.settings)["acceptance"] == row.label.split()[-1]


def test_the_measures_are_held_against_the_perplexity_ratio(found: dict[str, Ablation], meter: SimilarityMeter) -> None:
    ablation = found["acceptance"]
    mapped = ablation.rows[3:]
    depths = [row.depth for row in mapped]
    assert 3 <= len(mapped) <= 6
    assert len(set(depths)) == len(depths)
    assert 8 not in depths
    assert [entry.measure for entry in ablation.telling] == ["cosine", "kl", "cka"]
    for name, other in {"cosine": meter, "kl": KLMeter(meter), "cka": CKAMeter(meter)}.items():
        for row in ablation.rows:
            values = other.measure(row.plan.blocks, row.plan.prefix).flattened
            assert dict(row.measures)[name] == pytest.approx(fmean(values), abs=1e-12)
        entry = next(entry for entry in ablation.telling if entry.measure == name)
        values = tuple(dict(row.measures)[name] for row in mapped)
        assert (entry.lowest, entry.highest, entry.plans) == (min(values), max(values), len(mapped))
        assert entry.correlation == spearman([(dict(row.measures)[name], row.evaluation.perplexity.ratio) for row in mapped])


def test_of_plans_of_one_depth_the_one_of_the_highest_t_is_taken(meter: SimilarityMeter, judge: Judge) -> None:
    settings = LacoSettings(C=2, I=1, T=0.75, lowest=1)
    steps = drain(frontier(meter, settings, -0.5)).steps
    assert [step.proposal.plan.depth for step in steps].count(6) == 2
    first = next(step for step in steps if step.proposal.plan.depth == 6)
    assert drain(propose(meter, settings)).plan.blocks != first.proposal.plan.blocks
    rows = drain(ablate("acceptance", meter, judge, settings)).rows
    taken = [row for row in rows if row.depth == 6 and dict(row.plan.settings)["acceptance"] == "cosine"]
    assert [row.settings.T for row in taken] == [first.t_from] * 2
    assert [row.plan.blocks for row in taken] == [first.proposal.plan.blocks] * 2


@pytest.mark.parametrize(
    ("name", "values"),
    [("C", [2, 3, 4]), ("I", [1, 2, 3, 4]), ("T", [-0.05, -0.1, -0.15, -0.2, -0.25, -0.3, -0.35])],
)
def test_one_setting_varies_and_the_others_stay(name: str, values: list[float], found: dict[str, Ablation], meter: SimilarityMeter) -> None:
    rows = found[name].rows
    assert [getattr(row.settings, name) for row in rows] == pytest.approx(values)
    assert [row.label for row in rows] == [f"{name} = {value:g}" for value in values]
    for row in rows:
        assert replace(row.settings, **{name: getattr(SETTINGS, name)}) == SETTINGS.checked(8)
        assert drain(propose(meter, row.settings)).plan == row.plan


@pytest.mark.parametrize(
    ("settings", "name", "values"),
    [
        (LacoSettings(C=8, lowest=0), "C", [6, 7, 8]),
        (LacoSettings(I=1), "I", [1, 2, 3]),
        (LacoSettings(T=0.95), "T", [1.0, 0.95, 0.9, 0.85, 0.8]),
    ],
)
def test_values_stay_where_settings_may_be(
    settings: LacoSettings, name: str, values: list[float], meter: SimilarityMeter, judge: Judge
) -> None:
    rows = drain(ablate(name, meter, judge, settings)).rows
    assert [getattr(row.settings, name) for row in rows] == pytest.approx(values)


def test_calibrations_are_the_users_and_ours_and_halves(found: dict[str, Ablation], meter: SimilarityMeter, model: Model) -> None:
    rows = found["calibration"].rows
    assert [row.label for row in rows] == ["mine (yours)", "english", "korean", "english, first half", "english, second half"]
    english = bundled("english").texts
    texts = [TEXTS, english, bundled("korean").texts, english[: len(english) // 2], english[len(english) // 2 :]]
    for row, lines in zip(rows, texts, strict=True):
        own = SimilarityMeter(model, calibration_of(lines))
        assert drain(propose(own, SETTINGS)).plan == row.plan
        values = own.measure(row.plan.blocks, row.plan.prefix).flattened
        assert dict(row.measures) == {"on these texts": fmean(values)}
    assert dict(rows[0].measures)["on these texts"] == rows[0].similarity


def test_a_bundled_calibration_of_ones_own_is_asked_once(model: Model, judge: Judge) -> None:
    rows = drain(ablate("calibration", SimilarityMeter(model, bundled("english")), judge, SETTINGS)).rows
    assert [row.label for row in rows] == ["english (yours)", "korean", "english, first half", "english, second half"]


# --- Figures, words and refusals ---


@pytest.mark.parametrize(
    ("pairs", "value"),
    [
        ([(1, 10), (2, 20), (3, 15), (4, 40)], 0.8),  # 1 - 6 * (0 + 1 + 1 + 0) / (4 * 15)
        ([(0.9, 1.1), (0.8, 3.0), (0.1, math.inf)], -1.0),
        ([(1, 1), (2, 2), (2, 3), (3, 4)], 4.5 / math.sqrt(4.5 * 5)),  # the two 2s share rank 2.5
        ([(1, 1), (2, 2)], math.nan),
        ([(1, 1), (1, 2), (1, 3)], math.nan),
    ],
)
def test_spearman_by_hand(pairs: list[tuple[float, float]], value: float) -> None:
    assert spearman(pairs) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("name", ABLATIONS)
def test_progress_is_told_and_an_ablation_costs_nothing_twice(name: str, model: Model, judge: Judge, fresh_cache: Path) -> None:
    steps: list[Progress] = []
    meter, texts = SimilarityMeter(model, calibration_of(TEXTS, "mine")), calibration_of(JUDGED, "judged")
    once = drain(ablate(name, meter, Judge(model, texts, context=32, limit=60), SETTINGS), steps.append)
    fractions = [step.fraction or 0.0 for step in steps]
    assert all(0.0 <= fraction <= 1.0 for fraction in fractions)
    assert fractions == sorted(fractions)
    assert any("Evaluating the plan" in step.label for step in steps)
    again: list[Progress] = []
    meter = SimilarityMeter(model, calibration_of(TEXTS, "mine"))
    assert drain(ablate(name, meter, Judge(model, texts, context=32, limit=60), SETTINGS), again.append) == once
    assert again == []


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_terminal_gets_every_row(name: str, found: dict[str, Ablation]) -> None:
    value = json.loads(json.dumps(ablation_to_json(found[name])))
    assert (value["name"], value["question"]) == (name, QUESTIONS[name])
    assert ("telling" in value) == (name == "acceptance")
    for entry, row in zip(value["rows"], found[name].rows, strict=True):
        assert (entry["label"], entry["depth"], entry["folds"]) == (row.label, row.depth, list(row.folds))
        assert (entry["similarity"], entry["ratio"], entry["kl"]) == (row.similarity, row.evaluation.perplexity.ratio, row.evaluation.kl)
        assert entry["settings"]["C"] == row.settings.C
        assert len(entry["plan"]["blocks"]) == row.depth


def test_a_name_that_is_none_is_refused(meter: SimilarityMeter, judge: Judge) -> None:
    with pytest.raises(SettingsError, match="unknown ablation 'H'; choose one of drop-or-merge, iterative-or-at-once"):
        ablate("H", meter, judge, SETTINGS)


def test_settings_are_looked_at_before_anything_runs(meter: SimilarityMeter, judge: Judge) -> None:
    with pytest.raises(SettingsError, match="C is 9"):
        ablate("I", meter, judge, LacoSettings(C=9))


@pytest.mark.parametrize("name", ["drop-or-merge", "iterative-or-at-once", "acceptance"])
def test_nothing_folded_is_nothing_to_compare(name: str, meter: SimilarityMeter, judge: Judge) -> None:
    with pytest.raises(SettingsError, match="no fold is accepted at T = 1, so there is nothing to compare; lower T"):
        drain(ablate(name, meter, judge, replace(SETTINGS, T=1.0)))
