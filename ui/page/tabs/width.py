"""Width tab: the numbers of heads, neurons and channels. The page's scripts update size from the sliders; see assets/js/widths.js."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gradio as gr

from engine.methods.width.scores import SCORES
from engine.methods.width.widths import COMPENSATIONS
from ui.page.components.chart import follow, view
from ui.page.components.slider import Slider
from ui.text.words import text_or, words

TARGETS = ("parameters", "bytes", "memory")


def build(language: str) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    gr.Markdown(say("width_read"))
    with gr.Row():
        with gr.Column(min_width=300):
            parts = _target(say) | _sliders(say) | _how(say)
            times = view("trim-times", language, 0, panel=True)
        with gr.Column(min_width=340):
            chart = view("widths", language, 300)
    costs = view("widthcosts", language, 120)
    tab = SimpleNamespace(**parts, times=times, chart=chart, costs=costs)
    widths = {"heads": tab.heads, "neurons": tab.neurons, "channels": tab.channels}
    follow(chart, **widths, by=tab.by, amount=tab.amount)
    follow(costs, **widths)
    _meet(tab)
    return tab


def settings(tab: SimpleNamespace) -> list[gr.components.Component]:
    """Return the controls of a trim."""
    return [tab.heads, tab.neurons, tab.channels, tab.score, tab.compensation, tab.plain, tab.redistribute]


def _target(say: Callable[[str], str]) -> dict[str, Any]:
    """The target: the sliders' widths, or one number that the neurons slider follows."""
    with gr.Row():
        choices = [(say("width_by_sliders"), "sliders"), *((say(f"target_{name}"), name) for name in TARGETS)]
        by = gr.Dropdown(choices, value="sliders", label=say("search_target"), elem_id="width-by", min_width=290, scale=3)
        asked = {"label": say("search_amount"), "info": say("width_amount_info"), "elem_id": "width-amount", "min_width": 150, "scale": 2}
        amount = gr.Number(None, visible=False, **asked)
    return {"by": by, "amount": amount}


def _sliders(say: Callable[[str], str]) -> dict[str, Any]:
    """The widths of each axis. An opened model sets the ranges."""
    return {
        axis: Slider(
            1, most, most, step=1, precision=0, label=say(f"width_{axis}"), info=say(f"width_{axis}_info"), elem_id=f"width-{axis}"
        )
        for axis, most in (("heads", 9), ("neurons", 1536), ("channels", 576))
    }


def _how(say: Callable[[str], str]) -> dict[str, Any]:
    """The score, and the compensation for what was cut."""
    choices = [(text_or(say, f"score_{name}", method.help), name) for name, method in SCORES.items() if name != "maw"]
    score = gr.Dropdown(choices, value="weighted", label=say("axis_score"), elem_id="width-score")
    compensation = gr.Dropdown(
        [(say(f"width_beside_{name}"), name) for name in COMPENSATIONS],
        value="refit",
        label=say("width_beside"),
        info=say("width_beside_info"),
        elem_id="width-beside",
    )
    plain, redistribute = (
        gr.Checkbox(False, label=say(f"width_{name}"), info=say(f"width_{name}_info"), elem_id=f"width-{name}")
        for name in ("plain", "redistribute")
    )
    with gr.Row(elem_classes="ls-buttons"):
        button = gr.Button(say("width_button"), variant="primary", elem_id="trim-button", min_width=120)
        curves = gr.Button(say("width_curves"), elem_id="width-curves", min_width=200)
    return {"score": score, "compensation": compensation, "plain": plain, "redistribute": redistribute, "button": button, "curves": curves}


def _meet(tab: SimpleNamespace) -> None:
    """Let the neurons slider follow a target that starts at the present size; moving the slider by hand ends that."""
    quiet = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
    tab.by.change(lambda by: gr.update(visible=by != "sliders"), tab.by, tab.amount, **quiet)
    tab.by.change(None, [tab.by, tab.amount], tab.amount, js="(by, amount) => window.layerscope.weighs(by) ?? amount")
    tab.chart.take(None, None, tab.neurons, js="() => window.layerscope.met")
    tab.neurons.input(None, None, tab.by, js="() => 'sliders'")
