"""The lines that do in a terminal what a tab does. Python writes them while somebody looks at them; see assets/js/terminal.js."""

import json
from typing import Any

import gradio as gr

from ui.page.components.chart import view
from ui.page.controls import FIRST
from ui.text.commands import lines_of


def terminal(tab: str, language: str, *controls: gr.components.Component) -> gr.HTML:
    """Show the lines of a tab for its controls: those that `ui.text.commands` writes the tab's lines from, in order.

    They are asked for by the view, not by the controls' change: listening to a slider twice makes Gradio (6.31) report its
    changes without end.
    """

    def told(*values: Any) -> str:
        return json.dumps({"lines": lines_of(tab, language, *values), "T": FIRST["T"]})

    shown = view(f"terminal-{tab}", language, 0, told(*(control.value for control in controls)), panel=True)
    if controls:
        shown.browse(told, list(controls), shown, show_progress="hidden", queue=False, trigger_mode="always_last", api_visibility="private")
    return shown
