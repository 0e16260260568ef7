"""Options derived from declarations: the fields of settings records, and the registries' methods with their settings."""

import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand
from typer.main import get_command

from engine.errors import LayerscopeError
from engine.settings import Action, Registry, about
from engine.untrusted import ForeignError, json_of

Parameters = Mapping[str, inspect.Parameter]


def option(record: type, name: str, *flags: str, **more: Any) -> Any:
    """Return the option of a settings record's field with its help. It has the field's bounds, unless the record has its own `checked`."""
    known = about(record, name)
    bounds = {} if hasattr(record, "checked") else {"min": known["low"], "max": known["high"]}
    return typer.Option(*flags, **{"help": known["help"], **bounds, **more})


def command(
    app: typer.Typer, action: Action | None = None, without: Iterable[str] = (), **named: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator that makes a function a command, with the verb and the help of an action or with its own.

    A parameter whose type is a record becomes one option per field: a record of settings (see `engine.settings`), or one whose fields are
    annotated with options; the fields `without` are left out. `named` gives registries as `method="module:REGISTRY"`: the help of that
    option lists their methods. A function with `**settings` gets an option for every setting of the methods, and receives the options that
    were given. Registries are imported when the command runs, because some import torch, which `--help` of other commands avoids.
    """

    def add(run: Callable[..., Any]) -> Callable[..., Any]:
        class LazyCommand(TyperCommand):
            def make_context(self, *args: Any, **more: Any) -> Any:
                whole = typer.Typer(add_completion=False)
                whole.command()(_with_options(run, action, without, {name: pkgutil.resolve_name(place) for name, place in named.items()}))
                drawn = get_command(whole)
                self.params, self.callback = drawn.params, drawn.callback
                return super().make_context(*args, **more)

        verb = action.verb if action else run.__name__.rstrip("_")
        app.command(verb, cls=LazyCommand if named else TyperCommand)(_with_options(run, action, without, {}))
        return run

    return add


def _with_options(
    run: Callable[..., Any], action: Action | None, without: Iterable[str], registries: Mapping[str, Registry]
) -> Callable[..., Any]:
    """Return the function with an option for each field of its records, with help and options from the registries."""
    given = inspect.signature(run, eval_str=True).parameters
    takes_settings = any(parameter.kind is parameter.VAR_KEYWORD for parameter in given.values())
    records: dict[str, Parameters] = {
        name: _options(one.annotation, without) for name, one in given.items() if is_dataclass(one.annotation)
    }
    drawn: dict[str, inspect.Parameter] = {}
    for name, parameter in given.items():
        if name in records:
            drawn |= records[name]
        elif parameter.kind is not parameter.VAR_KEYWORD:
            drawn[name] = parameter.replace(kind=parameter.KEYWORD_ONLY)
    for name, registry in registries.items():
        facts = typer.Option(help="; ".join(f"{method.name} ({method.help})" for method in registry.values()))
        drawn[name] = drawn[name].replace(annotation=Annotated[str, facts])
    if takes_settings:
        of_methods = {name: record for registry in registries.values() for record, name in registry.controls() if name not in drawn}
        drawn |= {name: _of_a_method(record, name) for name, record in of_methods.items()}

    def call(**values: Any) -> Any:
        made = {name: _record(given[name].annotation, values, own) for name, own in records.items()}
        rest = {name: value for name, value in values.items() if not any(name in own for own in records.values())}
        return run(**made, **{name: value for name, value in rest.items() if name in given or value is not None})

    call.__doc__ = action.help if action else run.__doc__
    call.__signature__ = inspect.Signature(list(drawn.values()))  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in drawn.values()}
    return call


def _options(record: Any, without: Iterable[str]) -> dict[str, inspect.Parameter]:
    """Return the options of a record's fields: those annotated with one, and those declared with `engine.settings.control`."""
    kinds = get_type_hints(record, include_extras=True)
    found = {}
    for entry in fields(record):
        if entry.name in without:
            continue
        if get_origin(kinds[entry.name]) is Annotated:
            found[entry.name] = _parameter(entry, kinds[entry.name], entry.default)
        elif "help" in entry.metadata:
            found[entry.name] = _of_a_setting(record, entry)
    return found


def _of_a_setting(record: Any, entry: Field[Any]) -> inspect.Parameter:
    """Return the option of a setting. A tuple is one text with commas, a dictionary is JSON; a flag that is off has no --no- form."""
    known = about(record, entry.name)
    kind, usual, flag = known["type"], entry.default, known["flag"]
    more: dict[str, Any] = {}
    if kind is bool and usual is False:
        return _parameter(entry, Annotated[bool, option(record, entry.name, flag)], usual)
    if get_origin(kind) is tuple:
        kind, usual = str, ",".join(usual)  # type: ignore[arg-type]
        more["help"] = f"{known['help']}, with commas"
    elif _is_dictionary(kind):
        kind, usual, more["metavar"] = str | None, None, "JSON"
    elif not {str} - set(get_args(kind) or (kind,)) or known["choices"]:
        kind = str | None if NoneType in get_args(kind) else str
    flags = () if kind is bool else (flag,)  # typer adds the --no- form only to a flag of its own
    return _parameter(entry, Annotated[kind, option(record, entry.name, *flags, **more)], usual)


def _parameter(entry: Field[Any], annotation: Any, usual: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if usual is MISSING else usual
    return inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _of_a_method(record: type, name: str) -> inspect.Parameter:
    known = about(record, name)
    kind = str if tuple(known["choices"]) else known["type"]
    facts = option(record, name, show_default=str(known["default"]))
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, facts])


def _record(record: Any, values: Mapping[str, Any], own: Iterable[str]) -> Any:
    """Return the record of the options' values."""
    kinds, given = get_type_hints(record), dict[str, Any]()
    for name in own:
        value, kind = values[name], kinds[name]
        if get_origin(kind) is tuple and isinstance(value, str):
            value = tuple(filter(None, value.split(",")))
        elif _is_dictionary(kind) and value is not None:
            value = numbers(f"--{name}", value)
        given[name] = value
    return record(**given)


def _is_dictionary(kind: Any) -> bool:
    return dict in (get_origin(one) for one in (kind, *get_args(kind)))


def numbers(name: str, text: str) -> dict[str, Any]:
    """Read an option that is a JSON object of numbers.

    Raises:
        LayerscopeError: it is something else.
    """
    try:
        found = json_of(text)
    except ForeignError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, int | float) for value in found.values()):
        raise LayerscopeError(f'{name} is {text[:80]!r}; write a JSON object of numbers, such as {{"layers": 24}}')
    return found
