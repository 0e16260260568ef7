"""Compare tab: costs of plans on held-out texts, side by side."""

from types import SimpleNamespace
from typing import Any

import gradio as gr

from engine.judge.settings import TOKENS, CacheSettings, TaskSettings
from engine.search.ablations import ABLATIONS
from ui.page.bench.plans.measuring import ALSO
from ui.page.components.chart import view
from ui.page.components.field import field, form
from ui.page.controls import TEXTS, texts_in
from ui.text.words import Words, words


def build(language: str) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    gr.Markdown(say("compare_read"))
    parts = _judged_on(say, language)
    with gr.Row(elem_classes="ls-buttons"):
        parts["judge"] = gr.Button(say("judge_button"), variant="primary", elem_id="judge", min_width=200)
        parts["judge_map"] = gr.Button(say("judge_map_button"), elem_id="judge-map", min_width=200)
        parts["report"] = gr.Button(say("report_button"), elem_id="make-report", min_width=200)
    parts["board"] = view("board", language, 420)
    parts["lineage"] = view("lineage", language, 0, panel=True)
    parts |= _more(say) | _ablations(say, language)
    parts["download"] = view("download", language, 1, panel=True)
    return SimpleNamespace(**parts)


def _judged_on(say: Words, language: str) -> dict[str, Any]:
    """The evaluation texts, the number of tokens, and the optional measurements."""
    with gr.Row():
        texts = gr.Dropdown(
            [(say(f"judge_{name}"), name) for name in TEXTS],
            value=texts_in(language),
            label=say("judge_texts"),
            info=say("judge_texts_info"),
            elem_id="judge-texts",
            min_width=240,
        )
        amount = {"label": say("judge_tokens"), "info": say("judge_tokens_info"), "elem_id": "judge-tokens"}
        tokens = gr.Slider(500, TOKENS, 4000, step=500, precision=0, min_width=240, **amount)
        choices = [(say(f"also_{what}"), what) for what in ALSO]
        also = gr.CheckboxGroup(
            choices, value=["samples", "speed"], label=say("also"), info=say("also_info"), elem_id="also", min_width=240
        )
    own = gr.Textbox("", label=say("judge_own"), lines=5, max_lines=10, visible=False, elem_id="judge-own")
    texts.change(
        lambda choice: gr.update(visible=choice == "own"), texts, own, show_progress="hidden", queue=False, api_visibility="private"
    )
    return {"texts": texts, "tokens": tokens, "also": also, "own": own}


def _more(say: Words) -> dict[str, Any]:
    """Settings of the tasks and the KV cache."""
    with gr.Accordion(say("more"), open=False), gr.Row():
        names = gr.Textbox("bundled", label=say("tasks"), info=say("tasks_info"), max_lines=1, elem_id="tasks", min_width=300)
        asked = form(TaskSettings, say, "tasks", names=names)
        asked |= {"context": field(CacheSettings, "context", say, "cache_context", info=say("cache_info"))}
        asked |= {"batch": field(CacheSettings, "batch", say, "cache_batch")}
    return {"asked": asked}


def _ablations(say: Words, language: str) -> dict[str, Any]:
    """The paper's ablations around the settings on Fold."""
    gr.Markdown(say("ablation_title"))
    gr.Markdown(say("ablation_read"))
    with gr.Row(elem_classes="ls-buttons"):
        choices = [(say(f"ablation_{name}"), name) for name in ABLATIONS]
        bare = {"label": say("ablation_button"), "show_label": False, "container": False, "min_width": 300}
        ablation = gr.Dropdown(choices, value="drop-or-merge", elem_id="ablation", **bare)
        ablate = gr.Button(say("ablation_button"), elem_id="ablate", min_width=160)
    return {"ablation": ablation, "ablate": ablate, "ablated": view("ablation", language, 120)}


def settings(tab: SimpleNamespace) -> list[gr.components.Component]:
    """Return the controls of judging and measuring."""
    return [tab.texts, tab.tokens, tab.also, *tab.asked.values()]
