"""The card and the report name the method, settings, texts and refits of each part of a plan."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.export.provenance import Provenance
from engine.export.report.figures import bytes_of
from engine.export.report.html import _fitted_to, _settings
from engine.jobs import drain
from engine.judge.memory import memory_of
from engine.judge.practice import practice_packs
from engine.judge.speed import measure_speed
from engine.methods.depth.baselines import baseline
from engine.methods.masks.pruning import prune
from engine.methods.masks.selection import Wanted
from engine.methods.width.settings import TrimSettings
from engine.methods.width.widths import trim
from engine.models.texts import calibration_of, tokens_in
from engine.plans.files import plan_from_json, plan_to_json
from engine.plans.provenance import Made, made
from engine.plans.rules import fold_spans, untouched
from engine.types import Model, Plan
from tests.export.test_report import report_of, words
from tests.exporting import write
from tests.repairing import TEXTS, objective_of

PRACTICE = calibration_of(TEXTS, "our practice")


@pytest.fixture
def three(tiny: Callable[..., Model]) -> tuple[Model, Plan]:
    """A plan of depth, width and masks, and its model."""
    model = tiny("llama")
    packs = practice_packs(model, PRACTICE, 700)
    plan = drain(baseline(objective_of(model), "bi", 5))
    plan = drain(trim(model, plan, packs, TrimSettings(neurons=24, score="minitron")))
    return model, drain(prune(model, plan, packs, "wanda", Wanted(0.5)))


def test_each_part_says_how_it_came_to_be_and_says_it_still_from_a_file(three: tuple[Model, Plan]) -> None:
    model, plan = three
    tokens = tokens_in(practice_packs(model, PRACTICE, 700))
    depth, width, masks = made(plan_from_json(plan_to_json(plan)))
    assert depth == Made("depth", "bi", (("keep", 5),), "texts", objective_of(model).protocol.tokens, False)
    assert (width.part, width.method, width.texts, width.tokens, width.refit) == ("width", "minitron", "our practice", tokens, True)
    assert dict(width.settings) == {"neurons": 24, "batch": "l2", "sequence": "mean"}
    assert (masks.part, masks.method, masks.texts, masks.tokens, masks.refit) == ("masks", "wanda", "our practice", tokens, False)
    assert dict(masks.settings)["sparsity"] == 0.5
    hand = fold_spans(6, [(1, 2)], "mean")
    assert made(hand) == (Made("depth", "hand-made", hand.settings, "", None, False),)


def test_the_card_tells_them(three: tuple[Model, Plan], tmp_path: Path) -> None:
    model, plan = three
    tokens = tokens_in(practice_packs(model, PRACTICE, 700))
    card = (write(model, plan, tmp_path / "out") / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert f"Method: bi; read texts, {objective_of(model).protocol.tokens:,} tokens." in card
    read = f"read our practice, {tokens} tokens"
    assert f"Width: minitron, neurons = 24, batch = l2, sequence = mean; {read}; projections that read pruned parts: refitted." in card
    assert f"Masks: wanda, sparsity = 0.5, group = output, sequential = False, owl = False; {read}." in card
    assert "Speed on" not in card  # nobody measured it


def test_the_card_tells_the_speed_that_was_measured_and_the_weights(three: tuple[Model, Plan], tmp_path: Path) -> None:
    model, plan = three
    speed = drain(measure_speed(model, plan, prompt_tokens=8, new_tokens=2, rounds=2))
    known = Provenance(speed=speed, memory=memory_of(model, plan, 64))
    card = (write(model, plan, tmp_path / "out", known=known) / "README.md").read_text(encoding="utf-8")
    low, high = speed.decode_range
    assert f"decoding {speed.decode_ratio:.2f} ({low:.2f} to {high:.2f} over 2 rounds), reading a prompt {speed.prefill_ratio:.2f}" in card
    assert f"Weights: {bytes_of(memory_of(model, plan, 64).plan_weights)}, the source's {bytes_of(model.spec.bytes)}." in card
    assert "neither size nor speed changes" in card


def test_the_report_tells_them_and_knows_the_texts_that_were_fitted_to(three: tuple[Model, Plan]) -> None:
    model, plan = three
    told = _settings(model.source, model.fingerprint, plan, None)
    assert (told["method"], told["width: method"], told["masks: method"]) == ("bi", "minitron", "wanda")
    assert (told["width: texts"], told["width: refit"], told["masks: sparsity"]) == ("our practice", True, 0.5)
    page = report_of(model, plan=plan, frontier=None)
    assert "The least important heads, neurons or channels were pruned too. Individual weights were set to zero." in words(page)
    assert "zero weights save neither memory nor time" in words(page)
    assert "6 layers to 5" in words(page)
    narrow = drain(trim(model, untouched(6), practice_packs(model, PRACTICE, 700), TrimSettings(neurons=24, compensation="nothing")))
    assert f"{model.spec.name}, pruned" in words(report_of(model, plan=narrow, frontier=None))
    assert {PRACTICE.fingerprint, calibration_of(TEXTS).fingerprint} <= _fitted_to(plan, {})
