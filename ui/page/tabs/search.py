"""Search tab: plans better than the greedy ones for a target, and baselines."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gradio as gr

from engine.judge.objectives import OBJECTIVES
from engine.methods.depth.baselines import BASELINES
from engine.search.settings import TARGETS, SearchSettings, SweepSettings, Target
from engine.search.shapes import MEASURED
from ui.page.components.chart import view
from ui.page.components.field import field, methods
from ui.page.components.field import settings as settings_of
from ui.page.components.slider import Slider
from ui.text.words import words


def build(language: str) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    gr.Markdown(say("search_read"))
    parts = _target(say) | _how(say) | _buttons(say)
    parts["chart"] = view("search", language, 420)
    parts |= _shapes(say, language) | _sweep(say, language)
    return SimpleNamespace(**parts)


def settings(tab: SimpleNamespace) -> list[gr.components.Component]:
    """Return the controls of a search, in the order of `Handlers.search`."""
    return [tab.kind, tab.amount, tab.context, tab.objective, tab.seconds, tab.survivors, tab.repaired, tab.every]


def shape_settings(tab: SimpleNamespace) -> list[gr.components.Component]:
    """Return the controls of a search for shapes, in the order of `Handlers.shapes`, without the practice tokens."""
    return [tab.budget, tab.measured, tab.shapes_refit, tab.shapes_speed]


def _shapes(say: Callable[[str], str], language: str) -> dict[str, Any]:
    """Shapes for a parameter budget."""
    gr.Markdown(say("shapes_title"))
    gr.Markdown(say("shapes_read"))
    with gr.Row():
        asked = {"label": say("shapes_budget"), "info": say("shapes_budget_info"), "elem_id": "shapes-budget", "min_width": 200}
        budget = gr.Number(100, **asked)
        asked = {"label": say("shapes_measured"), "info": say("shapes_measured_info"), "elem_id": "shapes-measured", "min_width": 240}
        measured = Slider(1, 20, MEASURED, step=1, precision=0, **asked)
        with gr.Column(min_width=260):
            refit = gr.Checkbox(True, label=say("shapes_refit"), elem_id="shapes-refit")
            speed = gr.Checkbox(True, label=say("shapes_speed"), elem_id="shapes-speed")
    with gr.Row(elem_classes="ls-buttons"):
        button = gr.Button(say("shapes_button"), variant="primary", elem_id="shapes-button", min_width=160)
    chart = view("shapes", language, 60)
    parts = {"budget": budget, "measured": measured, "shapes_refit": refit, "shapes_speed": speed}
    return {**parts, "shapes_button": button, "shapes": chart}


def _sweep(say: Callable[[str], str], language: str) -> dict[str, Any]:
    """Every plan that Layer Collapse can reach, with its cost."""
    gr.Markdown(say("sweep_title"))
    gr.Markdown(say("sweep_read"))
    with gr.Row(elem_classes="ls-buttons"):
        seconds = field(SweepSettings, "seconds", say, "sweep_seconds", value=300.0, label=say("search_seconds"), min_width=220)
        button = gr.Button(say("sweep_button"), variant="primary", elem_id="sweep-button", min_width=160)
    return {"sweep_seconds": seconds, "sweep_button": button, "sweep": view("sweep", language, 120)}


def _target(say: Callable[[str], str]) -> dict[str, Any]:
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


def _how(say: Callable[[str], str]) -> dict[str, Any]:
    """The objective, and what the search may try."""
    with gr.Row():
        goal = {"label": say("objective"), "info": say("objective_info"), "elem_id": "objective"}
        objective = methods(OBJECTIVES, say, "kl", **goal, min_width=220)
        survivors = field(SearchSettings, "survivors", say, "survivors", min_width=320)
        with gr.Column(min_width=200):
            repaired = field(SearchSettings, "repair", say, "search_repair", info=None)
            every = field(SearchSettings, "exhaustive", say, "search_every", info=None)
    return {"objective": objective, "survivors": survivors, "repaired": repaired, "every": every}


def _buttons(say: Callable[[str], str]) -> dict[str, Any]:
    """The search button and the baselines."""
    with gr.Row(elem_classes="ls-buttons"):
        button = gr.Button(say("search_button"), variant="primary", elem_id="search-button", min_width=160)
        method = methods(BASELINES, say, "bi", show_label=False, container=False, elem_id="baseline", min_width=220)
        make = gr.Button(say("baseline_button"), elem_id="baseline-button", min_width=160)
    return {"button": button, "method": method, "make": make, "method_settings": settings_of(BASELINES, say, method)}
