"""The record of a run: what earlier versions wrote is read and written again as it was."""

import copy
import json
import math
from typing import Any

import pytest

from engine.recover.run.records import LearningRecord, ShearingRecord, run_from_json, run_to_json
from engine.untrusted import ForeignError

SOURCE = {"kind": "folder", "location": "/m", "revision": None, "dtype": "auto", "device": "cpu", "trust_remote_code": False}
RECIPE = {
    "steps": 1, "rate": 0.003, "rows": 4, "length": 32, "accumulate": 1, "clip": 1.0, "decay": 0.0, "seed": 0, "recompute": False,
    "autocast": "", "warmup": 0.05, "floor": 0.05,
}  # fmt: skip
GAP = {"perplexity": 9.5, "source": 3.25, "ratio": 2.5, "low": None, "high": None, "tokens": 50}
BEGUN: dict[str, Any] = {
    "layerscope": 1, "source": SOURCE, "name": "m", "plan": {"method": "hand-made", "depth": 4, "of": 6, "parameters": 900},
    "text": ["self", "/t.txt"], "own": {"tokens": 30000, "seed": 0, "length": 256, "together": 32}, "train": "all", "loss": "kl",
    "teacher": "auto", "correct_teacher": 0.0, "top": 64, "budget": {"tokens": 20000}, "until": None, "language": "english",
    "measure": False, "track": "none", "update": "none", "every": 50, "known_references": {}, "asked": RECIPE,
}  # fmt: skip
DONE = {
    **BEGUN, "until": 1.25, "budget": {"minutes": 0.5}, "known_references": {"news": 2.5}, "fingerprint": "a", "corpus": "b",
    "recipe": {**RECIPE, "steps": 6, "autocast": "bfloat16"}, "seconds_a_step": 0.25, "memory": 1000,
    "source_scores": {"kind": [[0, 11, 1.5], [2, 3, None]]}, "quick_scores": {"kind": [[0, 11, 1.5]]}, "references": {"news": 2.5},
    "missing": 0.125, "best": 0, "before": {"kind": GAP, "other": GAP}, "after": {"kind": GAP, "other": GAP}, "track_error": "gone",
    "correction": {"before": 3.5, "after": 3.25, "ratio": 0.5, "best": 2, "tokens": 64, "seconds": 1.5, "used": True},
    "checks": [{"name": "loads", "passed": True, "detail": "", "ran": True}],
}  # fmt: skip
SETTINGS = {
    "tokens": 48, "loss": "ce", "rate": 0.0001, "pull": 1.0, "ramp": 0.2, "settle": 0.1, "rows": 1, "length": 16, "accumulate": 1,
    "seed": 0, "own": 30000, "every": 50, "update": "as printed", "references": None,
}  # fmt: skip
SHEARED = {
    "shear": "f", "target": {"neurons": 24}, "text": ["/t.txt"], "settings": SETTINGS, "name": "m", "source": SOURCE, "depth": 6,
    "references": {"t": 2.5}, "autocast": "",
}  # fmt: skip


@pytest.mark.parametrize(("kept", "kind"), [(BEGUN, LearningRecord), (DONE, LearningRecord), (SHEARED, ShearingRecord)])
def test_what_was_written_is_read_and_written_again_as_it_was(kept: dict[str, Any], kind: type) -> None:
    record = run_from_json(kept)
    assert isinstance(record, kind)
    assert json.dumps(run_to_json(record), sort_keys=True) == json.dumps(kept, sort_keys=True)
    assert run_from_json({**kept, "of a later version": [1]}) == record or kept is DONE  # NaN is unlike itself


def test_null_is_no_number() -> None:
    record = run_from_json(DONE)
    assert isinstance(record, LearningRecord)
    assert record.after is not None
    assert math.isnan(record.after["kind"].low)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("train",), 1, "train: Input should be a valid string"),
        (("plan", "depth"), "4", "plan depth: Input should be a valid integer"),
        (("asked", "rows"), 2.5, "asked rows: Input should be a valid integer"),
        (("measure",), 0, "measure: Input should be a valid boolean"),
        (("before", "kind", "ratio"), "x", "before kind ratio: Input should be a valid number"),
        (("source", "kind"), "x", "source kind: Input should be 'demo'"),
        (("source_scores", "kind"), {}, "source_scores kind: Input should be a valid array"),
    ],
)
def test_a_value_of_another_type_is_named(place: tuple[str, ...], value: Any, told: str) -> None:
    kept = copy.deepcopy(DONE)
    holder: Any = kept
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    with pytest.raises(ForeignError, match=f"^{told}"):
        run_from_json(kept)
    del holder[place[-1]]
    if holder is kept and place[0] in BEGUN:
        with pytest.raises(ForeignError, match=f"^{place[0]}: Field required"):
            run_from_json(kept)
