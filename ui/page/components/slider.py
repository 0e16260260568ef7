"""A slider that clips values to its range instead of refusing them."""

from abc import ABCMeta
from typing import Any

import gradio as gr


class _Plain(type(gr.Slider)):  # type: ignore[misc]
    """Stops Gradio's own metaclass from writing a stub file next to the component's source."""

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> Any:
        return ABCMeta.__new__(cls, name, bases, attributes)


class Slider(gr.Slider, metaclass=_Plain):
    """Gradio's slider without the error for values outside its range: such a value may have been sent before another model's depth moved
    the range."""

    is_template = True  # the front end draws it as gr.Slider

    def preprocess(self, payload: float | None) -> float:
        """Return the value, clipped to the range; the minimum where the number box is empty."""
        return super().preprocess(min(max(self.minimum if payload is None else payload, self.minimum), self.maximum))
