"""How a method or an action declares itself: its name, a frozen record of settings with control metadata, and its function.

A registry contains the methods of one kind. Page and terminal generate the controls and options of methods and actions from their records,
field by field. Imports no torch.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from engine.errors import SettingsError
from engine.messages import Message

F = TypeVar("F", bound=Callable[..., Any])


def control(
    help: str,
    low: float | None = None,
    high: float | None = None,
    step: float | None = None,
    choices: Iterable[str] = (),
    label: str = "",
    flag: str = "",
    page: bool = True,
) -> Mapping[str, Any]:
    """Return the metadata of a settings field: its help text, the bounds and step of its slider, or its choices; its label on the page and
    its flag in the terminal if they do not follow from its name; and whether the page shows it."""
    return {"help": help, "low": low, "high": high, "step": step, "choices": choices, "label": label, "flag": flag, "page": page}


def about(record: type, name: str) -> Mapping[str, Any]:
    """Return what `control` declares for a settings record's field, with its flag, its default and its type (`int`, `int | None`, ...)."""
    found = next(entry for entry in fields(record) if entry.name == name)
    flag = found.metadata.get("flag") or "--" + name.replace("_", "-")
    return {**found.metadata, "flag": flag, "default": found.default, "type": get_type_hints(record)[name]}


@dataclass(frozen=True, slots=True)
class NoSettings:
    """The settings of a method that has none."""


@dataclass(frozen=True, slots=True)
class Method(Generic[F]):
    """A method: its name, a short description, its function, its settings record, and the arXiv id of its paper ("" if it has none)."""

    name: str
    help: str
    run: F
    settings: type = NoSettings
    reference: str = ""

    def asked(self, values: Mapping[str, Any]) -> Any:
        """Return the method's settings record; values without a field are ignored."""
        return self.settings(**{entry.name: values[entry.name] for entry in fields(self.settings) if entry.name in values})


class Registry(Mapping[str, Method[F]]):
    """The methods of one kind, by name. Those of a `package` register when its modules are imported, which happens on first use: a new
    method is a new file in the package and changes no other. They are in the order of their files."""

    def __init__(self, kind: str, package: str = "") -> None:
        self.kind = kind
        self._package = package
        self._methods: dict[str, Method[F]] = {}

    def register(self, name: str, help: str, settings: type = NoSettings, reference: str = "") -> Callable[[F], F]:
        """Return the decorator that registers a function as a method; `reference` is the arXiv id of its paper."""

        def add(run: F) -> F:
            self._methods[name] = Method(name, help, run, settings, reference)
            return run

        return add

    def require(self, name: str) -> Method[F]:
        """Return the method of this name.

        Raises:
            SettingsError: there is no such method.
        """
        if name not in self:
            raise SettingsError(
                "unknown {kind} '{name}'; choose one of {choices}", kind=Message(self.kind), name=name, choices=", ".join(self)
            )
        return self[name]

    def controls(self) -> tuple[tuple[type, str], ...]:
        """Return every setting of the methods, as record and field; methods with the same record share them."""
        records = dict.fromkeys(method.settings for method in self.values())
        return tuple((record, entry.name) for record in records for entry in fields(record))

    def given(self, name: str, values: Iterable[Any]) -> dict[str, Any]:
        """Return the settings of one method by name, from values in the order of `controls`; None values are left out."""
        record, known = self.require(name).settings, zip(self.controls(), values, strict=True)
        return {field: value for (owner, field), value in known if owner is record and value is not None}

    def _known(self) -> dict[str, Method[F]]:
        if self._package:
            package, self._package = self._package, ""
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                importlib.import_module(f"{package}.{module.name}")
            by_file = sorted(self._methods.values(), key=lambda method: method.run.__module__)  # independent of the order of imports
            self._methods = {method.name: method for method in by_file}
        return self._methods

    def __getitem__(self, name: str) -> Method[F]:
        return self._known()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())


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


def record_from_controls(record: type, values: Iterable[Any], **others: Any) -> Any:
    """Return the record of the values of the page's controls, in the order of `controls`, and of `others`, by name.

    Empty controls keep the default. So does 0 if the default is None, because a number box of Gradio 6.31 cannot start empty. Numbers
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
    """Return the record of the first values, as `record_from_controls` does, and the remaining values."""
    count = len(controls(record))
    return record_from_controls(record, values[:count]), values[count:]
