"""The part of Recover that learns which layers and widths to remove (Sheared LLaMA)."""

from typing import Any

import gradio as gr

from engine.recover.run.settings import ShearSettings
from ui.page.components.field import form
from ui.text.commands import SHEARED_TO
from ui.text.words import Words

_LOSSES = ("ce", "kl", "0.5*kl+0.5*ce")


def build(say: Words) -> dict[str, Any]:
    """Lay it out in a closed accordion, and return its components by name."""
    with gr.Accordion(say("shear_title"), open=False, elem_id="shear"):
        gr.Markdown(say("shear_read"))
        with gr.Row():
            bounds = {"info": say("shear_target_info"), "minimum": 0, "precision": 0, "min_width": 150}
            target = [gr.Number(0, label=say(f"shear_{name}"), elem_id=f"shear-{name}", **bounds) for name in SHEARED_TO]
        with gr.Row():
            loss = gr.Dropdown(
                _LOSSES, value="ce", label=say("shear_loss"), info=say("shear_loss_info"), elem_id="shear-loss", min_width=180
            )
            asked = form(ShearSettings, say, "shear", {"min_width": 220}, loss=loss)
        with gr.Row(elem_classes="ls-buttons"):
            button = gr.Button(say("shear_button"), elem_id="shear-button", min_width=200)
    return {"shear_target": target, "shear_asked": asked, "shear": button}
