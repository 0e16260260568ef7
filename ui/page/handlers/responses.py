"""What all handlers share: they look up the session's workbench, translate messages, and return the status first."""

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
from ui.text.messages import translator
from ui.text.words import words


def ignore_if_outdated(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Ignore a request from a page that still shows an earlier opening of a model; its next update brings the present one."""

    @wraps(handler)
    def answer(self: "Answering", session: str, *rest: Any, **named: Any) -> Any:
        shown = session.partition(".")[2]
        return gr.skip() if shown and int(shown) != self._of(session).opened else handler(self, session, *rest, **named)

    return answer


class Answering:
    """The base of all handlers of one page. `sliders` are the controls that the workbench may change, by name."""

    def __init__(self, sessions: Sessions, model: str, sliders: dict[str, Any], language: str = "en") -> None:
        self._sessions, self._model, self._sliders = sessions, model, sliders
        self._in_words, self._say, self._language = translator(language), words(language), language

    def _of(self, session: str) -> Desk:
        """Return the workbench of a session. `session` is the session's key, then after a dot the number of the opening that the page
        shows.

        Raises:
            gr.Error: the request has no session key.
        """
        key = session.partition(".")[0]
        if not key:
            raise gr.Error("the request has no session", visible=False, print_exception=False)
        return self._sessions.of(key)

    def _status(self, bench: Desk, more: bool = True) -> list[Any]:
        """Return the status line, the cancel button, and the timer. The timer ticks while a job or a recovery runs, or where `more`
        updates may follow."""
        state = bench.runner.state()
        value: dict[str, Any] = {"at": time.monotonic()}  # lets the page order two answers
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
        """Answer a visible view that polls by itself; the data is empty where nothing is known yet."""
        try:
            found = find()
        except LayerscopeError:
            found = {}
        return [json.dumps(plain(found)), *self._status(bench)]

    def _act(self, bench: Desk, do: Callable[[], object], kind: str | None = None) -> list[Any]:
        """Run a user's request under the workbench's lock; a LayerscopeError becomes the problem on the status line.

        A request that the page may also send by itself has a `kind`, and clears only earlier problems of that kind.
        """
        with bench.lock:  # job results and other pages' requests wait until it is done
            try:
                bench.runner.content(kind)
                do()
            except LayerscopeError as error:
                bench.runner.set_problem(error.message, kind)
            return self._status(bench)
