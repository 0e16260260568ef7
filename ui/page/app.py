"""The page: composition and wiring only. What happens behind an event is in handlers.py and workbench.py."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from engine.errors import LayerscopeError
from engine.models.sources import DTYPES
from engine.models.texts import assets_folder
from ui.page.bench.shared import texts_of
from ui.page.components.chart import SCRIPTS, view
from ui.page.components.terminal import terminal
from ui.page.controls import TEXTS, state_from_query, texts_in
from ui.page.handlers import Handlers
from ui.page.picker import device_choices
from ui.page.sessions import Sessions
from ui.page.tabs import compare, explore, export, fold, importance, masks, recover, search, width
from ui.page.theme import theme
from ui.page.typed import SCRIPTS_ARE_HERE, keep_what_is_typed
from ui.text.words import LANGUAGES, all_words, words

LOOKED_AT = {"queue": False, "trigger_mode": "always_last"}  # of what a view asks by itself while somebody looks
_ENTER = f"async () => {{ {SCRIPTS_ARE_HERE} return window.layerscope.session(); }}"


def build(model: str, sessions: Sessions, export_folder: Path) -> gr.Blocks:
    """Return the whole app: one page a language."""
    with gr.Blocks(title="Layerscope", analytics_enabled=False) as demo:
        _page("en", model, sessions, export_folder, demo)
    for language, (path, _) in LANGUAGES.items():
        if path != "/":
            with demo.route(language, path, show_in_navbar=False):
                _page(language, model, sessions, export_folder, demo)
    return demo


def _page(language: str, model: str, sessions: Sessions, export_folder: Path, demo: gr.Blocks) -> None:
    say = words(language)
    other = next(path for name, (path, _) in LANGUAGES.items() if name != language)
    gr.HTML(
        f"<div class='ls-head'><h1>{say('title')}</h1><p>{say('subtitle')}</p>"
        f"<a id='ls-language' href='{other}' onclick=\"window.layerscope.language('{other}'); return false\">"
        f"{say('other_language')}</a></div>",
        padding=False,
    )
    with gr.Sidebar(width=300):
        side = _side_bar(language, model)
    with gr.Row(elem_classes="ls-status-row"):
        status = view("status", language, 50, panel=True, scale=6)
        present = view("present", language, 0, panel=True, scale=0, min_width=110)
        cancel = gr.Button(say("cancel"), size="sm", scale=0, min_width=90, interactive=False, elem_id="cancel")
    # Not gr.Tabs: it mounts a tab's components when the tab is first opened, and one that was updated before that has
    # lost its properties (seen in 6.31). These are columns that a script shows and hides.
    view("tabs", language, 44, panel=True)
    view("making", language, 28, panel=True)
    costs = view("costs", language, 0, panel=True)
    tabs = _tabs(language, export_folder)
    page = SimpleNamespace(side=side, status=status, present=present, cancel=cancel, costs=costs, **tabs)
    _connect(page, model, sessions, demo, language)


def _tabs(language: str, export_folder: Path) -> dict[str, SimpleNamespace]:
    """Lay all tabs out, each with its lines for a terminal."""
    panel = {"elem_classes": "ls-panel"}
    with gr.Column(elem_id="panel-explore", **panel):
        looked = explore.build(language)
        terminal("explore", language)
    with gr.Column(elem_id="panel-importance", **panel):
        scored = importance.build(language)
        terminal("importance", language, scored.axis, scored.score, scored.tokens)
    with gr.Column(elem_id="panel-fold", **panel):
        folded = fold.build(language)
        laco = [folded.C, folded.I, folded.L, folded.H, folded.rule, folded.similarity]
        terminal("fold", language, folded.plan, *laco)
    with gr.Column(elem_id="panel-widths", **panel):
        cut = width.build(language)
        terminal("widths", language, *width.settings(cut), scored.tokens)
    with gr.Column(elem_id="panel-masks", **panel):
        masked = masks.build(language)
        terminal("masks", language, masked.method, masked.sparsity, masked.pattern, masked.group, scored.tokens, *masked.more)
    with gr.Column(elem_id="panel-search", **panel):
        found = search.build(language)
        asked = [*search.shape_settings(found), scored.tokens]
        terminal("search", language, *asked, *search.settings(found), found.method, *found.method_settings)
    with gr.Column(elem_id="panel-compare", **panel):
        judged = compare.build(language)
        terminal("compare", language, *compare.settings(judged), judged.ablation, *laco)
    with gr.Column(elem_id="panel-recover", **panel):
        recovered = recover.build(language)
        terminal("recover", language, *recovered.repair_settings)
    with gr.Column(elem_id="panel-export", **panel):
        written = export.build(language, export_folder)
        terminal("export", language, written.name, written.dtype, written.shard)
    first = {"explore": looked, "importance": scored, "fold": folded, "width": cut, "masks": masked}
    return {**first, "search": found, "compare": judged, "recover": recovered, "export": written}


def _side_bar(language: str, model: str) -> SimpleNamespace:
    say = words(language)
    where = gr.Textbox(model, label=say("model"), info=say("model_info"), elem_id="model", max_lines=1, interactive=False)
    models = view("models", language, 34, panel=True)
    dtype = gr.Dropdown(list(DTYPES), value="auto", label=say("dtype"), info=say("dtype_info"), elem_id="dtype")
    device = gr.Dropdown(device_choices(say), value="cpu", label=say("device"), elem_id="device")
    texts = gr.Dropdown(
        [(say(f"texts_{name}"), name) for name in TEXTS],
        value=texts_in(language),
        label=say("texts"),
        info=say("texts_info"),
        elem_id="texts",
    )
    own = gr.Textbox("", label=say("own_texts"), lines=6, max_lines=12, visible=False, elem_id="own-texts")
    button = gr.Button(say("open"), variant="primary", interactive=False, elem_id="open")  # until the page has come in
    spec = view("spec", language, 150, panel=True)
    texts.change(
        lambda choice: gr.update(visible=choice == "own"), texts, own, show_progress="hidden", queue=False, api_visibility="private"
    )
    return SimpleNamespace(model=where, models=models, dtype=dtype, device=device, texts=texts, own=own, button=button, spec=spec)


def _connect(page: SimpleNamespace, model: str, sessions: Sessions, demo: gr.Blocks, language: str) -> None:
    side, tab = page.side, page.fold
    session = gr.State("")
    seen = gr.Number(0, visible="hidden", precision=0)  # in the browser, which knows what it was told
    tab_id, query, own = (gr.Textbox("", visible="hidden") for _ in range(3))  # a gr.State cannot be filled by a script
    timer = gr.Timer(0.4, active=False)
    seen_by = page.explore
    charts = {
        "similarity": seen_by.similarity, "landscape": seen_by.landscape, "norms": seen_by.norms, "weights": seen_by.weights,
        "fold": tab.fold, "spec": side.spec, "report": page.export.report, "summary": page.export.summary,
        "search": page.search.chart, "board": page.compare.board, "download": page.compare.download, "repaired": page.recover.repaired,
        "ablation": page.compare.ablated, "costs": page.costs, "sweep": page.search.sweep, "repair_times": page.recover.repair_times,
        "importance": page.importance.chart, "widths": page.width.chart, "masks": page.masks.chart, "widthcosts": page.width.costs,
        "importance_times": page.importance.times, "trim_times": page.width.times, "mask_times": page.masks.times,
        "shapes": page.search.shapes, "zeros": page.masks.zeros,
    }  # fmt: skip
    sliders = {"highest": tab.H, "lowest": tab.L, "width": tab.C, "target": tab.target}
    sliders |= {"plan": tab.plan, "spans": tab.spans, "format": page.export.form}
    sliders |= {f"width_{name}": getattr(page.width, name) for name in ("by", "heads", "neurons", "channels")}
    sliders |= {"shapes_budget": page.search.budget}
    on = Handlers(sessions, model, charts, sliders, language)
    answer = [page.status, page.cancel, timer]
    told = [*answer, seen, *charts.values(), *sliders.values(), session]
    common = {"show_progress": "hidden", "api_visibility": "private"}
    settings = [tab.C, tab.I, tab.L, tab.H, tab.rule, tab.similarity]
    opening = [side.model, side.dtype, side.device, side.texts]

    entering = [session, seen, *opening, *fold.state_controls(tab).values(), side.button, *answer]
    entered = demo.load(on.enter, [tab_id, query, own], entering, js=_ENTER, **common)
    at_hand = [side.models, side.device]
    entered.then(on.models, session, at_hand, queue=False, **common)
    side.models.browse(on.models, session, at_hand, queue=False, **common)
    entered.then(None, side.texts, None, js="(texts) => { window.layerscope.opened({texts}); }")  # so that a link keeps them
    keep_what_is_typed(page, demo, common)
    # Nobody else tells: of two answers with news on their way at once the later one could come first, and the older one stay.
    timer.tick(on.tell, [session, seen], told, queue=False, trigger_mode="once", **common)

    pressed = [side.button.click, side.model.submit]
    asked = [session, *opening, side.own, *settings]
    gr.on(pressed, on.open, asked, answer, trigger_mode="always_last", **common)
    gr.on(pressed, None, opening, None, js="(model, dtype, device, texts) => { window.layerscope.opened({model, dtype, device, texts}); }")
    # A model that has just been opened is asked for the controls' map too: they may have moved since it was asked for.
    gr.on(
        [session.change, *(control.change for control in settings)],
        on.ask,
        [session, *settings],
        answer,
        trigger_mode="always_last",
        **common,
    )
    tab.spans.change(on.spans, [session, tab.spans], answer, trigger_mode="always_last", **common)
    for chart in (seen_by.similarity, seen_by.landscape):
        chart.span(on.toggle, tab.spans, [tab.spans, tab.plan], **common)
    tab.fold.stand(on.stand, session, answer, queue=False, trigger_mode="always_last", **common)
    tab.clear.click(lambda: ("[]", "map"), None, [tab.spans, tab.plan], **common)
    kept = tab.fold.keep(on.save_plan, [session, tab.plan, tab.T], [tab.saved, *answer], **common)
    kept.then(None, tab.saved, None, js="(file) => { window.layerscope.fetched(file); }")
    tab.load.upload(on.load_plan, [session, tab.load], answer, **common)
    seen_by.removal.click(on.removal, session, answer, **common)
    chosen = [tab.plan, tab.T, page.export.dtype, page.export.shard, page.export.name, page.export.form]
    page.export.button.click(on.export, [session, *chosen], answer, **common)
    _connect_search(page, on, session, answer, common)
    _connect_lab(page, on, session, answer, common)
    page.cancel.click(on.cancel, session, answer, queue=False, **common)
    page.status.wake(on.wake, session, answer, queue=False, **common)


def _connect_search(page: SimpleNamespace, on: Handlers, session: gr.State, answer: list[Any], common: dict[str, Any]) -> None:
    """Wire Search, Compare and Recover."""
    tab, found, compare_tab = page.fold, page.search, page.compare
    judged_on = [compare_tab.texts, compare_tab.own, compare_tab.tokens]
    shown = [session, tab.plan, tab.T]
    measured = [compare_tab.tasks, compare_tab.limit, compare_tab.context, compare_tab.batch]
    compare_tab.judge.click(on.judge, [*shown, *judged_on, compare_tab.also, *measured], answer, **common)
    compare_tab.judge_map.click(on.judge_map, [session, *judged_on], answer, **common)
    compare_tab.report.click(on.report, [*shown, *judged_on, compare_tab.also, *measured], answer, **common)
    page.present.ask(on.measure, [*shown, *judged_on, *measured], answer, **common)
    compare_tab.ablate.click(on.ablate, [session, compare_tab.ablation, tab.T, *judged_on], answer, **common)
    compare_tab.board.row(on.board, [session, *measured], answer, **common)
    page.recover.repaired.undo(on.undo_repair, session, answer, **common)
    for kind, button in page.recover.repairs.items():
        name = gr.State(kind)
        button.click(on.repair, [*shown, name, *judged_on, *page.recover.repair_settings], answer, **common)
    looked_at = [*shown, compare_tab.tokens, *page.recover.repair_settings]
    told = [page.recover.repair_times, *answer]
    page.recover.repair_times.browse(on.repair_times, looked_at, told, **LOOKED_AT, **common)
    found.button.click(on.search, [session, *search.settings(found)], answer, **common)
    asked = [session, found.method, found.kind, found.amount, found.objective, *found.method_settings]
    found.make.click(on.baseline, asked, answer, **common)
    asked = [session, *search.shape_settings(found), page.importance.tokens]
    found.shapes_button.click(on.shapes, asked, answer, **common)
    found.shapes.row(on.shape, session, answer, **common)
    found.sweep_button.click(on.sweep, [session, found.sweep_seconds], answer, **common)
    taken = "() => { const s = window.layerscope.taken; window.layerscope.touched(); return [s.C, s.I, s.rule, s.T, 'map']; }"
    chosen = "() => { window.layerscope.touched(); return [window.layerscope.picked, 'map']; }"
    page.present.take(None, None, [tab.T, tab.plan], js=chosen, **common)
    found.sweep.take(None, None, [tab.C, tab.I, tab.rule, tab.T, tab.plan], js=taken, **common)


def _connect_lab(page: SimpleNamespace, on: Handlers, session: gr.State, answer: list[Any], common: dict[str, Any]) -> None:
    """Wire Importance, Width and Weights."""
    scored, cut, masked = page.importance, page.width, page.masks
    shown = [session, page.fold.plan, page.fold.T]
    measured = [session, scored.axis, scored.score, scored.tokens]
    scored.measure.click(on.importance, measured, answer, **common)
    scored.every.click(on.importances, [session, scored.axis, scored.tokens], answer, **common)
    scored.times.browse(on.importance_times, measured, [scored.times, *answer], **LOOKED_AT, **common)
    scored.chart.pick(on.look, [session, scored.tokens], answer, **common)
    scored.chart.ask(on.losses, session, answer, **common)
    cut.button.click(on.trim, [*shown, *width.settings(cut), scored.tokens], answer, **common)
    asked = [masked.method, masked.sparsity, masked.pattern, masked.group, scored.tokens, *masked.more]
    masked.button.click(on.prune, [*shown, *asked], answer, **common)
    for looked in (cut.times.browse, cut.score.change, cut.beside.change, scored.tokens.change):
        looked(on.trim_times, [session, cut.score, cut.beside, scored.tokens], [cut.times, *answer], **LOOKED_AT, **common)
    masked.times.browse(on.mask_times, [session, masked.method, scored.tokens], [masked.times, *answer], **LOOKED_AT, **common)
    masked.curves.click(on.mask_curves, [session, masked.sparsity], answer, **common)
    cut.curves.click(on.width_curves, [session, cut.heads, cut.neurons, cut.channels], answer, **common)
    masked.zeros.ask(on.time_zeros, shown, answer, **common)


def serve(model: str, host: str, port: int, exports: Path, browser: bool | None = None, block: bool = True) -> gr.Blocks:
    """Serve the page until interrupted; nothing is reachable from outside this machine unless `host` says so.

    Raises:
        LayerscopeError: the environment asks for remote code editing, or the port is taken.
    """
    if os.environ.get("GRADIO_VIBE_MODE"):
        raise LayerscopeError("GRADIO_VIBE_MODE lets visitors edit code on this machine; unset it and start again")
    if browser is None:  # where somebody sits at a screen
        browser = sys.stdout.isatty() and (
            sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        )
    exports = exports.expanduser().resolve()
    gr.set_static_paths(list(SCRIPTS))
    speech = json.dumps({language: all_words(language) for language in LANGUAGES}, ensure_ascii=False).replace("</", "<\\/")
    head = f"<script>window.layerscopeWords = {speech}</script>"
    sessions, first = Sessions(exports), state_from_query("", model)
    ahead = sessions.open_ahead()
    ahead.look(first.T)
    ahead.open(first.model, first.dtype, texts_of(first.texts, ""), first.settings())
    demo = build(model, sessions, exports)
    try:
        demo.launch(
            server_name=host, server_port=port, inbrowser=browser, quiet=True, theme=theme(),
            css_paths=[assets_folder() / "layerscope.css"], head=head,
            footer_links=["settings"], run_history=False, enable_monitoring=False,
            prevent_thread_lock=True, ssr_mode=False,
        )  # fmt: skip
    except OSError as error:
        sessions.close()  # a thread that is still inside torch would abort the exit
        raise LayerscopeError(f"port {port} is taken; choose another with --port") from error
    sys.stderr.write(f"Layerscope is open at http://{host}:{port}\n")
    if block:
        demo.block_thread()
        if not sessions.close():
            os._exit(0)  # see above
    return demo
