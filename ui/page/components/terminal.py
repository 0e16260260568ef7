"""The terminal commands of a tab. Python writes them while they are visible; see assets/js/terminal.js."""

import json
from typing import Any

import gradio as gr

from ui.page.components.chart import view
from ui.page.controls import FIRST
from ui.text.commands import lines_of


def terminal(tab: str, language: str, *controls: gr.components.Component) -> gr.HTML:
    """Show the commands of a tab for its controls, given in the order that `ui.text.commands` takes them.

    The view requests them. The controls' change events do not: with two listeners on a slider, Gradio (6.31) reports its changes without
    end.
    """

    def command(*values: Any) -> str:
        return json.dumps({"lines": lines_of(tab, language, *values), "T": FIRST["T"]})

    shown = view(f"terminal-{tab}", language, 0, command(*(control.value for control in controls)), panel=True)
    if controls:
        shown.browse(
            command, list(controls), shown, show_progress="hidden", queue=False, trigger_mode="always_last", api_visibility="private"
        )
    return shown
