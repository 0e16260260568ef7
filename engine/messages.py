"""Sentences for users: a template with its values. A message reads as English by itself and is translated where it is displayed."""

import math
from collections.abc import Callable, Mapping
from typing import Any

Gettext = Callable[[str], str]


class Message(str):
    """An English sentence that keeps its `template` and `values`, so that a catalogue can translate it.

    Without values the template is the sentence itself, braces included.
    """

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> "Message":
        """Fill the template, as `str.format` does."""
        message = super().__new__(cls, template.format(**values) if values else template)
        message.template, message.values = template, values
        return message


class MessageError(Exception):
    """An error whose text is a Message."""

    def __init__(self, template: str = "", /, **values: Any) -> None:
        """Take a template with its values, or a message that is there already."""
        self.message = template if isinstance(template, Message) and not values else Message(template, **values)
        super().__init__(self.message)


def message_of(error: BaseException) -> str:
    """Return an error's message, or its text if it has no message."""
    return error.message if isinstance(error, MessageError) else str(error)


def translate(message: str, gettext: Gettext) -> str:
    """Return a message in the language of a catalogue; messages and errors among its values are translated too, plain text is not."""
    if not isinstance(message, Message):
        return gettext(message) if message else message
    template = gettext(message.template)
    if not message.values:
        return template
    return template.format(**{name: _value(value, gettext) for name, value in message.values.items()})


def _value(value: Any, gettext: Gettext) -> Any:
    if isinstance(value, BaseException):
        return translate(message_of(value), gettext)
    return translate(value, gettext) if isinstance(value, Message) else value


def encode_message(message: str) -> Any:
    """Return a message as JSON that `decode_message` reads; plain text is unchanged."""
    if not isinstance(message, Message):
        return message
    return {"template": message.template, "values": {name: _encoded(value) for name, value in message.values.items()}}


def _encoded(value: Any) -> Any:
    if isinstance(value, BaseException):
        return encode_message(message_of(value))
    if isinstance(value, Message):
        return encode_message(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}  # which JSON has no word for
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def is_message(value: Any) -> bool:
    """Return whether a JSON value is what `encode_message` makes of a message."""
    return isinstance(value, Mapping) and set(value) == {"template", "values"} and isinstance(value["template"], str)


def decode_message(value: Any) -> str:
    """Return the message that JSON holds; its values may be messages too."""
    if not is_message(value):
        return str(value)
    return Message(value["template"], **{name: _decoded(one) for name, one in value["values"].items()})


def _decoded(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"number"}:
        return float(value["number"])
    return decode_message(value) if is_message(value) else value


def encode_messages(value: Any) -> Any:
    """Return a JSON value with each message in it encoded."""
    if isinstance(value, Mapping):
        return {key: encode_messages(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode_messages(item) for item in value]
    return encode_message(value) if isinstance(value, Message) else value
