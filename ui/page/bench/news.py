"""What the page has yet to be told: properties of its components, numbered in the order they were put."""

import threading
from typing import Any


class News:
    """The newest value of every property that was put, by component. Any thread may put; every page asks with the number it saw."""

    def __init__(self) -> None:
        self._news: dict[tuple[str, str], tuple[int, Any]] = {}
        self._serial = 0
        self._lock = threading.RLock()

    def put(self, component: str, prop: str, value: Any) -> None:
        """Set a property of a component on every page that shows this workbench."""
        with self._lock:
            self._serial += 1
            self._news[component, prop] = (self._serial, value)

    def since(self, seen: int) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the newest serial number, and every property of the components of which one was put since `seen`.

        All properties, since a component that is not on the screen yet takes an update's as the whole.
        """
        with self._lock:
            fresh = {component for (component, _), (serial, _) in self._news.items() if serial > seen}
            found: dict[str, dict[str, Any]] = {component: {} for component in fresh}
            for (component, prop), (_, value) in self._news.items():
                if component in fresh:
                    found[component][prop] = value
            return self._serial, found
