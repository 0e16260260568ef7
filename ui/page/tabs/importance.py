"""Importance tab: scores of heads, neurons, channels and weights by several papers' methods."""

import json
from types import SimpleNamespace

import gradio as gr

from engine.methods.analysis.importance import DEFAULTS, scores_of
from ui.page.components.chart import follow, view
from ui.page.components.slider import Slider
from ui.text.words import words


def build(language: str) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    gr.Markdown(say("importance_read"))
    with gr.Row():
        choices = [(say(f"axis_{axis}"), axis) for axis in DEFAULTS]
        axis = gr.Dropdown(choices, value="heads", label=say("axis"), elem_id="axis", min_width=220)
        names = {name: [(say.declared(f"score_{score}", score), score) for score in scores_of(name)] for name in DEFAULTS}
        asked = {"label": say("axis_score"), "info": say("axis_score_info"), "elem_id": "axis-score", "min_width": 300}
        score = gr.Dropdown(names["heads"], value=DEFAULTS["heads"], **asked)
        tokens = Slider(
            500, 12_000, 4000, step=500, precision=0, label=say("lab_tokens"), info=say("lab_tokens_info"), elem_id="lab-tokens"
        )
    with gr.Row(elem_classes="ls-buttons"):
        measure = gr.Button(say("importance_button"), variant="primary", elem_id="measure-score", min_width=200)
        every = gr.Button(say("importance_all"), elem_id="measure-scores", min_width=200)
    times = view("importance-times", language, 0, panel=True)
    value = json.dumps({"axis": "heads", "score": DEFAULTS["heads"]})
    chart = view("importance", language, 320, value, opened="{}")
    axis.change(
        lambda chosen: gr.update(choices=names[chosen], value=DEFAULTS[chosen]),
        axis,
        score,
        show_progress="hidden",
        queue=False,
        api_visibility="private",
    )
    follow(chart, axis=axis, score=score)
    return SimpleNamespace(axis=axis, score=score, tokens=tokens, measure=measure, every=every, times=times, chart=chart)
