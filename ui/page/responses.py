"""How the page is answered: by the workbench it belongs to, in its language, and with the status first."""

import json
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from engine.cache import plain
from engine.errors import LayerscopeError
from ui.page.bench.desk import Desk
from ui.page.sessions import Sessions
from ui.text.messages import teller
from ui.text.words import words


def of_what_is_open(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Drop what a page asks for while it shows another opening of a model than the workbench's: it is about to be told."""

    @wraps(handler)
    def answer(self: "Answering", session: str, *rest: Any, **named: Any) -> Any:
        shown = session.partition(".")[2]
        return gr.skip() if shown and int(shown) != self._of(session).opened else handler(self, session, *rest, **named)

    return answer


class Answering:
    """What every handler of one page stands on. `sliders` are the controls that the workbench may change, by name."""

    def __init__(self, sessions: Sessions, model: str, sliders: dict[str, Any], language: str = "en") -> None:
        self._sessions, self._model, self._sliders = sessions, model, sliders
        self._in_words, self._say, self._language = teller(language), words(language), language

    def _of(self, session: str) -> Desk:
        """The workbench of a page, which says who it is, and after a dot which opening of a model it shows. Who does not is nobody."""
        key = session.partition(".")[0]
        if not key:
            raise gr.Error("nobody is asking", visible=False, print_exception=False)
        return self._sessions.of(key)

    def _status(self, bench: Desk, more: bool = True) -> list[Any]:
        """The status line, the cancel button, and the timer: it ticks while a job or a recovery runs or there may be `more` to tell."""
        state = bench.runner.state()
        value: dict[str, Any] = {"at": time.monotonic()}  # so that the page sees which of two answers is the later one
        if state:
            value |= {"kind": state[0], "label": self._in_words(state[1].label), "fraction": state[1].fraction}
            value |= {"left": bench.runner.seconds_left(), "behind": bench.runner.waiting_for(), "stopping": bench.runner.stopping()}
        busy, learns, problem = state is not None, bench.recovering.learning.busy, bench.runner.problem
        if learns:
            value["learns"] = Path(learns).name
        value["problem"] = problem and self._in_words(problem)
        if bench.notice:
            value |= {"notice": self._in_words(bench.notice), "of": bench.notice_of}
        return [json.dumps(value), gr.update(interactive=busy), gr.Timer(active=busy or more or learns is not None)]

    def _looked_at(self, bench: Desk, find: Callable[[], Any]) -> list[Any]:
        """Answer a view that asks by itself while somebody looks; with nothing where there is nothing to tell yet."""
        try:
            found = find()
        except LayerscopeError:
            found = {}
        return [json.dumps(plain(found)), *self._status(bench)]

    def _act(self, bench: Desk, do: Callable[[], object], kind: str | None = None) -> list[Any]:
        """Do something a person asked for; what they did wrong becomes the status line. What the page may also do by itself
        has a `kind`, and takes no complaint away but its own."""
        with bench.lock:  # a job's result, and what another page asks for, come before or after, never in between
            try:
                bench.runner.content(kind)
                do()
            except LayerscopeError as error:
                bench.runner.complain(str(error), kind)
            return self._status(bench)
