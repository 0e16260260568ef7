"""Recover: what pruning lost is given back without training."""

from types import SimpleNamespace

import gradio as gr

from engine.recover.repair import REPAIRS
from ui.page.components.chart import view
from ui.page.components.field import settings
from ui.text.words import words


def build(language: str) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    gr.Markdown(say("recover_read"))
    with gr.Row(elem_classes="ls-buttons"):
        repairs = {kind: gr.Button(say(f"repair_{kind}"), size="sm", min_width=200, elem_id=f"repair-{kind}") for kind in REPAIRS}
    refused = gr.Markdown("", elem_id="repair-refused")  # beside the buttons that the plan shown forbids
    repair_settings = settings(REPAIRS, say)
    repair_times = view("repair-times", language, 0, panel=True)
    repaired = view("repaired", language, 24, panel=True)
    parts = {"repairs": repairs, "refused": refused, "repair_settings": repair_settings}
    return SimpleNamespace(**parts, repair_times=repair_times, repaired=repaired)
