"""Event wiring: which handler each event calls, with which inputs and outputs."""

from types import SimpleNamespace
from typing import Any

import gradio as gr

from ui.page.browser_inputs import SCRIPTS_ARE_HERE, keep_what_is_typed
from ui.page.handlers.page_handlers import Handlers
from ui.page.sessions import Sessions
from ui.page.tabs import fold, recover

LOOKED_AT = {"queue": False, "trigger_mode": "always_last"}  # for handlers that answer at once: Gradio's queue would double their time
_ENTER = f"async () => {{ {SCRIPTS_ARE_HERE} return window.layerscope.session(); }}"


def connect(page: SimpleNamespace, model: str, sessions: Sessions, demo: gr.Blocks, language: str) -> None:
    """Wire a page after its layout. `page` holds the tabs by name, and the components around them."""
    sliders = _sliders(page)
    on = Handlers(sessions, model, sliders, language)
    session = gr.State("")
    seen = gr.Number(0, visible="hidden", precision=0)  # kept in the browser: the serial number of the last update it received
    timer = gr.Timer(0.4, active=False)
    answer = [page.status, page.cancel, timer]
    common = {"show_progress": "hidden", "api_visibility": "private"}
    _connect_opening(page, on, demo, session, seen, answer, common)
    # Only the timer delivers updates: if two handlers did, the later answer could arrive first and the older one would stay.
    facts = [*answer, seen, page.news, *sliders.values(), session]
    timer.tick(on.poll, [session, seen], facts, queue=False, trigger_mode="once", **common)
    _connect_fold(page, on, session, answer, common)
    _connect_search(page, on, session, answer, common)
    _connect_runs(page, on, session, answer, common)
    _connect_lab(page, on, session, answer, common)
    page.cancel.click(on.cancel, session, answer, queue=False, **common)
    page.status.wake(on.wake, session, answer, queue=False, **common)


def _sliders(page: SimpleNamespace) -> dict[str, Any]:
    """Return the controls that the workbench may move, by the names it uses."""
    found = {"highest": page.fold.H, "lowest": page.fold.L, "width": page.fold.C, "target": page.fold.target}
    found |= {"plan": page.fold.plan, "spans": page.fold.spans, "format": page.export.asked["form"]}
    found |= {f"width_{name}": getattr(page.width, name) for name in ("by", "heads", "neurons", "channels")}
    found |= {"search_kind": page.search.kind, "search_amount": page.search.amount, "shapes_budget": page.search.budget}
    return found


def _connect_opening(
    page: SimpleNamespace, on: Handlers, demo: gr.Blocks, session: gr.State, seen: gr.Number, answer: list[Any], common: dict[str, Any]
) -> None:
    """Wire page load and opening a model."""
    side, opening = page.side, [page.side.model, page.side.dtype, page.side.device, page.side.texts]
    tab_id, query, own = (gr.Textbox("", visible="hidden") for _ in range(3))  # a script cannot fill a gr.State
    entering = [session, seen, *opening, *fold.state_controls(page.fold).values(), side.button, *answer]
    entered = demo.load(on.enter, [tab_id, query, own], entering, js=_ENTER, **common)
    at_hand = [side.models, side.device]
    entered.then(on.models, session, at_hand, queue=False, **common)
    side.models.browse(on.models, session, at_hand, queue=False, **common)
    entered.then(None, side.texts, None, js="(texts) => { window.layerscope.opened({texts}); }")  # puts the texts into the link
    keep_what_is_typed(page, demo, common)

    pressed = [side.button.click, side.model.submit]
    asked = [session, *opening, side.own, *fold.settings(page.fold)]
    gr.on(pressed, on.open, asked, answer, trigger_mode="always_last", **common)
    gr.on(pressed, None, opening, None, js="(model, dtype, device, texts) => { window.layerscope.opened({model, dtype, device, texts}); }")


