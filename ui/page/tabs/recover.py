"""Recover tab: repairs without training, and training runs that distil the source into the plan."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from engine.corpus.building import SELF
from engine.recover.distill.distillation import LOSSES
from engine.recover.distill.student import TRAINS
from engine.recover.repair.seam_maps import REPAIRS
from engine.recover.run.settings import RecoverySettings
from ui.page.components.chart import view
from ui.page.components.field import field, form
from ui.page.components.field import settings as settings_of
from ui.page.tabs import shear
from ui.text.words import Words, words

TEXTS = (SELF, "practice")
BUDGETS = ("minutes", "tokens")
_SUMS = ("kl+cosine", "0.5*kl+0.5*ce")  # offered sums of losses; the user may type any other


def build(language: str, export_folder: Path) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    parts = _repairs(say, language) | _learning(say, export_folder) | shear.build(say)
    return SimpleNamespace(**parts, runs=view("recovery", language, 60, panel=True))


def asked(tab: SimpleNamespace) -> list[gr.components.Component]:
    """Return the controls of a recovery run, in the order of `RecoverHandlers.learn`."""
    return [tab.texts, tab.files, tab.budget, tab.amount, *tab.asked.values()]


def sheared(tab: SimpleNamespace) -> list[gr.components.Component]:
    """Return the controls of a shearing run, in the order of `RecoverHandlers.shear`."""
    return [tab.texts, tab.files, *tab.shear_target, *tab.shear_asked.values()]


def _repairs(say: Words, language: str) -> dict[str, Any]:
    """Repairs without training."""
    gr.Markdown(say("recover_title"))
    gr.Markdown(say("recover_read"))
    with gr.Row(elem_classes="ls-buttons"):
        repairs = {kind: gr.Button(say(f"repair_{kind}"), size="sm", min_width=200, elem_id=f"repair-{kind}") for kind in REPAIRS}
    refused = gr.Markdown("", elem_id="repair-refused")  # why some buttons are disabled
    repair_settings = settings_of(REPAIRS, say)
    repair_times = view("repair-times", language, 0, panel=True)
    repaired = view("repaired", language, 24, panel=True)
    parts = {"repairs": repairs, "refused": refused, "repair_settings": repair_settings}
    return {**parts, "repair_times": repair_times, "repaired": repaired}


def _learning(say: Words, export_folder: Path) -> dict[str, Any]:
    """A recovery run's texts, budget and folder."""
    gr.Markdown(say("learn_title"))
    gr.Markdown(say("learn_read"))
    with gr.Row():
        choices = [(say(f"learn_from_{name}"), name) for name in TEXTS]
        texts = gr.CheckboxGroup(choices, value=[SELF], label=say("learn_texts"), elem_id="learn-texts", min_width=260)
        asked = {"label": say("learn_files"), "info": say("learn_files_info"), "elem_id": "learn-files", "min_width": 320}
        files = gr.Textbox("", lines=2, max_lines=6, scale=2, **asked)
    with gr.Row():
        choices = [(say(f"learn_by_{name}"), name) for name in BUDGETS]
        budget = gr.Dropdown(choices, value="minutes", label=say("learn_budget"), elem_id="learn-budget", min_width=160)
        amount = gr.Number(10, label=say("search_amount"), minimum=0, elem_id="learn-amount", min_width=130)
        choices = [(say(f"train_{name}"), name) for name in TRAINS]
        train = gr.Dropdown(
            choices, value="all", label=say("learn_train"), info=say("learn_train_info"), elem_id="learn-train", min_width=210
        )
        until = field(RecoverySettings, "until", say, "learn_until", value=0, minimum=0, min_width=180)
        named = {"label": say("learn_name"), "info": say("export_name_info").format(folder=export_folder), "elem_id": "learn-name"}
        name = gr.Textbox("", max_lines=1, min_width=240, scale=2, **named)
    with gr.Accordion(say("more"), open=False), gr.Row():
        choices = [(say("loss_auto"), ""), *((facts, facts) for facts in (*LOSSES, *_SUMS))]
        how = {"label": say("learn_loss"), "info": say("learn_loss_info"), "elem_id": "learn-loss", "min_width": 220}
        loss = gr.Dropdown(choices, value="", allow_custom_value=True, **how)
        settings = form(RecoverySettings, say, "learn", {"min_width": 180}, train=train, until=until, loss=loss)
    with gr.Row(elem_classes="ls-buttons"):
        button = gr.Button(say("learn_button"), variant="primary", elem_id="learn-button", min_width=200)
        measure = gr.Button(say("learn_measure"), elem_id="learn-measure", min_width=200)
    parts = {"texts": texts, "files": files, "budget": budget, "amount": amount, "name": name}
    return {**parts, "asked": settings, "learn": button, "measure": measure}
