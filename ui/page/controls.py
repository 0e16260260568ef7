"""The controls that make up the page's state: what is in the address bar, what undo brings back, what presets set."""

import json
import re
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qs

from engine.methods.laco import DEFINITIONS, LacoSettings
from engine.models.sources import DTYPES
from engine.models.texts import BUNDLED
from engine.plans.rules import RULES
from engine.settings import about

TEXTS = (*BUNDLED, "own")  # own texts are not in a link


def texts_in(language: str) -> str:
    """Return the bundled texts that a page in this language starts with."""
    return {"ko": "korean"}.get(language, "english")


PLANS = ("map", "hand-made", "file", "found")

# Presets in the order T, C, I, L, H, rule, similarity; None for H is the model's depth.
PRESETS: dict[str, tuple[float, int, int, int, int | None, str, str]] = {
    "gentle": (0.90, 2, 2, 1, None, "keep-first", "flattened"),
    "balanced": (0.80, 3, 2, 1, None, "keep-last", "flattened"),
    "aggressive": (0.55, 5, 1, 1, None, "reference", "flattened"),
    "paper_preset": (0.65, 4, 2, 1, None, "reference", "flattened"),
}


_SETTINGS = ("T", "C", "I", "L", "H", "rule", "similarity")
FIRST = dict(zip(_SETTINGS, PRESETS["balanced"], strict=True))  # what a link that names no setting opens on


@dataclass(frozen=True)
class PageState:
    """What a link holds. Names are the query's; see `LacoSettings` for the settings."""

    model: str = "demo"
    dtype: str = "auto"
    device: str = "cpu"
    texts: str = "english"
    T: float = 0.65
    C: int = 4
    I: int = 2
    L: int = 1
    H: int | None = None
    rule: str = "reference"
    similarity: str = "flattened"
    plan: str = "map"
    spans: str = "[]"

    def settings(self) -> LacoSettings:
        """Return the method's settings; H stays None where the depth is meant."""
        return LacoSettings(self.C, self.I, 1.0, self.L, self.H, self.rule, self.similarity)  # type: ignore[arg-type]


_CHOICES = {"dtype": DTYPES, "rule": tuple(RULES), "similarity": DEFINITIONS, "plan": PLANS}
_DEVICE = re.compile(r"cpu|mps|cuda(:\d{1,3})?")
_RANGES = {
    key: (about(LacoSettings, name)["low"], about(LacoSettings, name)["high"] or 10_000)
    for key, name in {"T": "T", "C": "C", "I": "I", "L": "lowest", "H": "highest"}.items()
}


def state_from_query(query: str, model: str, texts: str = "english", own: bool = False) -> PageState:
    """Read a link's query; what is missing or makes no sense falls back to the default, so that a link always opens.

    The defaults beside a setting that is named are the paper's; with none named the page opens on a plan worth showing.
    `texts` is the page's default; `own` where this tab of the browser has texts of its own, which no link holds.
    """
    given = {key: values[-1] for key, values in parse_qs(query.lstrip("?")).items()}
    choices = {**_CHOICES, "texts": TEXTS if own else BUNDLED}
    found: dict[str, Any] = {"model": model, "texts": texts} | ({} if set(given) & set(_SETTINGS) else FIRST)
    for entry in fields(PageState):
        text = given.get(entry.name, "")
        if not text:
            continue
        if entry.name in _RANGES:
            low, high = _RANGES[entry.name]
            try:
                value: Any = float(text) if entry.name == "T" else int(text)
            except ValueError:
                continue
            if not low <= value <= high:
                continue
        elif entry.name == "device":
            if not _DEVICE.fullmatch(text):
                continue
            value = "cuda:0" if text == "cuda" else text  # one of this machine or not: opening it says so
        elif entry.name in choices and text not in choices[entry.name]:
            continue
        else:
            value = text if entry.name != "spans" else json.dumps(read_spans(text))
        found[entry.name] = value
    return PageState(**found)


def read_spans(text: str) -> list[list[int]]:
    """Read the spans (first, last) of a hand-made plan; none where the text makes no sense."""
    try:
        spans = [[int(first), int(last)] for first, last in json.loads(text)]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []
    return spans if all(0 <= first < last for first, last in spans) else []
