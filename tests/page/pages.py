"""A page without a browser: calls its handlers as Gradio does."""

import json
from pathlib import Path
from typing import Any

import gradio as gr

from ui.page.handlers.page_handlers import Handlers
from ui.page.sessions import Sessions

KEY = "0123456789abcdef" * 2
SLIDERS = ("highest", "lowest", "width", "target", "plan", "spans")
SETTINGS = (2, 1, 0, 6, "reference", "flattened")  # C, I, L, H, rule, similarity
# What enter answers, in order; the status, the cancel button and the timer follow.
ENTERED = ("session", "seen", "model", "dtype", "device", "texts", "T", "C", "I", "L", "H", "rule", "similarity", "plan", "spans", "open")


class Page:
    """The handlers of a page, and what a browser would have: a key and the serial number of the last news."""

    def __init__(self, folder: Path, exports: Path, language: str = "en") -> None:
        self.sessions = Sessions(exports)
        self.on = Handlers(self.sessions, str(folder), {name: gr.Slider(0, 30) for name in SLIDERS}, language)

    def enter(self, key: str = KEY, query: str = "") -> dict[str, Any]:
        answer = self.on.enter(key, query)
        assert len(answer) == len(ENTERED) + 3
        return {**dict(zip(ENTERED, answer, strict=False)), "status": json.loads(answer[-3])}

    def tell(self, seen: int = 0) -> dict[str, Any]:
        """What the timer brings: the views that are told something, by name, are in `views`."""
        status, _, timer, serial, news, *moved, session = self.on.poll(KEY, seen)
        views = {} if news == gr.skip() else json.loads(news)["views"]
        told = {"status": json.loads(status), "timer": timer, "serial": serial, "session": session, "views": views}
        return {**told, **dict(zip(SLIDERS, moved, strict=True))}

    def shown(self, chart: str, prop: str) -> Any:
        return json.loads(self.tell()["views"][chart][prop])

    def problem(self, answer: list[Any]) -> str | None:
        return json.loads(answer[0])["problem"]
