"""Options derived from the engine: the fields of settings records, and the registries' methods with their settings."""

import inspect
import pkgutil
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from engine.settings import Registry, about


def option(record: type, name: str, *flags: str, **more: Any) -> Any:
    """Return the option of a settings record's field with its help. It has the field's bounds, unless the record has its own `checked`."""
    known = about(record, name)
    bounds = {} if hasattr(record, "checked") else {"min": known["low"], "max": known["high"]}
    return typer.Option(*flags, **{"help": known["help"], **bounds, **more})


def command(app: typer.Typer, **named: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator that makes a function a command with method parameters: `method="module:REGISTRY"`.

    Their help lists the registry's methods. A function with `**settings` gets an option for every setting of the methods, and receives the
    options that were given. Registries are imported when the command runs, because some import torch, which `--help` of other commands
    avoids.
    """

    def add(run: Callable[..., Any]) -> Callable[..., Any]:
        class Drawn(TyperCommand):
            def make_context(self, *args: Any, **more: Any) -> Any:
                whole = typer.Typer(add_completion=False)
                whole.command()(_drawn(run, {name: pkgutil.resolve_name(place) for name, place in named.items()}))
                drawn = get_command(whole)
                self.params, self.callback = drawn.params, drawn.callback
                return super().make_context(*args, **more)

        app.command(run.__name__, cls=Drawn)(_drawn(run, {}))
        return run

    return add


def _drawn(run: Callable[..., Any], registries: dict[str, Registry]) -> Callable[..., Any]:
    """Return the function with help and options from the registries."""
    given = inspect.signature(run, eval_str=True)
    takes_settings = any(parameter.kind is parameter.VAR_KEYWORD for parameter in given.parameters.values())
    parameters = [parameter for parameter in given.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    for place, parameter in enumerate(parameters):
        if parameter.name in registries:
            methods = registries[parameter.name].values()
            facts = typer.Option(help="; ".join(f"{method.name} ({method.help})" for method in methods))
            parameters[place] = parameter.replace(annotation=Annotated[str, facts])
    if takes_settings:
        known = {parameter.name for parameter in parameters}
        drawn = {name: record for registry in registries.values() for record, name in registry.controls() if name not in known}
        parameters += [_setting(record, name) for name, record in drawn.items()]

    def call(**values: Any) -> Any:
        return run(**{name: value for name, value in values.items() if name in given.parameters or value is not None})

    call.__doc__ = run.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _setting(record: type, name: str) -> inspect.Parameter:
    known = about(record, name)
    kind = str if tuple(known["choices"]) else known["type"]
    facts = option(record, name, show_default=str(known["default"]))
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, facts])
