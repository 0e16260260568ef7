"""A slider that never refuses: what lies outside its range is cut to it."""

from abc import ABCMeta
from typing import Any

import gradio as gr


class _Plain(type(gr.Slider)):  # type: ignore[misc]
    """Gradio's own metaclass writes a stub beside every component's source; there is nothing to write here."""

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> Any:
        return ABCMeta.__new__(cls, name, bases, attributes)


class Slider(gr.Slider, metaclass=_Plain):
    """Gradio's slider, but for what it does with a value outside its range: Gradio answers with an error, and a value that
    was sent before a model of another depth moved the range is nobody's mistake."""

    is_template = True  # the front end draws it as the slider it is

    def preprocess(self, payload: float | None) -> float:
        """Return the value, cut to the range; the lower end where the number box was emptied."""
        return super().preprocess(min(max(self.minimum if payload is None else payload, self.minimum), self.maximum))
