"""The estimated work of a repair against the passes it runs."""

import math
from collections.abc import Callable

import pytest

from engine.judge.objectives import Objective
from engine.methods.depth.baselines import plan_of_kept
from engine.models.texts import calibration_of
from engine.recover.repair.runtime_estimate import effort, judging
from engine.recover.repair.seam_maps import REPAIRS, RepairSettings, choices, repair, seconds_for
from engine.types import Model
from tests.families import TEXTS

LINES = tuple(f"{text} {number}" for number in range(40) for text in TEXTS)


def test_the_work_is_about_what_a_repair_runs(tiny: Callable[..., Model]) -> None:
    """Counted in blocks, the heads left aside."""
    model, plan = tiny("llama"), plan_of_kept(6, (0, 2, 3, 5), "hand-made")
    objective = Objective(model, calibration_of(LINES), limit=3000)
    steps = list(repair(objective, plan))
    block, head = model.spec.block_parameters[0], model.network.get_output_embeddings().weight.numel()
    work = effort(model, plan, choices("ridge"), objective.tokens)
    held = work.judged[0] / (block * plan.depth + head)  # the first seam is after the first block
    heads = held * head * (2 + choices("ridge") * len(work.judged))
    assert (work.total - heads) / block / objective.tokens == pytest.approx(objective.forwards, rel=0.25)
    fractions = [step.fraction for step in steps if step.fraction is not None]
    assert len(fractions) == len(steps) > 12
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1] < 1) == (0, True)


def test_each_kind_says_how_many_maps_it_chooses_from() -> None:
    assert {kind: choices(kind) for kind in REPAIRS} == {"ridge": 5, "refit": 0, "scalar": 1}


def test_the_time_goes_with_the_pace_of_the_models_last_passes(tiny: Callable[..., Model]) -> None:
    model, plan = tiny("llama", seed=7), plan_of_kept(6, (0, 2, 3, 5), "hand-made")
    assert math.isnan(model.pace)
    assert math.isnan(seconds_for(model, plan, "ridge", 1000))
    objective = Objective(model, calibration_of(LINES), limit=1000)
    assert objective.record(0).pack.ids.shape[1] > 0
    assert 0 < model.pace < 1e-3
    alone, judged = seconds_for(model, plan, "ridge", 1000), seconds_for(model, plan, "ridge", 1000, judged=500)
    assert judged - alone == pytest.approx(model.pace * judging(model, plan, 500))
    assert seconds_for(model, plan, "ridge", 4000) > 3 * alone
    usual = model.paces[0]
    model.paces.extend([1.1 * usual, 10 * usual])  # a pass that fell into a busy moment
    assert model.pace == pytest.approx(1.1 * usual)


def test_a_plan_without_a_seam_takes_one_pass(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    work = effort(model, plan_of_kept(6, range(6), "hand-made"), 5, 1000)
    assert (work.source, work.fits, work.judged) == (1000 * sum(model.spec.block_parameters), (), ())


def test_a_repair_uses_all_the_bundled_texts_by_default(demo: Model) -> None:
    from engine.models.texts import BUNDLED, bundled

    for language in BUNDLED:
        objective = Objective(demo, bundled(language, "practice"), limit=RepairSettings().tokens)
        assert objective.protocol.tokens < RepairSettings().tokens
