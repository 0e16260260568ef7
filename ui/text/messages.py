"""Messages of the engine and names of plans, translated where the page shows them."""

import json
from collections.abc import Callable
from typing import Any

from engine.catalogues import catalogue
from engine.messages import Message, decode_message, is_message, translate

# The titles of methods in tables.
METHODS = {
    "bi": Message("block influence"),
    "angular": Message("contiguous angular"),
    "sleb": Message("greedy (SLEB)"),
    "tail": Message("last layers"),
    "random": Message("random"),
    "search": Message("search"),
    "shapes": Message("shapes"),
    "sheared": Message("Sheared LLaMA"),
    "hand-made": Message("by hand"),
    "laco": Message("LaCo"),
    "laco-folds": Message("LaCo's folds"),
    "laco-at-once": Message("LaCo at once"),
}
_NAMED = ("label", "measure", "error")  # the keys of a table's rows that hold messages


def translator(language: str) -> Callable[[str], str]:
    """Return the function that translates messages into a language."""
    gettext = catalogue(language).gettext
    return lambda message: translate(message, gettext)


def method_title(method: str) -> str:
    """Return the title of a plan's method, or its id if it has no title."""
    return METHODS.get(method, method)


def translated_labels(data: str, language: str) -> str:
    """Return a table's JSON with its encoded messages, and the plain text of labels, measures and errors, in a language."""
    to_words = translator(language)

    def row(value: dict[str, Any]) -> Any:
        if is_message(value):
            return to_words(decode_message(value))
        return {key: to_words(METHODS.get(item, item)) if key in _NAMED and isinstance(item, str) else item for key, item in value.items()}

    return data and json.dumps(json.loads(data, object_hook=row))
