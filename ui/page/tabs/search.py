"""Search tab: plans better than the greedy ones for a target, and baselines."""

from types import SimpleNamespace
from typing import Any

import gradio as gr

from engine.judge.objectives import OBJECTIVES
from engine.methods.depth.baselines import BASELINES
from engine.search.settings import TARGETS, SearchSettings, ShapesSettings, SweepSettings, Target
from ui.page.components.chart import view
from ui.page.components.field import field, form, methods
from ui.page.components.field import settings as settings_of
from ui.text.words import Words, words


def build(language: str) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    gr.Markdown(say("search_read"))
    parts = _target(say)
    parts |= {"asked": _how(say, parts.pop("seconds"))} | _buttons(say)
    parts["chart"] = view("search", language, 420)
    parts |= _shapes(say, language) | _sweep(say, language)
    return SimpleNamespace(**parts)


def _shapes(say: Words, language: str) -> dict[str, Any]:
    """Shapes for a parameter budget."""
    gr.Markdown(say("shapes_title"))
    gr.Markdown(say("shapes_read"))
    with gr.Row():
        asked = {"label": say("shapes_budget"), "info": say("shapes_budget_info"), "elem_id": "shapes-budget", "min_width": 200}
        budget = gr.Number(100, **asked)
        measured = field(ShapesSettings, "measured", say, "shapes_measured", min_width=240)
        with gr.Column(min_width=260):
            settings = form(ShapesSettings, say, "shapes", {"info": None}, measured=measured)
    with gr.Row(elem_classes="ls-buttons"):
        button = gr.Button(say("shapes_button"), variant="primary", elem_id="shapes-button", min_width=160)
    chart = view("shapes", language, 60)
    return {"budget": budget, "shapes_asked": settings, "shapes_button": button, "shapes": chart}


def _sweep(say: Words, language: str) -> dict[str, Any]:
    """Every plan that Layer Collapse can reach, with its cost."""
    gr.Markdown(say("sweep_title"))
    gr.Markdown(say("sweep_read"))
    with gr.Row(elem_classes="ls-buttons"):
        seconds = field(SweepSettings, "seconds", say, "sweep_seconds", value=300.0, label=say("search_seconds"), min_width=220)
        button = gr.Button(say("sweep_button"), variant="primary", elem_id="sweep-button", min_width=160)
    return {"sweep_asked": {"seconds": seconds}, "sweep_button": button, "sweep": view("sweep", language, 120)}


def _target(say: Words) -> dict[str, Any]:
    """The target, and the time limit."""
    with gr.Row():
        kind = gr.Dropdown(
            [(say(f"target_{name}"), name) for name in TARGETS],
            value="layers",
            label=say("search_target"),
            elem_id="search-kind",
            min_width=180,
        )
        amount = gr.Number(
            24, label=say("search_amount"), info=say("search_amount_info"), minimum=0, elem_id="search-amount", min_width=150
        )
        context = field(Target, "context", say, "search_context", value=4096, min_width=150, visible=False)
        seconds = field(SearchSettings, "seconds", say, "search_seconds", min_width=220)
    kind.change(
        lambda chosen: gr.update(visible=chosen == "memory"), kind, context, show_progress="hidden", queue=False, api_visibility="private"
    )
    return {"kind": kind, "amount": amount, "context": context, "seconds": seconds}


def _how(say: Words, seconds: gr.components.Component) -> dict[str, Any]:
    """The settings of a search: the objective, and what it may try."""
    with gr.Row():
        goal = {"label": say("objective"), "info": say("objective_info"), "elem_id": "objective"}
        objective = methods(OBJECTIVES, say, "kl", **goal, min_width=220)
        survivors = field(SearchSettings, "survivors", say, "survivors", min_width=320)
        with gr.Column(min_width=200):
            made = {"objective": objective, "seconds": seconds, "survivors": survivors}
            return form(SearchSettings, say, "search", {"info": None}, **made)


def _buttons(say: Words) -> dict[str, Any]:
    """The search button and the baselines."""
    with gr.Row(elem_classes="ls-buttons"):
        button = gr.Button(say("search_button"), variant="primary", elem_id="search-button", min_width=160)
        method = methods(BASELINES, say, "bi", show_label=False, container=False, elem_id="baseline", min_width=220)
        make = gr.Button(say("baseline_button"), elem_id="baseline-button", min_width=160)
    return {"button": button, "method": method, "make": make, "method_settings": settings_of(BASELINES, say, method)}
