"""Width: how many heads, neurons and channels are left. Size follows the sliders by the page's own scripts; see assets/js/widths.js."""

from types import SimpleNamespace

import gradio as gr

from engine.methods.widths import SCORES
from ui.page.components.chart import follow, view
from ui.page.components.slider import Slider
from ui.text.words import told, words


def build(language: str) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    gr.Markdown(say("width_read"))
    with gr.Row():
        with gr.Column(min_width=300):
            heads, neurons, channels = (
                Slider(
                    1,
                    most,
                    most,
                    step=1,
                    precision=0,
                    label=say(f"width_{axis}"),
                    info=say(f"width_{axis}_info"),
                    elem_id=f"width-{axis}",
                )
                for axis, most in (("heads", 9), ("neurons", 1536), ("channels", 576))
            )
            choices = [(told(say, f"score_{name}", method.help), name) for name, method in SCORES.items() if name != "maw"]
            score = gr.Dropdown(choices, value="weighted", label=say("axis_score"), elem_id="width-score")
            refit = gr.Checkbox(True, label=say("width_refit"), info=say("width_refit_info"), elem_id="width-refit")
            plain = gr.Checkbox(False, label=say("width_plain"), info=say("width_plain_info"), elem_id="width-plain")
            button = gr.Button(say("width_button"), variant="primary", elem_id="trim-button")
        with gr.Column(min_width=340):
            chart = view("widths", language, 300)
    follow(chart, heads=heads, neurons=neurons, channels=channels)
    return SimpleNamespace(
        heads=heads, neurons=neurons, channels=channels, score=score, refit=refit, plain=plain, button=button, chart=chart
    )


def settings(tab: SimpleNamespace) -> list[gr.components.Component]:
    """Return what a plan is trimmed with."""
    return [tab.heads, tab.neurons, tab.channels, tab.score, tab.refit, tab.plain]
