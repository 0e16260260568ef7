"""Settings of the methods, each with what a control needs to know of it. Imports no torch, so that help is quick."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from engine.errors import SettingsError
from engine.plans.rules import RULES
from engine.types import SimilarityDefinition

DEFINITIONS: tuple[SimilarityDefinition, ...] = ("flattened", "per-token")


def _about(help: str, low: float | None = None, high: float | None = None, step: float | None = None) -> Mapping[str, Any]:
    return {"help": help, "low": low, "high": high, "step": step}


@dataclass(frozen=True, slots=True)
class LacoSettings:
    """Everything LaCo's Algorithm 1 depends on besides the model and the texts. Layers are counted from 0.

    `lowest` (L) is the lowest base tried, `highest` (H) the exclusive end of the first window; None means the depth.
    """

    C: int = field(
        default=4, metadata=_about("layers in one fold; C - 1 are absorbed. Higher folds deeper at once (paper: 3 to 6)", 2, 8, 1)
    )
    I: int = field(
        default=2, metadata=_about("layers to step down after an accepted fold; higher spreads the folds (paper: 1 to 3)", 1, 8, 1)
    )
    T: float = field(
        default=0.65,
        metadata=_about(
            "a fold is kept when similarity stays strictly above T; lower removes more layers (paper: about 0.65)", -1.0, 1.0, 0.0001
        ),
    )
    lowest: int = field(default=1, metadata=_about("L: the lowest layer that may become a base; early layers matter most", 0, None, 1))
    highest: int | None = field(
        default=None, metadata=_about("H: the first window ends below this layer; the depth when left out", 1, None, 1)
    )
    rule: str = field(
        default="reference",
        metadata=_about("how folded layers become one: reference (what LaCo's code computes), paper (Eq. 1), mean, keep-first, keep-last"),
    )
    similarity: SimilarityDefinition = field(
        default="flattened", metadata=_about("flattened (one cosine a text, as LaCo's code) or per-token (the tokens' mean)")
    )

    def checked(self, depth: int) -> "LacoSettings":
        """Return the settings for a model of this depth, `highest` filled in.

        Raises:
            SettingsError: a value lies outside what Algorithm 1 and this depth allow.
        """
        highest = depth if self.highest is None else self.highest
        if not 2 <= self.C <= depth:
            raise SettingsError(f"C is {self.C}; it must lie between 2 and the model's depth, {depth}")
        if self.I < 1:
            raise SettingsError(f"I is {self.I}; it must be at least 1")
        if not -1.0 <= self.T <= 1.0:  # also refuses NaN
            raise SettingsError(f"T is {self.T}; it must be a number between -1 and 1")
        if not 0 <= self.lowest < depth:
            raise SettingsError(f"L is {self.lowest}; it must lie between 0 and {depth - 1}")
        if not 1 <= highest <= depth:
            raise SettingsError(f"H is {highest}; it must lie between 1 and the model's depth, {depth}")
        if self.lowest > highest:
            raise SettingsError(f"L ({self.lowest}) lies above H ({highest})")
        if self.rule not in RULES:
            raise SettingsError(f"unknown rule '{self.rule}'; choose one of {', '.join(RULES)}")
        if self.similarity not in DEFINITIONS:
            raise SettingsError(f"unknown similarity '{self.similarity}'; choose one of {', '.join(DEFINITIONS)}")
        return LacoSettings(self.C, self.I, float(self.T), self.lowest, highest, self.rule, self.similarity)

    def items(self) -> tuple[tuple[str, Any], ...]:
        """Return name and value of each setting, in order."""
        return tuple((f.name, getattr(self, f.name)) for f in fields(self))


def about(name: str) -> Mapping[str, Any]:
    """Return help, low, high and step of one of LacoSettings' fields."""
    return next(entry.metadata for entry in fields(LacoSettings) if entry.name == name)
