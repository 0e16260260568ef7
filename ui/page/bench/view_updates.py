"""What the page has yet to be told: properties of its components, numbered in the order they were put, and controls to move."""

import threading
from typing import Any


class ViewUpdates:
    """The newest value of every property that was put, by component. Any thread may put; every page asks with the number it saw."""

    def __init__(self) -> None:
        self._news: dict[tuple[str, str], tuple[int, Any]] = {}
        self._moves: dict[str, tuple[int, Any]] = {}
        self._serial = self._told = 0  # the newest there is, and the newest that some page was told of
        self._lock = threading.RLock()

    def put(self, component: str, prop: str, value: Any) -> None:
        """Set a property of a component on every page that shows this workbench."""
        with self._lock:
            self._serial += 1
            self._news[component, prop] = (self._serial, value)

    def move(self, control: str, value: Any) -> None:
        """Set a control as a hand would: once, since a hand may move it again."""
        with self._lock:
            self._serial += 1
            self._moves[control] = (self._serial, value)

    def settle(self, *but: str) -> None:
        """Forget all moves: a page has come in, and sets its controls itself. A move of a few controls is kept where no page was told of
        it yet, since a job made it while none asked."""
        with self._lock:
            self._moves = {control: move for control, move in self._moves.items() if control in but and move[0] > self._told}

    def since(self, seen: int) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the newest serial number, every property of the components of which one was put since `seen`, and the moves.

        All properties, since a component that is not on the screen yet takes an update's as the whole.
        """
        with self._lock:
            fresh = {component for (component, _), (serial, _) in self._news.items() if serial > seen}
            found: dict[str, dict[str, Any]] = {component: {} for component in fresh}
            for (component, prop), (_, value) in self._news.items():
                if component in fresh:
                    found[component][prop] = value
            for control, (serial, value) in self._moves.items():
                if serial > seen:
                    found.setdefault(control, {})["value"] = value
            self._told = self._serial
            return self._serial, found
