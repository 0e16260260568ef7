"""The part of Recover that learns which layers and widths to remove (Sheared LLaMA)."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from engine.recover.run.settings import ShearSettings
from ui.page.components.field import field
from ui.text.commands import SHEARED, SHEARED_TO

_LOSSES = ("ce", "kl", "0.5*kl+0.5*ce")


def build(say: Callable[[str], str]) -> dict[str, Any]:
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
            more = [field(ShearSettings, name, say, f"shear_{name}", min_width=220) for name in SHEARED]
        with gr.Row(elem_classes="ls-buttons"):
            button = gr.Button(say("shear_button"), elem_id="shear-button", min_width=200)
    return {"shear_target": target, "shear_loss": loss, "shear_more": more, "shear": button}
