"""The controls that make up the page's state: the address bar holds them, undo restores them, presets set them."""

import json
import re
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qs

from engine.methods.depth.laco import DEFINITIONS, LacoSettings
from engine.models.sources import DTYPES
from engine.models.texts import BUNDLED
from engine.plans.rules import RULES
from engine.settings import about

TEXTS = (*BUNDLED, "own")  # a link cannot hold own texts


def texts_in(language: str) -> str:
    """Return the default bundled texts of a page in this language."""
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
FIRST = dict(zip(_SETTINGS, PRESETS["balanced"], strict=True))  # initial values where a link names no setting


@dataclass(frozen=True)
class PageState:
    """The state that a link holds. Field names are the query's keys; see `LacoSettings` for the settings."""

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
        """Return the method's settings. H stays None where it means the model's depth."""
        return LacoSettings(self.C, self.I, 1.0, self.L, self.H, self.rule, self.similarity)  # type: ignore[arg-type]


_CHOICES = {"dtype": DTYPES, "rule": tuple(RULES), "similarity": DEFINITIONS, "plan": PLANS}
_DEVICE = re.compile(r"cpu|mps|cuda(:\d{1,3})?")
_RANGES = {
    key: (about(LacoSettings, name)["low"], about(LacoSettings, name)["high"] or 10_000)
    for key, name in {"T": "T", "C": "C", "I": "I", "L": "lowest", "H": "highest"}.items()
}


def state_from_query(query: str, model: str, texts: str = "english", own: bool = False) -> PageState:
    """Read a link's query. Missing or invalid values fall back to their defaults, so a link always opens.

    If the query names any setting, the other settings default to the paper's values; if it names none, the page opens on the preset
    "balanced". `texts` is the page's default; `own` says that this browser tab has its own texts, which no link holds.
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
            value = "cuda:0" if text == "cuda" else text  # opening the model reports a device that this machine lacks
        elif entry.name in choices and text not in choices[entry.name]:
            continue
        else:
            value = text if entry.name != "spans" else json.dumps(read_spans(text))
        found[entry.name] = value
    return PageState(**found)


def read_spans(text: str) -> list[list[int]]:
    """Read the (first, last) spans of a hand-made plan. Invalid text gives an empty list."""
    try:
        spans = [[int(first), int(last)] for first, last in json.loads(text)]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []
    return spans if all(0 <= first < last for first, last in spans) else []
