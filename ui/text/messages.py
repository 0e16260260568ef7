"""Korean translations of errors and progress, from the rows of ui/text/mistakes*.py and ui/text/steps.py.

Errors and progress are raised in English, and the terminal prints them in English. A sentence without a row stays English.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from string import Formatter
from typing import Any

from ui.text.mistakes import MISTAKES
from ui.text.mistakes_gguf import GGUF_MISTAKES
from ui.text.mistakes_learning import LEARNING_MISTAKES
from ui.text.steps import STEPS

_KOREAN = MISTAKES | GGUF_MISTAKES | LEARNING_MISTAKES | STEPS


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Every sentence as a pattern, the one with the most words of its own first."""
    longest = sorted(_KOREAN, key=lambda english: len(english.replace("{}", "")), reverse=True)
    return [(_pattern(english), _KOREAN[english]) for english in longest]


def _pattern(english: str) -> re.Pattern[str]:
    parts = [re.escape(literal) + ("(.*?)" if field is not None else "") for literal, field, *_ in Formatter().parse(english)]
    return re.compile("".join(parts), re.DOTALL)


def in_korean(message: str) -> str:
    """Return a sentence of ours in Korean, with what it is told of; one that has no row as it is."""
    for pattern, korean in _patterns():
        if found := pattern.fullmatch(message):
            return korean.format(*map(in_korean, found.groups()))
    return message


def teller(language: str) -> Callable[[str], str]:
    """Return what turns an error's words into a language."""
    return in_korean if language == "ko" else str


# What a plan's method is called in a table.
_METHODS = {
    "bi": ("block influence", "블록 영향도(BI)"),
    "angular": ("contiguous angular", "연속 각거리"),
    "sleb": ("greedy (SLEB)", "그리디 (SLEB)"),
    "tail": ("last layers", "마지막 레이어"),
    "random": ("random", "무작위"),
    "search": ("search", "탐색"),
    "shapes": ("shapes", "형상 탐색"),
    "sheared": ("Sheared LLaMA", "Sheared LLaMA"),
    "hand-made": ("by hand", "수동"),
    "laco": ("LaCo", "LaCo"),
    "laco-folds": ("LaCo's folds", "LaCo의 병합"),
    "laco-at-once": ("LaCo at once", "LaCo 일괄 병합"),
}
_METHOD = re.compile(rf"^(file \()?({'|'.join(_METHODS)})(?=$|\)$|, (?:repaired|trimmed|pruned))")


def label_teller(language: str) -> Callable[[str], str]:
    """Return what turns the name of a table's row into a language: methods in words, the rest as `teller` does."""

    def tell(label: str) -> str:
        named = _METHOD.sub(lambda found: (found[1] or "") + _METHODS[found[2]][language == "ko"], label)
        return teller(language)(named)

    return tell


def labels_told(data: str, tell: Callable[[str], str]) -> str:
    """Return a table's JSON with the names of its rows and measures, and what went wrong, told in a language; one of somebody else's stays as it is."""

    def told(row: dict[str, Any]) -> dict[str, Any]:
        return {key: tell(value) if key in ("label", "measure", "error") else value for key, value in row.items()}

    return data and json.dumps(json.loads(data, object_hook=told))
