"""Export tab: write the plan shown on Fold as a checkpoint. Weights are written to disk only, never served."""

from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from engine.export.settings import FORMATS, ExportSettings
from engine.models.sources import DTYPES
from ui.page.components.chart import follow, view
from ui.page.components.field import form as form_of
from ui.text.words import words


def build(language: str, export_folder: Path) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    gr.Markdown(say("export_read"))
    summary = view("summary", language, 30, panel=True)
    form = gr.Radio(
        [(say(f"format_{name}"), name) for name in FORMATS],
        value=FORMATS[0],
        label=say("format"),
        info=say("format_info"),
        visible=False,  # shown only for a model from a GGUF file
        elem_id="export-format",
    )
    with gr.Row():
        name = gr.Textbox(
            "",
            label=say("export_name"),
            info=say("export_name_info").format(folder=export_folder),
            elem_id="export-name",
            scale=2,
            min_width=280,
        )
        dtype = gr.Dropdown(
            list(DTYPES), value="auto", label=say("dtype"), info=say("export_dtype_info"), elem_id="export-dtype", min_width=180
        )
        shard = gr.Textbox("5GB", label=say("shard"), info=say("shard_info"), elem_id="export-shard", min_width=180)

    def formatted(chosen: str) -> list[dict]:
        whole = chosen == FORMATS[0]
        return [gr.update(label=say("export_name" if whole else "export_file")), *[gr.update(visible=whole)] * 2]

    follow(summary, dtype=dtype, form=form)
    form.change(formatted, form, [name, dtype, shard], show_progress="hidden", queue=False, api_visibility="private")
    button = gr.Button(say("export_button"), variant="primary", elem_id="export-button")
    report = view("report", language, 200, panel=True)
    asked = form_of(ExportSettings, say, "export", form=form, dtype=dtype, shard_size=shard)
    return SimpleNamespace(summary=summary, name=name, asked=asked, button=button, report=report)
