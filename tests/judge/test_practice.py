"""Texts that plans are fitted on and texts that costs are measured on are disjoint."""

from collections.abc import Callable

import pytest

from engine.judge.cost import SLICE_TEXTS, cost_judge
from engine.judge.practice import practice_packs
from engine.models.texts import BUNDLED, bundled, calibration_of
from engine.types import Model


@pytest.mark.parametrize("language", BUNDLED)
def test_no_sequence_that_is_fitted_gives_a_cost(language: str, tiny: Callable[..., Model]) -> None:
    model, texts = tiny("llama"), bundled(language, "practice")
    judged = {text for pack in cost_judge(model, language).packs for text, _, _ in pack.spans}
    assert judged <= set(range(SLICE_TEXTS))
    fitted = practice_packs(model, texts, 3000)
    own = practice_packs(model, calibration_of(texts.texts[SLICE_TEXTS:], "mine"), 3000)
    assert [pack.ids.tolist() for pack in fitted] == [pack.ids.tolist() for pack in own]
