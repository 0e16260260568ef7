"""The page: composition only. Handlers ask the workbench; a timer brings back what it has to tell."""

import json
import os
import re
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from engine.calibration import assets_folder
from engine.errors import LayerscopeError
from engine.methods.laco import LacoSettings
from engine.sources import DTYPES
from ui import controls
from ui.components.chart import SCRIPTS, view
from ui.tabs import explore, export, fold
from ui.text import LANGUAGES, all_words, words
from ui.workbench import Workbench, suggested_name, texts_of

# Scripts come with the first view and may still be on their way when the page is there.
_ENTER = "async () => { while (!window.layerscope?.session) await new Promise((go) => setTimeout(go, 20)); return window.layerscope.session(); }"
_BENCHES: dict[str, tuple[Workbench, float]] = {}
_BENCHES_LOCK = threading.Lock()
_IDLE_FOR = 6 * 3600.0  # seconds after which an unused workbench is forgotten


def workbench(session: str, export_folder: Path) -> Workbench:
    """Return the workbench of a browser tab, made when it first asks."""
    now = time.monotonic()
    with _BENCHES_LOCK:
        for key in [key for key, (_, used) in _BENCHES.items() if now - used > _IDLE_FOR]:
            _BENCHES.pop(key)[0].runner.cancel()
        bench = _BENCHES[session][0] if session in _BENCHES else Workbench(export_folder)
        _BENCHES[session] = (bench, now)
    bench.runner.heard()
    return bench


def build(model: str, export_folder: Path) -> gr.Blocks:
    """Return the whole app: one page a language."""
    with gr.Blocks(title="Layerscope", analytics_enabled=False) as demo:
        _page("en", model, export_folder, demo)
    for language, (path, _) in LANGUAGES.items():
        if path != "/":
            with demo.route(language, path, show_in_navbar=False):
                _page(language, model, export_folder, demo)
    return demo


def _page(language: str, model: str, export_folder: Path, demo: gr.Blocks) -> None:
    say = words(language)
    other = next(path for name, (path, _) in LANGUAGES.items() if name != language)
    gr.HTML(
        f"<div class='ls-head'><h1>{say('title')}</h1><p>{say('subtitle')}</p>"
        f"<a role='button' tabindex='0' id='ls-language' onclick=\"window.layerscope.language('{other}')\">{say('other_language')}</a></div>",
        padding=False,
    )
    with gr.Sidebar(width=300):
        side = _side_bar(language, model)
    with gr.Row(elem_classes="ls-status-row"):
        status = view("status", language, 50, panel=True, scale=6)
        cancel = gr.Button(say("cancel"), size="sm", scale=0, min_width=90, interactive=False, elem_id="cancel")
    # Not gr.Tabs: it mounts a tab's components when the tab is first opened, and one that was updated before that has
    # lost its properties (seen in 6.31). These are columns that a script shows and hides.
    view("tabs", language, 44, panel=True)
    with gr.Column(elem_id="panel-explore", elem_classes="ls-panel"):
        explore_tab = explore.build(language)
    with gr.Column(elem_id="panel-fold", elem_classes="ls-panel"):
        fold_tab = fold.build(language)
    with gr.Column(elem_id="panel-export", elem_classes="ls-panel"):
        export_tab = export.build(language, export_folder)
    _connect(SimpleNamespace(side=side, status=status, cancel=cancel, explore=explore_tab, fold=fold_tab, export=export_tab), model, export_folder, demo)


def _side_bar(language: str, model: str) -> SimpleNamespace:
    say = words(language)
    where = gr.Textbox(model, label=say("model"), info=say("model_info"), elem_id="model", max_lines=1)
    dtype = gr.Dropdown(list(DTYPES), value="auto", label=say("dtype"), info=say("dtype_info"), elem_id="dtype")
    texts = gr.Dropdown([(say(f"texts_{name}"), name) for name in ("english", "korean", "own")], value="english", label=say("texts"), info=say("texts_info"), elem_id="texts")
    own = gr.Textbox("", label=say("own_texts"), lines=6, max_lines=12, visible=False, elem_id="own-texts")
    button = gr.Button(say("open"), variant="primary", elem_id="open")
    spec = view("spec", language, 150, panel=True)
    texts.change(lambda choice: gr.update(visible=choice == "own"), texts, own, show_progress="hidden", queue=False, api_visibility="private")
    return SimpleNamespace(model=where, dtype=dtype, texts=texts, own=own, button=button, spec=spec)


