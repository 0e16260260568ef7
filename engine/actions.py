"""How an action declares itself: the terminal's verb with its help, and the record of its settings.

The page's controls, the handler's argument, the terminal's options and the command that the page shows are derived from the record, field
by field. Imports no torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from engine.settings import NoSettings


@dataclass(frozen=True, slots=True)
class Action:
    """An action: its verb in the terminal, what it does in one sentence, and the record of its settings."""

    verb: str
    help: str
    settings: type = NoSettings


def options(record: type) -> tuple[str, ...]:
    """Return the fields of a settings record that a user can set, in order: those declared with `control`."""
    return tuple(entry.name for entry in fields(record) if "help" in entry.metadata)


def controls(record: type) -> tuple[str, ...]:
    """Return those of `options` that the page shows."""
    return tuple(entry.name for entry in fields(record) if entry.metadata.get("page"))


def record_of(record: type, values: Iterable[Any], **others: Any) -> Any:
    """Return the record that the page's controls hold, from their values in the order of `controls`, and `others` by name.

    Empty controls keep the default. So does 0 where the default is None, because Gradio's number box cannot start empty (6.31). Numbers
    and lists get the type of their field.
    """
    kinds, usual = get_type_hints(record), {entry.name: entry.default for entry in fields(record)}
    given = dict(zip(controls(record), values, strict=True)) | others
    return record(**{name: _typed(kinds[name], value) for name, value in given.items() if not _empty(value, usual[name])})


def _empty(value: Any, usual: Any) -> bool:
    value = value.strip() if isinstance(value, str) else value
    return value in (None, "") or (usual is None and not isinstance(value, bool) and value == 0)


def _typed(kind: Any, value: Any) -> Any:
    kinds = set(get_args(kind) or (kind,)) - {NoneType}
    if get_origin(kind) is tuple:
        return tuple(value)
    if kinds == {int}:
        return int(value)
    return value.strip() if isinstance(value, str) else value


def changed(settings: Any) -> dict[str, Any]:
    """Return the settings that differ from their defaults, by name."""
    usual = {entry.name: entry.default for entry in fields(settings)}
    return {name: value for name in options(type(settings)) if (value := getattr(settings, name)) != usual[name]}


def split(record: type, values: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """Return the record that the first values hold, as `record_of`, and the other values."""
    count = len(controls(record))
    return record_of(record, values[:count]), values[count:]
