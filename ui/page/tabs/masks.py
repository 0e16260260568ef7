"""Weights tab: set weights to zero by a chosen method, and measure the cost."""

import json
from types import SimpleNamespace

import gradio as gr

from engine.methods.masks.pruning import MASKS
from engine.methods.masks.settings import GROUPS, PATTERNS, PruneSettings
from ui.page.components.chart import follow, view
from ui.page.components.field import form, settings
from ui.page.components.slider import Slider
from ui.text.words import words


def build(language: str) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    gr.Markdown(say("masks_read"))
    with gr.Row():
        with gr.Column(min_width=300):
            choices = [(say.declared(f"score_{name}", method.help), name) for name, method in MASKS.items()]
            method = gr.Dropdown(choices, value="wanda", label=say("masks_method"), elem_id="masks-method")
            sparsity = Slider(
                0, 0.95, 0.5, step=0.05, label=say("masks_sparsity"), info=say("masks_sparsity_info"), elem_id="masks-sparsity"
            )
            patterns = [(say("masks_pattern_none"), ""), *((name, name) for name in PATTERNS)]
            look = {"label": say("masks_pattern"), "info": say("masks_pattern_info"), "elem_id": "masks-pattern"}
            pattern = gr.Dropdown(patterns, value="", **look)
            groups = [(say("masks_group_own"), ""), *((say(f"masks_group_{name}"), name) for name in GROUPS)]
            group = gr.Dropdown(groups, value="", label=say("masks_group"), elem_id="masks-group")
            asked = form(PruneSettings, say, "masks", method=method, sparsity=sparsity, pattern=pattern, group=group)
            more = settings(MASKS, say, method)
            with gr.Row(elem_classes="ls-buttons"):
                button = gr.Button(say("masks_button"), variant="primary", elem_id="prune-button", min_width=120)
                curves = gr.Button(say("masks_curves"), elem_id="mask-curves", min_width=200)
            times = view("mask-times", language, 0, panel=True)
        with gr.Column(min_width=340):
            zeros = view("zeros", language, 0, panel=True)
            chart = view("masks", language, 300, json.dumps({"method": "wanda", "sparsity": 0.5, "pattern": ""}))
    follow(chart, method=method, sparsity=sparsity, pattern=pattern)
    return SimpleNamespace(asked=asked, more=more, button=button, curves=curves, zeros=zeros, times=times, chart=chart)
