"""Explore tab: layers that repeat each other. The views draw themselves; the radios choose the measure."""

from types import SimpleNamespace

import gradio as gr

from ui.page.components.chart import follow, view
from ui.text.words import words


def build(language: str) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    gr.Markdown(say("similarity_title"))
    gr.Markdown(say("similarity_read"))
    with gr.Row():
        measure = gr.Radio(
            [(say("measure_cosine"), "cosine"), (say("measure_angular"), "angular")],
            value="cosine",
            label=say("measure"),
            elem_id="measure",
        )
        tokens = gr.Radio(
            [(say("tokens_all"), "all"), (say("tokens_rest"), "rest")],
            value="all",
            label=say("tokens"),
            info=say("tokens_info"),
            elem_id="tokens",
        )
    similarity = view("similarity", language, 520)
    removal = gr.Button(say("removal_button"), size="sm", elem_id="removal")
    gr.Markdown(say("landscape_title"))
    gr.Markdown(say("landscape_read"))
    landscape = view("landscape", language, 300, marks="[]", hand="", alone="[]")
    with gr.Row():
        with gr.Column(min_width=340):
            gr.Markdown(say("norms_title"))
            gr.Markdown(say("norms_read"))
            norms = view("norms", language, 300)
        with gr.Column(min_width=340):
            gr.Markdown(say("weights_title"))
            gr.Markdown(say("weights_read"))
            weights = view("weights", language, 290)
            weights_measure = gr.Radio(
                [(say("weights_l2"), "l2"), (say("weights_cosine"), "cosine")],
                value="l2",
                label=say("weights_measure"),
                elem_id="weights-measure",
            )
    follow(similarity, tokens=tokens, measure=measure)
    follow(weights, weights=weights_measure)
    return SimpleNamespace(similarity=similarity, landscape=landscape, norms=norms, weights=weights, removal=removal)
