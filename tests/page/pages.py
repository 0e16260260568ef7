"""A page without a browser: its handlers, asked as Gradio asks them."""

import json
from pathlib import Path
from typing import Any

import gradio as gr

from ui.page.components.chart import view
from ui.page.handlers import Handlers
from ui.page.sessions import Sessions

KEY = "0123456789abcdef" * 2
CHARTS = ("similarity", "landscape", "norms", "weights", "fold", "spec", "report", "summary", "board", "recovery")
SLIDERS = ("highest", "lowest", "width", "target", "plan", "spans")
SETTINGS = (2, 1, 0, 6, "reference", "flattened")  # C, I, L, H, rule, similarity
# What enter answers, in order; the status, the cancel button and the timer follow.
ENTERED = ("session", "seen", "model", "dtype", "device", "texts", "T", "C", "I", "L", "H", "rule", "similarity", "plan", "spans", "open")


class Page:
    """The handlers of a page, and what a browser would have: a key and the serial number of the last news."""

    def __init__(self, folder: Path, exports: Path, language: str = "en") -> None:
        self.sessions = Sessions(exports)
        charts = {name: view(name, language, 100) for name in CHARTS}
        self.on = Handlers(self.sessions, str(folder), charts, {name: gr.Slider(0, 30) for name in SLIDERS}, language)

    def enter(self, key: str = KEY, query: str = "") -> dict[str, Any]:
        answer = self.on.enter(key, query)
        assert len(answer) == len(ENTERED) + 3
        return {**dict(zip(ENTERED, answer, strict=False)), "status": json.loads(answer[-3])}

    def tell(self, seen: int = 0) -> dict[str, Any]:
        status, _, timer, serial, *rest, session = self.on.tell(KEY, seen)
        told = {"status": json.loads(status), "timer": timer, "serial": serial, "session": session}
        return {**told, **dict(zip((*CHARTS, *SLIDERS), rest, strict=True))}

    def shown(self, chart: str, prop: str) -> Any:
        return json.loads(self.tell()[chart].props[prop])

    def problem(self, answer: list[Any]) -> str | None:
        return json.loads(answer[0])["problem"]
