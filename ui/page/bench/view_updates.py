"""Updates that the page has not received yet: component properties, numbered in order, and controls to move."""

import threading
from typing import Any


class ViewUpdates:
    """The newest value of every property, by component. Any thread may put values; every page asks for those after the number it last
    saw."""

    def __init__(self) -> None:
        self._news: dict[tuple[str, str], tuple[int, Any]] = {}
        self._moves: dict[str, tuple[int, Any]] = {}
        self._serial = self._told = 0  # the newest number, and the newest that any page has received
        self._lock = threading.RLock()

    def put(self, component: str, prop: str, value: Any) -> None:
        """Set a property of a component on every page that shows this workbench."""
        with self._lock:
            self._serial += 1
            self._news[component, prop] = (self._serial, value)

    def move(self, control: str, value: Any) -> None:
        """Set a control once, as a user would; the user may change it again."""
        with self._lock:
            self._serial += 1
            self._moves[control] = (self._serial, value)

    def settle(self, *but: str) -> None:
        """Drop all moves, because a loading page sets its controls itself. Moves of the controls in `but` stay if no page has received
        them: a job made them while no page was open."""
        with self._lock:
            self._moves = {control: move for control, move in self._moves.items() if control in but and move[0] > self._told}

    def since(self, seen: int) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the newest serial number, the components that changed since `seen` with all their properties, and the moves.

        All properties, because a component that is not mounted yet takes an update as its whole state.
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