def _connect(page: SimpleNamespace, model: str, export_folder: Path, demo: gr.Blocks) -> None:
    """Wire the page to the workbench. Every handler answers with the status; the timer brings the rest."""
    side, tab = page.side, page.fold
    session, seen = gr.State(""), gr.State(0)
    tab_id, query = (gr.Textbox("", visible="hidden") for _ in range(2))  # a gr.State cannot be filled by a script
    timer = gr.Timer(0.4, active=False)
    charts = {
        "similarity": page.explore.similarity, "landscape": page.explore.landscape, "norms": page.explore.norms, "weights": page.explore.weights,
        "fold": tab.fold, "spec": side.spec, "report": page.export.report, "summary": page.export.summary,
    }  # fmt: skip
    sliders = {"highest": tab.H, "lowest": tab.L, "width": tab.C, "target": tab.target}
    told = [*charts.values(), *sliders.values()]
    common = {"show_progress": "hidden", "api_visibility": "private"}
    answer = [page.status, page.cancel, timer]

    def status_of(bench: Workbench) -> list[Any]:
        state = bench.runner.state()
        value = {"kind": state[0], "label": state[1].label, "fraction": state[1].fraction} if state else {}
        return [json.dumps({**value, "problem": bench.runner.problem}), gr.update(interactive=state is not None), gr.Timer(active=state is not None)]

    def act(bench: Workbench, do: Any) -> list[Any]:
        """Do something a person asked for; what they did wrong becomes the status line."""
        try:
            bench.runner.problem = None
            do()
        except LayerscopeError as error:
            bench.runner.problem = str(error)
        return status_of(bench)

    def tell(key: str, since: int) -> list[Any]:
        bench = workbench(key, export_folder)
        serial, fresh = bench.news(since)
        drawn = [gr.HTML(**{**chart.props, **fresh[name]}) if name in fresh else gr.skip() for name, chart in charts.items()]
        moved = [gr.update(**fresh[name]) if name in fresh else gr.skip() for name in sliders]
        return [*status_of(bench), serial, *drawn, *moved]

    def enter(key: str, text: str) -> list[Any]:
        key = key if re.fullmatch(r"[0-9a-f]{32}", key) else os.urandom(16).hex()
        bench = workbench(key, export_folder)
        state = controls.state_from_query(text, model)
        spans = state.spans if _spans(state.spans) else "[]"
        answer = act(bench, lambda: bench.open(state.model, state.dtype, texts_of(state.texts if state.texts != "own" else "english", ""), state.settings()))
        highest = state.H or (bench.model.spec.depth if bench.model else 30)
        values = [state.model, state.dtype, state.texts if state.texts != "own" else "english", state.T, state.C, state.I, state.L, highest, state.rule, state.similarity, state.plan, spans]
        return [key, 0, *values, *answer]

    link = [side.model, side.dtype, side.texts, *fold.state_controls(tab).values()]
    demo.load(enter, [tab_id, query], [session, seen, *link, *answer], js=_ENTER, **common).then(
        tell, [session, seen], [*answer, seen, *told], **common
    )
    timer.tick(tell, [session, seen], [*answer, seen, *told], queue=False, trigger_mode="once", **common)

    settings = [tab.C, tab.I, tab.L, tab.H, tab.rule, tab.similarity]

    def opened(key: str, where: str, dtype: str, texts: str, own: str, *values: Any) -> list[Any]:
        bench = workbench(key, export_folder)
        bench.highest = None
        return act(bench, lambda: bench.open(where, dtype, texts_of(texts, own), _settings(*values[:3], None, *values[4:])))

    gr.on([side.button.click, side.model.submit], opened, [session, side.model, side.dtype, side.texts, side.own, *settings], answer, **common)
    remember = "(model, dtype, texts) => { window.layerscope.opened({model, dtype, texts: texts === 'own' ? '' : texts}); }"
    gr.on([side.button.click, side.model.submit], None, [side.model, side.dtype, side.texts], None, js=remember)

    def asked(key: str, *values: Any) -> list[Any]:
        bench = workbench(key, export_folder)
        return act(bench, lambda: bench.ask(_settings(*values)))

    gr.on([control.change for control in settings], asked, [session, *settings], answer, trigger_mode="always_last", **common)

    def spanned(key: str, text: str) -> list[Any]:
        bench = workbench(key, export_folder)
        return act(bench, lambda: bench.set_spans(_spans(text) or []))

    tab.spans.change(spanned, [session, tab.spans], answer, trigger_mode="always_last", **common)

    def toggled(text: str, event: gr.EventData) -> tuple[str, str]:
        span = [int(event.first), int(event.last)]
        spans = _spans(text) or []
        spans = [s for s in spans if s != span] if span in spans else sorted([*spans, span])
        return json.dumps(spans), "hand-made" if spans else "map"

    for chart in (page.explore.similarity, page.explore.landscape):
        chart.span(toggled, tab.spans, [tab.spans, tab.plan], **common)
    tab.clear.click(lambda: ("[]", "map"), None, [tab.spans, tab.plan], **common)

    def loaded(key: str, file: str) -> list[Any]:
        bench = workbench(key, export_folder)
        before = bench.file
        answer = act(bench, lambda: bench.load_plan(_json_file(file)))
        return [*answer, "file" if bench.file is not before else gr.skip()]

    tab.load.upload(loaded, [session, tab.load], [*answer, tab.plan], **common)
    page.explore.removal.click(lambda key: act(b := workbench(key, export_folder), b.measure_removal), session, answer, **common)

    def exported(key: str, choice: str, threshold: float, dtype: str, shard: str, name: str) -> list[Any]:
        bench = workbench(key, export_folder)

        def do() -> None:
            plan, _ = bench.chosen(choice, threshold)
            bench.start_export(choice, threshold, dtype, shard, name.strip() or suggested_name(bench.model, [str(plan.blocks), dtype], plan.depth))

        return act(bench, do)

    page.export.button.click(exported, [session, tab.plan, tab.T, page.export.dtype, page.export.shard, page.export.name], answer, **common)
    page.cancel.click(lambda key: act(b := workbench(key, export_folder), b.runner.cancel), session, answer, queue=False, **common)