def _connect_fold(page: SimpleNamespace, on: Handlers, session: gr.State, answer: list[Any], common: dict[str, Any]) -> None:
    """Wire Explore, Fold and Export."""
    tab, settings = page.fold, fold.settings(page.fold)
    # A newly opened model triggers this too: the controls may have moved since its map was requested.
    moved = [session.change, *(control.change for control in settings)]
    gr.on(moved, on.ask, [session, *settings], answer, **LOOKED_AT, **common)
    tab.spans.change(on.spans, [session, tab.spans], answer, **LOOKED_AT, **common)
    for chart in (page.explore.similarity, page.explore.landscape):
        chart.span(on.toggle, tab.spans, [tab.spans, tab.plan], **common)
    tab.fold.stand(on.stand, session, answer, **LOOKED_AT, **common)
    tab.clear.click(lambda: ("[]", "map"), None, [tab.spans, tab.plan], **common)
    kept = tab.fold.keep(on.save_plan, [session, tab.plan, tab.T], [tab.saved, *answer], **common)
    kept.then(None, tab.saved, None, js="(file) => { window.layerscope.fetched(file); }")
    tab.load.upload(on.load_plan, [session, tab.load], answer, **common)
    page.explore.removal.click(on.removal, session, answer, **common)
    chosen = [tab.plan, tab.T, page.export.name, *page.export.asked.values()]
    page.export.button.click(on.export, [session, *chosen], answer, **common)


def _connect_search(page: SimpleNamespace, on: Handlers, session: gr.State, answer: list[Any], common: dict[str, Any]) -> None:
    """Wire Search, Compare and repairs."""
    tab, found, compare_tab = page.fold, page.search, page.compare
    judged_on = [compare_tab.texts, compare_tab.own, compare_tab.tokens]
    shown = [session, tab.plan, tab.T]
    measured = list(compare_tab.asked.values())
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
    facts = [page.recover.refused, *page.recover.repairs.values(), page.recover.repair_times, *answer]
    page.recover.repair_times.browse(on.repair_times, looked_at, facts, **LOOKED_AT, **common)
    asked = [session, found.kind, found.amount, found.context, *found.asked.values()]
    found.button.click(on.search, asked, answer, **common)
    asked = [session, found.method, found.kind, found.amount, found.asked["objective"], *found.method_settings]
    found.make.click(on.baseline, asked, answer, **common)
    asked = [session, found.budget, page.importance.tokens, *found.shapes_asked.values()]
    found.shapes_button.click(on.shapes, asked, answer, **common)
    found.shapes.row(on.shape, session, answer, **common)
    found.sweep_button.click(on.sweep, [session, *found.sweep_asked.values()], answer, **common)
    taken = "() => { const s = window.layerscope.taken; window.layerscope.touched(); return [s.C, s.I, s.rule, s.T, 'map']; }"
    chosen = "() => { window.layerscope.touched(); return [window.layerscope.picked, 'map']; }"
    page.present.take(None, None, [tab.T, tab.plan], js=chosen, **common)
    found.sweep.take(None, None, [tab.C, tab.I, tab.rule, tab.T, tab.plan], js=taken, **common)


def _connect_runs(page: SimpleNamespace, on: Handlers, session: gr.State, answer: list[Any], common: dict[str, Any]) -> None:
    """Wire training runs."""
    tab = page.recover
    for button, handler in ((tab.learn, on.learn), (tab.measure, on.measure_step)):
        button.click(handler, [session, page.fold.plan, page.fold.T, tab.name, *recover.asked(tab)], answer, **common)
    tab.shear.click(on.shear, [session, *recover.sheared(tab)], answer, **common)
    tab.runs.row(on.run, session, answer, **common)
    tab.runs.browse(on.runs, session, answer, **LOOKED_AT, **common)


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
    cut.button.click(on.trim, [*shown, scored.tokens, *cut.asked.values()], answer, **common)
    masked.button.click(on.prune, [*shown, scored.tokens, *masked.asked.values(), *masked.more], answer, **common)
    score, compensation, method = cut.asked["score"], cut.asked["compensation"], masked.asked["method"]
    for looked in (cut.times.browse, score.change, compensation.change, scored.tokens.change):
        looked(on.trim_times, [session, score, compensation, scored.tokens], [cut.times, *answer], **LOOKED_AT, **common)
    masked.times.browse(on.mask_times, [session, method, scored.tokens], [masked.times, *answer], **LOOKED_AT, **common)
    masked.curves.click(on.mask_curves, [session, masked.asked["sparsity"]], answer, **common)
    cut.curves.click(on.width_curves, [session, *cut.asked.values()], answer, **common)
    masked.zeros.ask(on.time_zeros, shown, answer, **common)
