"""Controls for the fields of a settings record: the page shows what a method declares."""

from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args, get_origin

import gradio as gr

from engine.settings import Registry, about, controls
from ui.page.components.slider import Slider
from ui.text.words import TEXT, Words


def field(record: type, name: str, say: Words, words: str = "", **look: Any) -> gr.components.Component:
    """Return the control of a field: a dropdown for one of several choices, checkboxes for several of them, a checkbox for a boolean, a
    slider for a bounded number, a number box if a bound is missing. `look` are Gradio arguments and override the others.

    Its texts have the names `words` (by default `set_NAME`), `WORDS_info` and `WORDS_CHOICE`; a missing text is the field's own.
    """
    known, words = about(record, name), words or f"set_{name}"
    kinds = set(get_args(known["type"]) or (known["type"],)) - {NoneType}
    asked = {"value": known["default"], "elem_id": words.replace("_", "-"), **look}
    if "label" not in look:
        asked["label"] = say.declared(words, known["label"] or name.replace("_", " "))
    if "info" not in look:
        asked["info"] = say.declared(f"{words}_info", known["help"])
    if choices := [(say(f"{words}_{choice}") if f"{words}_{choice}" in TEXT else choice, choice) for choice in known["choices"]]:
        several = get_origin(known["type"]) is tuple
        return gr.CheckboxGroup(choices, **asked | {"value": list(asked["value"])}) if several else gr.Dropdown(choices, **asked)
    if kinds == {bool}:
        return gr.Checkbox(**asked)
    bounds = {"minimum": known["low"], "maximum": known["high"], "step": known["step"] or 1}
    asked = {**bounds, **({"precision": 0} if kinds == {int} else {}), **asked}
    return (gr.Number if None in (asked["minimum"], asked["maximum"]) else Slider)(**asked)


def form(record: type, say: Words, words: str, look: Mapping[str, Any] | None = None, **made: Any) -> dict[str, Any]:
    """Return the control of each setting that the page shows, by name, in the order of `engine.settings.controls`.

    `made` are controls that exist already. The others are drawn by `field`, with texts named `WORDS_NAME` and the arguments `look`.
    """
    return {name: made.get(name) or field(record, name, say, f"{words}_{name}", **look or {}) for name in controls(record)}


def methods(registry: Registry, say: Words, value: str, **look: Any) -> gr.Dropdown:
    """Return the dropdown of a registry's methods. A method is labelled by the text `KIND_NAME`, or by its own help."""
    choices = [(say.declared(f"{registry.kind}_{name}", method.help), name) for name, method in registry.items()]
    return gr.Dropdown(choices, value=value, **look)


def settings(registry: Registry, say: Words, chosen: gr.Dropdown | None = None) -> list[gr.components.Component]:
    """Return the controls of all settings of a registry's methods, in the order of `Registry.controls`. With the dropdown `chosen`, only
    the chosen method's controls are visible."""
    drawn, rows = list[gr.components.Component](), dict[type, gr.Row]()
    for record in dict.fromkeys(record for record, _ in registry.controls()):
        with gr.Row(visible=chosen is None or registry[str(chosen.value)].settings is record) as rows[record]:
            drawn += [field(record, name, say, min_width=220) for owner, name in registry.controls() if owner is record]
    if chosen is not None and rows:

        def shown(name: str) -> list[Any] | Any:
            updates = [gr.update(visible=registry[name].settings is record) for record in rows]
            return updates if len(updates) > 1 else updates[0]

        chosen.change(shown, chosen, list(rows.values()), show_progress="hidden", queue=False, api_visibility="private")
    return drawn
