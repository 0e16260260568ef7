"""Fold tab: the settings of Layer Collapse and the plan shown. The page's scripts look T up in the map; see assets/js/fold.js."""

import json
from types import SimpleNamespace
from typing import Any

import gradio as gr

from engine.methods.depth.laco import LacoSettings
from ui.page.bench.workbench import T_MIN
from ui.page.components.chart import view
from ui.page.components.field import field
from ui.page.components.slider import Slider
from ui.page.controls import FIRST, PLANS, PRESETS
from ui.text.words import Words, words


def build(language: str) -> SimpleNamespace:
    """Lay the tab out and return its components by name."""
    say = words(language)
    gr.Markdown(say("fold_first"))
    with gr.Row(elem_id="fold-bench"):
        with gr.Column(elem_id="fold-controls"):
            with gr.Column(elem_id="fold-axis"):
                described = view("described", language, 0, panel=True)
                parts = _axis(say)
            with gr.Column(elem_id="fold-settings"):
                parts |= _settings(say) | _buttons(say)
        with gr.Column(elem_id="fold-view"):
            parts["fold"] = view(
                "fold", language, 560, json.dumps({"T": FIRST["T"], "plan": "map"}), hand="", file="", found="", judged="{}"
            )
    parts |= {"described": described, **_files(say), **_more(say)}
    parts["spans"] = gr.Textbox("[]", visible="hidden", elem_id="spans")
    tab = SimpleNamespace(**parts)
    _connect(tab)
    return tab


def _axis(say: Words) -> dict[str, Any]:
    """T and the target depth."""
    T = _field("T", say, minimum=T_MIN)
    target = Slider(1, 30, 30, step=1, precision=0, label=say("target"), info=say("target_picks"), elem_id="target")
    return {"T": T, "target": target}


def _settings(say: Words) -> dict[str, Any]:
    """C, I and the rule."""
    return {"C": _field("C", say), "I": _field("I", say), "rule": _field("rule", say)}


def _field(name: str, say: Words, setting: str = "", words: str = "", **look: Any) -> Any:
    """A control of Algorithm 1, by its name in a link, at the page's initial value."""
    label = {"label": name} if len(name) == 1 else {}  # the paper's letters
    return field(LacoSettings, setting or name, say, words or name, **{"value": FIRST[name], **label, **look})


def _buttons(say: Words) -> dict[str, Any]:
    """Presets, undo and redo, and the choice of the plan shown."""
    with gr.Row(elem_classes="ls-buttons"):
        presets = {name: gr.Button(say(name), size="sm", min_width=80, elem_id=name) for name in PRESETS}
        undo, redo = (gr.Button(say(name), size="sm", min_width=80, elem_id=name) for name in ("undo", "redo"))
    names = [(say(f"plan_{name}"), name) for name in PLANS]
    plan = gr.Radio(names, value="map", label=say("plan"), info=say("plan_info"), elem_id="plan")
    return {"undo": undo, "redo": redo, "presets": presets, "plan": plan}


def _files(say: Words) -> dict[str, Any]:
    """Saving and loading plans."""
    with gr.Accordion(say("files"), open=False), gr.Row(elem_classes="ls-buttons"):
        save = gr.Button(say("save_plan"), size="sm", elem_id="save-plan", min_width=160)
        asked = {"file_types": [".json", ".zip", ".safetensors"], "file_count": "multiple", "elem_id": "load-plan"}
        load = gr.UploadButton(say("load_plan"), size="sm", min_width=160, **asked)
        clear = gr.Button(say("clear"), size="sm", elem_id="clear-plan", min_width=160)
    saved = gr.File(visible="hidden")  # the page's script downloads it
    return {"save": save, "load": load, "clear": clear, "saved": saved}


def _more(say: Words) -> dict[str, Any]:
    """Rarely changed settings."""
    with gr.Accordion(say("more"), open=False), gr.Row():
        L = _field("L", say, "lowest", maximum=29, min_width=200)
        H = _field("H", say, "highest", maximum=30, value=30, min_width=200)
        similarity = _field("similarity", say, words="definition", min_width=280)
        snap = gr.Checkbox(True, label=say("snap"), elem_id="snap", min_width=200)
    return {"L": L, "H": H, "similarity": similarity, "snap": snap}


def settings(tab: SimpleNamespace) -> list[gr.components.Component]:
    """Return the controls that a T map depends on; T itself is the map's axis."""
    return [tab.C, tab.I, tab.L, tab.H, tab.rule, tab.similarity]


def state_controls(tab: SimpleNamespace) -> dict[str, gr.components.Component]:
    """Return the tab's controls that a link holds, by their names in the query."""
    names = ("T", "C", "I", "L", "H", "rule", "similarity", "plan", "spans")
    return {name: getattr(tab, name) for name in names}


def _connect(tab: SimpleNamespace) -> None:
    """Wire what needs no server: each event runs a script alone (fn=None), so dragging T sends no request."""
    quiet = {"show_progress": "hidden", "trigger_mode": "always_last"}
    ls = "window.layerscope"
    # The user's T may snap to the map's next step; every change of T redraws and updates the target.
    tab.T.input(None, [tab.T, tab.snap], tab.T, js=f"(T, snap) => {ls}.snap(T, snap)", **quiet)
    shown = f"(T, plan, target) => [JSON.stringify({{T, plan}}), {ls}.depthAt(T) ?? target]"
    for moved in (tab.T.change, tab.plan.change, tab.fold.synced):
        moved(None, [tab.T, tab.plan, tab.target], [tab.fold, tab.target], js=shown, **quiet)
    tab.target.input(None, [tab.target, tab.T], tab.T, js=f"(target, T) => {ls}.aim(target) ?? T", **quiet)
    tab.fold.pick(None, None, tab.T, js=f"() => {ls}.picked", **quiet)
    tab.save.click(None, js=f"() => {{ {ls}.savePlan(); }}")

    controls = state_controls(tab)
    names = json.dumps(list(controls))
    remember = f"(...values) => {{ {ls}.changed({names}, values); }}"
    gr.on([control.change for control in controls.values()], None, list(controls.values()), None, js=remember, **quiet)
    for button, step in ((tab.undo, "undo"), (tab.redo, "redo")):
        button.click(None, list(controls.values()), list(controls.values()), js=f"(...values) => {ls}.{step}(values)", **quiet)
    for name, (t, c, i, low, high, rule, definition) in PRESETS.items():
        values = json.dumps([t, c, i, low, high, rule, definition, "map"])
        outputs = [controls[key] for key in ("T", "C", "I", "L", "H", "rule", "similarity", "plan")]
        script = f"() => {{ const v = {values}; v[4] ??= {ls}.map?.depth ?? 30; return v; }}"
        tab.presets[name].click(None, None, outputs, js=script, **quiet)