def _settings(C: int, I: int, L: int, H: int | None, rule: str, similarity: str) -> LacoSettings:  # noqa: E741
    return LacoSettings(int(C), int(I), 1.0, int(L), None if H is None else int(H), rule, similarity)  # type: ignore[arg-type]


def _spans(text: str) -> list[list[int]] | None:
    """Read spans from a link or a control; None where they make no sense."""
    try:
        spans = [[int(first), int(last)] for first, last in json.loads(text)]
    except (ValueError, TypeError):
        return None
    return spans if all(0 <= first < last for first, last in spans) else None


def _json_file(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LayerscopeError("the file is no JSON; save a plan on this page or with `layerscope propose`") from error


def theme() -> gr.themes.Base:
    """Return the page's look: system fonts with Korean, calm greys, one accent."""
    fonts = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans KR", "Noto Sans CJK KR", "Apple SD Gothic Neo", "Malgun Gothic", "sans-serif")
    return gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=("ui-monospace", "monospace"), radius_size="sm")


def serve(model: str, host: str, port: int, exports: Path, browser: bool, block: bool = True) -> gr.Blocks:
    """Serve the page until interrupted; nothing is reachable from outside this machine unless `host` says so.

    Raises:
        LayerscopeError: the environment asks for remote code editing, or the port is taken.
    """
    if os.environ.get("GRADIO_VIBE_MODE"):
        raise LayerscopeError("GRADIO_VIBE_MODE lets visitors edit code on this machine; unset it and start again")
    exports = exports.expanduser().resolve()
    gr.set_static_paths(list(SCRIPTS))
    speech = json.dumps({language: all_words(language) for language in LANGUAGES}, ensure_ascii=False).replace("</", "<\\/")
    head = f"<script>window.layerscopeWords = {speech}</script>"
    demo = build(model, exports)
    try:
        demo.launch(
            server_name=host, server_port=port, inbrowser=browser, quiet=True, show_error=True, theme=theme(), css_paths=[assets_folder() / "layerscope.css"], head=head,
            footer_links=["settings"], run_history=False, enable_monitoring=False, max_file_size="5mb", prevent_thread_lock=True, ssr_mode=False,
        )  # fmt: skip
    except OSError as error:
        raise LayerscopeError(f"port {port} is taken; choose another with --port") from error
    sys.stderr.write(f"Layerscope is open at http://{host}:{port}\n")
    if block:
        demo.block_thread()
    return demo
