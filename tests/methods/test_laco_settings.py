import math
from dataclasses import fields
from typing import Any

import pytest

from engine.errors import SettingsError
from engine.methods.depth.laco import LacoSettings
from engine.settings import about


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"C": 1}, "C is 1"),
        ({"C": 0}, "C is 0"),
        ({"C": 7}, "C is 7"),
        ({"I": 0}, "I is 0"),
        ({"I": -1}, "I is -1"),
        ({"T": math.nan}, "T is nan"),
        ({"T": math.inf}, "T is inf"),
        ({"T": 1.01}, r"T is 1\.01"),
        ({"T": -1.01}, r"T is -1\.01"),
        ({"lowest": -1}, "L is -1"),
        ({"lowest": 6}, "L is 6"),
        ({"highest": 0}, "H is 0"),
        ({"highest": 7}, "H is 7"),
        ({"lowest": 4, "highest": 3}, r"L \(4\) must not exceed H \(3\)"),
        ({"rule": "median"}, "unknown rule 'median'.*keep-last"),
        ({"similarity": "euclidean"}, "unknown similarity 'euclidean'.*per-token"),
    ],
)
def test_values_outside_the_algorithm_are_refused_with_what_they_are(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        LacoSettings(**changes).checked(6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("C", 2), ("C", 6), ("I", 1), ("T", 1.0), ("T", -1.0), ("lowest", 0), ("lowest", 5), ("highest", 1), ("highest", 6)],
)
def test_values_at_the_edge_are_taken(name: str, value: Any) -> None:
    checked = LacoSettings(**{name: value}).checked(6)
    assert getattr(checked, name) == value
    assert checked.highest == (value if name == "highest" else 6)


def test_checking_changes_nothing_else() -> None:
    settings = LacoSettings(3, 1, 0.5, 0, 5, "mean", "per-token")
    assert settings.checked(6) == settings
    assert settings.items() == (
        ("C", 3),
        ("I", 1),
        ("T", 0.5),
        ("lowest", 0),
        ("highest", 5),
        ("rule", "mean"),
        ("similarity", "per-token"),
    )


@pytest.mark.parametrize("name", [field.name for field in fields(LacoSettings)])
def test_every_setting_tells_a_control_what_it_needs(name: str) -> None:
    told, default = about(LacoSettings, name), getattr(LacoSettings(), name)
    assert len(told["help"]) > 20
    if told["low"] is not None:
        assert default is None or told["low"] <= default
        assert told["high"] is None or default is None or default <= told["high"]
        assert told["step"] > 0
        low = LacoSettings(**{name: told["low"]})
        assert getattr(low.checked(8), name) == told["low"]
