"""The chart component: a gr.HTML whose script draws a view of assets/js into its own box."""

import json
from pathlib import Path
from typing import Any

import gradio as gr
import plotly

from engine.models.texts import assets_folder

# Plotly's own file from its wheel, then ours in loading order.
_OURS = (
    "core menu table terminal tabs costs heatmaps opened importance widths widthcosts masks zeros shapes strip staircase fold panels picker"
    " search sweep board recovery lineage picture slides present state"
)
SCRIPTS = (
    Path(plotly.__file__).parent / "package_data" / "plotly.min.js",
    *(assets_folder() / "js" / f"{name}.js" for name in _OURS.split()),
)
_HEAD = "".join(f'<script src="/gradio_api/file={path}"></script>' for path in SCRIPTS)

# Gradio finds event names only as quoted strings in the script.
_SCRIPT = """
const events = {{
  span: (detail) => trigger('span', detail),
  pick: (detail) => trigger('pick', detail),
  synced: (detail) => trigger('synced', detail),
  stand: (detail) => trigger('stand', detail),
  take: (detail) => trigger('take', detail),
  ask: (detail) => trigger('ask', detail),
  row: (detail) => trigger('row', detail),
  browse: (detail) => trigger('browse', detail),
  keep: (detail) => trigger('keep', detail),
  undo: (detail) => trigger('undo', detail),
  wake: (detail) => trigger('wake', detail),
}};
window.layerscope.mount({view}, element, props, (name, detail) => events[name](detail), watch);
"""


def follow(chart: gr.HTML, **controls: gr.components.Component) -> None:
    """Keep a view's value equal to the values of some controls, by name, without the server."""
    names, every = ", ".join(controls), list(controls.values())
    for control in every:
        control.change(None, every, chart, js=f"({names}) => JSON.stringify({{{names}}})", show_progress="hidden")


def view(name: str, language: str, height: int, value: str = "{}", panel: bool = False, **props: Any) -> gr.HTML:
    """Return a component that shows a view of assets/js.

    `data` is the large part, sent once; `value` is the small part that changes often, which page scripts set without the server. Both are
    JSON strings. Updates put under the view's name (see `ui.page.bench.view_updates`) arrive through the view `news`. A `panel` has no
    data. `height` is reserved from the start, so that the layout does not jump when the view fills.
    """
    return gr.HTML(
        value,
        data="",
        stale="no",
        panel=panel,
        language=language,
        html_template=f"<div class='ls-view ls-{name}' style='min-height:{height}px'></div>",
        head=_HEAD,
        js_on_load=_SCRIPT.format(view=json.dumps(name)),
        elem_id=f"ls-{name}",
        **props,
    )
