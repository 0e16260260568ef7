"""The page's event handlers, one method per event. Most answers contain the status; the timer fetches the other updates."""

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from engine.errors import LayerscopeError
from engine.export.settings import ExportSettings
from engine.judge.settings import CacheSettings, TaskSettings
from engine.messages import Message
from engine.methods.depth.baselines import BASELINES
from engine.methods.depth.laco import LacoSettings
from engine.models.library import library
from engine.models.sources import needs_download
from engine.plans.bundle import read_saved
from engine.search.settings import SearchSettings, SweepSettings, Target
from engine.settings import record_from_controls, split
from ui.page import picker
from ui.page.bench.plans.exporting import start_export, start_gguf
from ui.page.bench.shared import suggested_name, texts_of
from ui.page.bench.workbench import T_MIN
from ui.page.controls import read_spans, state_from_query, texts_in
from ui.page.handlers.lab_handlers import LabHandlers
from ui.page.handlers.recover_handlers import RecoverHandlers
from ui.page.handlers.responses import ignore_if_outdated
from ui.text.messages import translated_labels

_LABELLED = {"ablation": "data", "board": "data", "recovery": "value"}  # components whose labels Python translates


class Handlers(LabHandlers, RecoverHandlers):
    """The event handlers of one page."""

    def enter(self, key: str, query: str, own: str = "", request: gr.Request | None = None) -> list[Any]:
        """Handle a page load: find the session's workbench, open the link's model, and set the controls to the link's state."""
        key = key if re.fullmatch(r"[0-9a-f]{32}", key) else os.urandom(16).hex()
        self._arrived(key, request)
        forgotten = self._sessions.forgot(key)
        bench, state = self._of(key), state_from_query(query, self._model, texts_in(self._language), bool(own.strip()))
        spans = read_spans(state.spans)
        bench.page.settle("plan", "search_kind", "search_amount", "shapes_budget")
        bench.look(max(state.T, T_MIN))
        device = picker.device_at_hand(state.device)

        def do() -> None:
            not_local = state.model != self._model and needs_download(state.model)  # a link must not start a download by itself
            bench.open(
                self._model if not_local else state.model, state.dtype, texts_of(state.texts, own), state.settings(), spans, state.device
            )
            if not_local:
                bench.notify(Message("the link names {model}, which is not on this machine; press Open to download it", model=state.model))

        answer = self._act(bench, do)
        if forgotten and not bench.notice:
            bench.notify(Message("this page was inactive for so long that its session was closed; its address was opened again"))
            answer = self._status(bench)
        highest = state.H or (bench.model.spec.depth if bench.model else 30)
        H, L = gr.update(value=highest, maximum=max(highest, 30)), gr.update(value=state.L, maximum=max(state.L, 29))
        T, plan = max(state.T, T_MIN), state.plan if bench.has(state.plan) or (spans and state.plan == "hand-made") else "map"
        controls = [T, state.C, state.I, L, H, state.rule, state.similarity, plan, state.spans]
        model = gr.update(value=state.model, interactive=True)  # the box accepts input from now on; earlier typing would be lost
        return [f"{key}.{bench.opened}", 0, model, state.dtype, device, state.texts, *controls, gr.update(interactive=True), *answer]

    def poll(self, session: str, seen: int) -> list[Any]:
        """Handle a timer tick: return the status, the newest serial number, the updates after `seen`, and the session with its opening
        number."""
        bench = self._of(session)
        with bench.lock:  # a job's result arrives as a whole
            status = self._status(bench, more=False)  # read before the updates: the next tick reports a job that ends in between
            bench.recovering.send_runs()
            serial, fresh = bench.page.since(seen)
            opened = bench.opened
        for name, prop in _LABELLED.items():
            if name in fresh:
                fresh[name][prop] = translated_labels(fresh[name].get(prop, ""), self._language)
        moved = [gr.update(**fresh.pop(name)) if name in fresh else gr.skip() for name in self._sliders]
        news = json.dumps({"serial": serial, "views": fresh}) if fresh else gr.skip()
        return [*status, serial, news, *moved, f"{session.partition('.')[0]}.{opened}"]

    def wake(self, session: str, request: gr.Request | None = None) -> list[Any]:
        """Handle a page that is still visible, or that received answers out of order: restart its timer. A page whose workbench was
        closed loads again."""
        key = session.partition(".")[0]
        if self._sessions.forgot(key):
            return [json.dumps({"at": time.monotonic(), "gone": True}), gr.skip(), gr.skip()]
        bench = self._of(session)
        self._arrived(key, request)
        return self._status(bench)

    def _arrived(self, key: str, request: gr.Request | None) -> None:
        """Register this page with its session, by Gradio's session hash."""
        if request is not None and request.session_hash:
            self._sessions.arrived(key, request.session_hash)

    def open(self, key: str, where: str, dtype: str, device: str, texts: str, own: str, *settings: Any) -> list[Any]:
        """Open the model that the side bar names. H is reset to the model's depth, and no hand-made plan is passed."""
        bench = self._of(key)
        C, I, L, _, rule, similarity = settings
        wanted = _settings(C, I, L, None, rule, similarity)
        return self._act(bench, lambda: bench.open(where, dtype, texts_of(texts, own), wanted, device=device))

    def models(self, session: str) -> list[Any]:
        """Return the models that this machine offers to open, and its devices."""
        bench = self._of(session)
        listed = picker.models_data([entry for entry in library(bench.export_folder) if bench.reach.holds(entry.source)], self._in_words)
        return [gr.update(value=listed), gr.update(choices=picker.device_choices(self._say))]

    @ignore_if_outdated
    def ask(self, key: str, *settings: Any) -> list[Any]:
        """Handle a setting that the user or a page load changed: request its T map."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.ask(_settings(*settings), by_itself=True), "map")

    @ignore_if_outdated
    def stand(self, key: str, event: gr.EventData) -> list[Any]:
        """Measure the unknown cost of the plan that the page rests on."""
        bench = self._of(key)
        bench.costing.stand(str(event.plan), float(event.T))
        return self._status(bench)

    @ignore_if_outdated
    def spans(self, key: str, text: str) -> list[Any]:
        """Handle a changed hand-made plan."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.set_spans(read_spans(text)), "measure-hand")

    @staticmethod
    def toggle(text: str, event: gr.EventData) -> tuple[str, str]:
        """Handle a click on a fold: add it to the hand-made plan, or remove it."""
        span, spans = [int(event.first), int(event.last)], read_spans(text)
        spans = [other for other in spans if other != span] if span in spans else sorted([*spans, span])
        return json.dumps(spans), "hand-made" if spans else "map"

    @ignore_if_outdated
    def load_plan(self, key: str, files: list[str] | str) -> list[Any]:
        """Load an uploaded plan: its JSON file, with its tensors if it has any, or a zip of both."""
        bench, chosen = self._of(key), [files] if isinstance(files, str) else files
        return self._act(bench, lambda: bench.load_plan(read_saved([Path(file) for file in chosen])))

    @ignore_if_outdated
    def save_plan(self, key: str, choice: str, threshold: float) -> list[Any]:
        """Pack a plan with tensors into one file for the page to download; None if that was refused."""
        bench, made = self._of(key), list[str]()
        answer = self._act(bench, lambda: made.append(str(bench.saving.file(choice, threshold))))
        return [gr.update(value=made[0] if made else None), *answer]

    @ignore_if_outdated
    def removal(self, key: str) -> list[Any]:
        """Measure perplexity without each layer."""
        bench = self._of(key)
        return self._act(bench, bench.exploring.measure_removal)

    @ignore_if_outdated
    def export(self, key: str, choice: str, threshold: float, name: str, *values: Any) -> list[Any]:
        """Export the plan shown on Fold, under the given name or one made from the plan; `values` are those of ExportSettings."""
        bench, asked = self._of(key), record_from_controls(ExportSettings, values)

        def do() -> None:
            plan, _ = bench.chosen(choice, threshold)
            made = name.strip() or suggested_name(bench.open_meter().model, plan) + (
                "" if asked.dtype == "auto" or asked.form == "gguf" else f"-{asked.dtype}"
            )
            if asked.form == "gguf":
                start_gguf(bench, choice, threshold, made)
            else:
                start_export(bench, choice, threshold, asked, made, **bench.comparison.known_of(plan))

        return self._act(bench, do)

    @ignore_if_outdated
    def judge(self, key: str, choice: str, threshold: float, texts: str, own: str, tokens: float, also: list[str], *more: Any) -> list[Any]:
        """Judge the plan shown on Fold, and measure what else is ticked."""
        bench, options = self._of(key), _options(more)
        return self._act(
            bench, lambda: bench.comparison.judge(choice, threshold, texts_of(texts, own, "evaluation"), int(tokens), also, **options)
        )

    @ignore_if_outdated
    def measure(
        self, key: str, event: gr.EventData, choice: str, threshold: float, texts: str, own: str, tokens: float, *more: Any
    ) -> list[Any]:
        """Handle Present's request: judge the plan shown on Fold and measure what the view lacks."""
        also = [what for what in ("samples", "speed") if what in event.also]
        return self.judge(key, choice, threshold, texts, own, tokens, also, *more)

    @ignore_if_outdated
    def judge_map(self, key: str, texts: str, own: str, tokens: float) -> list[Any]:
        """Judge every plan of the T map."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.comparison.judge_map(texts_of(texts, own, "evaluation"), int(tokens)))

    @ignore_if_outdated
    def report(
        self, key: str, choice: str, threshold: float, texts: str, own: str, tokens: float, also: list[str], *more: Any
    ) -> list[Any]:
        """Write the report of the plan shown on Fold, with what is ticked."""
        bench, options = self._of(key), {**_options(more), "language": self._language}
        return self._act(
            bench, lambda: bench.comparison.report(choice, threshold, texts_of(texts, own, "evaluation"), int(tokens), also, **options)
        )

    @ignore_if_outdated
    def ablate(self, key: str, name: str, threshold: float, texts: str, own: str, tokens: float) -> list[Any]:
        """Run an ablation around the settings on Fold."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.comparison.ablate(name, threshold, texts_of(texts, own, "evaluation"), int(tokens)))

    @ignore_if_outdated
    def board(self, key: str, event: gr.EventData, *more: Any) -> list[Any]:
        """Handle a button below the board."""
        bench, what, options = self._of(key), str(event.what), _options(more)
        return self._act(bench, lambda: bench.comparison.act(what, str(event.name), **options))

    @ignore_if_outdated
    def search(self, key: str, kind: str, amount: float | None, context: float | None, *values: Any) -> list[Any]:
        """Search for a target; the best plan so far becomes the plan shown. `values` are those of SearchSettings."""
        bench = self._of(key)

        def do() -> None:
            if amount is None or None in values:
                raise LayerscopeError("enter a target and a time limit for the search")
            bench.searching.start(Target.of(kind, amount, int(context or 0)), record_from_controls(SearchSettings, values))

        return self._act(bench, do)

    @ignore_if_outdated
    def baseline(self, key: str, method: str, kind: str, amount: float, objective: str, *settings: Any) -> list[Any]:
        """Make a baseline's plan with the target's number of layers and the method's own settings."""
        bench = self._of(key)

        def do() -> None:
            if kind != "layers" or amount is None:
                raise LayerscopeError("a baseline needs a number of layers; choose layers as the target")
            bench.searching.make_baseline(method, int(amount), objective, **BASELINES.given(method, settings))

        return self._act(bench, do)

    @ignore_if_outdated
    def sweep(self, key: str, *values: Any) -> list[Any]:
        """Sweep over all C, I and rules; `values` are those of SweepSettings."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.sweeping.start(record_from_controls(SweepSettings, values)))

    def cancel(self, key: str) -> list[Any]:
        """Cancel the running job and the queue."""
        bench = self._of(key)
        return self._act(bench, bench.cancel)


def _options(values: Sequence[Any]) -> dict[str, Any]:
    """Return the options of `ui.page.bench.plans.measuring` from the controls of TaskSettings and CacheSettings."""
    tasks, rest = split(TaskSettings, values)
    return asdict(tasks) | asdict(record_from_controls(CacheSettings, rest))


def _settings(C: int, I: int, L: int, H: int | None, rule: str, similarity: str) -> LacoSettings:
    return LacoSettings(int(C), int(I), 1.0, int(L), None if H is None else int(H), rule, similarity)  # type: ignore[arg-type]
