"""Page layout and server. Events are wired in wiring.py; handlers/ and bench/ do the work."""

import atexit
import json
import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from starlette.middleware import Middleware

from engine.atomic import making
from engine.errors import LayerscopeError
from engine.export.doctor import strange_switches
from engine.models.sources import DTYPES
from engine.models.texts import assets_folder
from engine.untrusted import real_path
from ui.page.allowed_paths import AllowedPaths
from ui.page.bench.shared import texts_of
from ui.page.components.chart import SCRIPTS, view
from ui.page.components.terminal import terminal
from ui.page.controls import TEXTS, state_from_query, texts_in
from ui.page.guard import LARGEST, Guard
from ui.page.picker import device_choices
from ui.page.sessions import Sessions
from ui.page.tabs import compare, explore, export, fold, importance, masks, recover, search, width
from ui.page.theme import theme
from ui.page.wiring import connect
from ui.text.words import LANGUAGES, all_words, words

_SWEEP = 30.0  # seconds between two checks for closed sessions


def build(model: str, sessions: Sessions, export_folder: Path) -> gr.Blocks:
    """Return the whole app: one page per language."""

    def left(request: gr.Request) -> None:
        sessions.left(request.session_hash or "")

    with gr.Blocks(title="Layerscope", analytics_enabled=False) as demo:
        _page("en", model, sessions, export_folder, demo)
        demo.unload(left)
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
    # Not gr.Tabs: it mounts a tab's components when the tab is first opened, and a component that was updated before that loses its
    # properties (seen in Gradio 6.31). These are columns that a script shows and hides.
    view("tabs", language, 44, panel=True)
    view("making", language, 28, panel=True)
    costs = view("costs", language, 0, panel=True)
    news = view("news", language, 0, panel=True, visible="hidden")
    tabs = lay_out(language, export_folder)
    page = SimpleNamespace(side=side, status=status, present=present, cancel=cancel, costs=costs, news=news, **tabs)
    connect(page, model, sessions, demo, language)


def lay_out(language: str, export_folder: Path) -> dict[str, SimpleNamespace]:
    """Lay out all tabs, each with its terminal commands."""
    panel = {"elem_classes": "ls-panel"}
    with gr.Column(elem_id="panel-explore", **panel):
        looked = explore.build(language)
        terminal("explore", language)
    with gr.Column(elem_id="panel-importance", **panel):
        scored = importance.build(language)
        terminal("importance", language, scored.axis, scored.score, scored.tokens)
    with gr.Column(elem_id="panel-fold", **panel):
        folded = fold.build(language)
        laco = fold.settings(folded)
        terminal("fold", language, folded.plan, *laco)
    with gr.Column(elem_id="panel-widths", **panel):
        cut = width.build(language)
        terminal("widths", language, scored.tokens, *cut.asked.values())
    with gr.Column(elem_id="panel-masks", **panel):
        masked = masks.build(language)
        terminal("masks", language, scored.tokens, *masked.asked.values(), *masked.more)
    with gr.Column(elem_id="panel-search", **panel):
        found = search.build(language)
        asked = [found.budget, scored.tokens, *found.shapes_asked.values(), found.kind, found.amount, found.context]
        terminal("search", language, *asked, *found.asked.values(), found.method, *found.method_settings)
    with gr.Column(elem_id="panel-compare", **panel):
        judged = compare.build(language)
        terminal("compare", language, *compare.settings(judged), judged.ablation, *laco)
    with gr.Column(elem_id="panel-recover", **panel):
        recovered = recover.build(language, export_folder)
        terminal(
            "recover", language, *recover.asked(recovered), recovered.name, *recovered.repair_settings, *recover.sheared(recovered)[2:]
        )
    with gr.Column(elem_id="panel-export", **panel):
        written = export.build(language, export_folder)
        terminal("export", language, written.name, *written.asked.values())
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
    button = gr.Button(say("open"), variant="primary", interactive=False, elem_id="open")  # enabled once the page has loaded
    spec = view("spec", language, 150, panel=True)
    texts.change(
        lambda choice: gr.update(visible=choice == "own"), texts, own, show_progress="hidden", queue=False, api_visibility="private"
    )
    return SimpleNamespace(model=where, models=models, dtype=dtype, device=device, texts=texts, own=own, button=button, spec=spec)


def _open_ahead(sessions: Sessions, model: str) -> None:
    """Open the first visitor's model before the visit. Only `sessions` keeps this workbench, so it is released when that visitor leaves."""
    first, bench = state_from_query("", model), sessions.open_ahead()
    bench.look(first.T)
    bench.open(first.model, first.dtype, texts_of(first.texts, ""), first.settings())


def _sweeping(sessions: Sessions) -> None:
    while True:
        time.sleep(_SWEEP)
        sessions.sweep()


@dataclass(frozen=True, slots=True)
class Server:
    """Where the page is served: address and port, further host names of this machine, the one account (user, password) if a password is
    required, and the folders whose models and texts visitors may open (by default any)."""

    host: str = "127.0.0.1"
    port: int = 7860
    names: tuple[str, ...] = ()
    auth: tuple[str, str] | None = None
    reach: AllowedPaths = field(default_factory=AllowedPaths)


def serve(model: str, server: Server, exports: Path, browser: bool | None = None, block: bool = True) -> gr.Blocks:
    """Serve the page until interrupted. Only this machine can reach it unless `server.host` is another address.

    Raises:
        LayerscopeError: an environment variable switches on an unsupported Gradio feature, or the port is taken.
    """
    host, port = server.host, server.port
    if strange := strange_switches():
        raise LayerscopeError(f"{strange[0]} is set, which may expose this page or change its behaviour; unset it and start again")
    if browser is None:  # only in an interactive terminal with a display
        browser = sys.stdout.isatty() and (
            sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        )
    exports = real_path(exports)
    gr.set_static_paths(list(SCRIPTS))
    speech = json.dumps({language: all_words(language) for language in LANGUAGES}, ensure_ascii=False).replace("</", "<\\/")
    head = f"<script>window.layerscopeWords = {speech}</script>"
    open_to_the_end = ExitStack()
    atexit.register(open_to_the_end.close)
    uploads = open_to_the_end.enter_context(making(Path(tempfile.gettempdir()), "layerscope-uploads-"))
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # not shared with other Gradio servers
    sessions = Sessions(exports, server.reach)
    _open_ahead(sessions, model)
    demo = build(model, sessions, exports)
    try:
        demo.launch(
            server_name=host, server_port=port, inbrowser=browser, quiet=True, theme=theme(),
            css_paths=[assets_folder() / "layerscope.css"], head=head,
            footer_links=["settings"], run_history=False, enable_monitoring=False,
            prevent_thread_lock=True, ssr_mode=False, share=False, debug=False, mcp_server=False, allowed_paths=[],
            auth=server.auth, max_file_size=LARGEST, root_path="", strict_cors=True,
            app_kwargs={"middleware": [Middleware(Guard, host=host, names=server.names, uploads=uploads)]},
        )  # fmt: skip
    except OSError as error:
        sessions.close()  # a thread still inside torch would abort the exit
        raise LayerscopeError(f"port {port} is taken; choose another with --port") from error
    threading.Thread(target=_sweeping, args=(sessions,), daemon=True, name="sweep").start()
    sys.stderr.write(f"Layerscope is open at http://{host}:{port}\n")
    if block:
        try:
            demo.block_thread()
        finally:
            if not sessions.close():
                os._exit(0)  # a thread still inside torch would abort a normal exit
    return demo
