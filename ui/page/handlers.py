"""What the page asks of the workbench, a method an event. Every answer begins with the status; the timer brings the rest."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from engine.errors import LayerscopeError
from engine.methods.laco import LacoSettings
from engine.models.library import library
from engine.plans.files import read_json
from engine.search.targets import Target
from ui.page import picker
from ui.page.bench.desk import Desk
from ui.page.bench.shared import suggested_name, texts_of
from ui.page.bench.workbench import T_MIN
from ui.page.controls import read_spans, state_from_query
from ui.page.sessions import Sessions
from ui.text.messages import label_teller, labels_told, teller
from ui.text.words import words

MORE = ("names", "limit", "context", "batch")  # what More settings on Compare say of tasks and cache, as `ui.page.bench.measuring` calls it


class Handlers:
    """The handlers of one page. `charts` and `sliders` are the components that the workbench may change, by name."""

    def __init__(
        self, sessions: Sessions, model: str, charts: dict[str, gr.HTML], sliders: dict[str, gr.Slider], language: str = "en"
    ) -> None:
        self._of, self._model, self._charts, self._sliders = sessions.of, model, charts, sliders
        self._in_words, self._say, self._language = teller(language), words(language), language

    def _status(self, bench: Desk, more: bool = True) -> list[Any]:
        """The status line, the cancel button, and the timer: it ticks while a job runs or there may be `more` to tell."""
        state = bench.runner.state()
        value = {"kind": state[0], "label": self._in_words(state[1].label), "fraction": state[1].fraction} if state else {}
        busy, problem = state is not None, bench.runner.problem
        value["problem"] = problem and self._in_words(problem)
        return [json.dumps(value), gr.update(interactive=busy), gr.Timer(active=busy or more)]

    def _act(self, bench: Desk, do: Callable[[], object]) -> list[Any]:
        """Do something a person asked for; what they did wrong becomes the status line."""
        try:
            bench.runner.complain(None)
            do()
        except LayerscopeError as error:
            bench.runner.complain(str(error))
        return self._status(bench)

    def enter(self, key: str, query: str) -> list[Any]:
        """A page has loaded: find its workbench, open what its link says, and set the controls to it."""
        key = key if re.fullmatch(r"[0-9a-f]{32}", key) else os.urandom(16).hex()
        bench, state = self._of(key), state_from_query(query, self._model)
        answer = self._act(bench, lambda: bench.open(state.model, state.dtype, texts_of(state.texts, ""), state.settings(), state.device))
        highest = state.H or (bench.model.spec.depth if bench.model else 30)
        H, L = gr.update(value=highest, maximum=max(highest, 30)), gr.update(value=state.L, maximum=max(state.L, 29))
        T = max(state.T, T_MIN)
        controls = [T, state.C, state.I, L, H, state.rule, state.similarity, state.plan, state.spans]
        return [key, 0, state.model, state.dtype, picker.device_at_hand(state.device), state.texts, *controls, *answer]

    def tell(self, key: str, seen: int) -> list[Any]:
        """The timer asks: status, newest serial number, and what has changed since the last one the page saw."""
        bench = self._of(key)
        status = self._status(bench, more=False)  # before the news: a job that ends in between is told of by the next tick
        serial, fresh = bench.page.since(seen)
        for name in {"ablation", "board"} & fresh.keys():
            fresh[name]["data"] = labels_told(fresh[name].get("data", ""), label_teller(self._language))
        drawn = [gr.HTML(**{**chart.props, **fresh[name]}) if name in fresh else gr.skip() for name, chart in self._charts.items()]
        moved = [gr.update(**fresh[name]) if name in fresh else gr.skip() for name in self._sliders]
        return [*status, serial, *drawn, *moved]

    def open(self, key: str, where: str, dtype: str, device: str, texts: str, own: str, *settings: Any) -> list[Any]:
        """Open the model that the side bar names; H goes back to the model's depth, and another model has no hand-made plan."""
        bench = self._of(key)
        bench.highest = None
        C, I, L, _, rule, similarity = settings
        wanted = _settings(C, I, L, None, rule, similarity)
        answer = self._act(bench, lambda: bench.open(where, dtype, texts_of(texts, own), wanted, device))
        return [*answer, gr.skip(), gr.skip()] if bench.spans or bench.file else [*answer, "[]", "map"]

    def models(self, key: str) -> list[Any]:
        """What this machine offers to open, and on which devices."""
        listed = picker.models_data(library(self._of(key).export_folder), self._in_words)
        return [gr.update(value=listed), gr.update(choices=picker.device_choices(self._say))]

    def ask(self, key: str, *settings: Any) -> list[Any]:
        """A setting has changed: ask for its map."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.ask(_settings(*settings)))

    def spans(self, key: str, text: str) -> list[Any]:
        """The hand-made plan has changed."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.set_spans(read_spans(text)))

    @staticmethod
    def toggle(text: str, event: gr.EventData) -> tuple[str, str]:
        """A fold was clicked: add it to the hand-made plan, or take it out again."""
        span, spans = [int(event.first), int(event.last)], read_spans(text)
        spans = [other for other in spans if other != span] if span in spans else sorted([*spans, span])
        return json.dumps(spans), "hand-made" if spans else "map"

    def load_plan(self, key: str, file: str) -> list[Any]:
        """A plan file was chosen."""
        bench = self._of(key)
        before = bench.file
        answer = self._act(bench, lambda: bench.load_plan(read_json(Path(file))))
        return [*answer, "file" if bench.file is not before else gr.skip()]

    def removal(self, key: str) -> list[Any]:
        """Perplexity without each layer is asked for."""
        bench = self._of(key)
        return self._act(bench, bench.measure_removal)

    def export(self, key: str, choice: str, threshold: float, dtype: str, shard: str, name: str, form: str = "safetensors") -> list[Any]:
        """Export the plan that Fold shows, under the name given or one made from the plan."""
        bench = self._of(key)

        def do() -> None:
            plan, _ = bench.chosen(choice, threshold)
            made = name.strip() or suggested_name(bench.model, [str(plan.blocks), dtype], plan.depth)
            if form == "gguf":
                bench.start_gguf(choice, threshold, made)
            else:
                bench.start_export(choice, threshold, dtype, shard, made, **bench.comparison.evaluation_of(plan))

        return self._act(bench, do)

    def judge(self, key: str, choice: str, threshold: float, texts: str, own: str, tokens: float, also: list[str], *more: Any) -> list[Any]:
        """Judge the plan that Fold shows, and measure what else is ticked."""
        bench, options = self._of(key), dict(zip(MORE, more, strict=True))
        return self._act(
            bench, lambda: bench.comparison.judge(choice, threshold, texts_of(texts, own, "evaluation"), int(tokens), also, **options)
        )

    def judge_map(self, key: str, texts: str, own: str, tokens: float) -> list[Any]:
        """Judge every plan of the T map."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.comparison.judge_map(texts_of(texts, own, "evaluation"), int(tokens)))

    def report(self, key: str, choice: str, threshold: float, texts: str, own: str, tokens: float, *more: Any) -> list[Any]:
        """Make the report of the plan that Fold shows."""
        bench, options = self._of(key), {**dict(zip(MORE, more, strict=True)), "language": self._language}
        return self._act(
            bench, lambda: bench.comparison.report(choice, threshold, texts_of(texts, own, "evaluation"), int(tokens), **options)
        )

    def repair(self, key: str, choice: str, threshold: float, kind: str, texts: str, own: str, tokens: float) -> list[Any]:
        """Repair the plan that Fold shows; the repaired one becomes the plan shown."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.comparison.repair(choice, threshold, kind, texts_of(texts, own, "evaluation"), int(tokens)))

    def ablate(self, key: str, name: str, threshold: float, texts: str, own: str, tokens: float) -> list[Any]:
        """Run an ablation around the settings on Fold."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.comparison.ablate(name, threshold, texts_of(texts, own, "evaluation"), int(tokens)))

    def board(
        self, key: str, names: str | None, limit: int | None, context: int | None, batch: int | None, event: gr.EventData
    ) -> list[Any]:
        """A button below the board was pressed."""
        bench, what = self._of(key), str(event.what)
        options = {"names": names, "limit": limit, "context": context, "batch": batch}
        answer = self._act(bench, lambda: bench.comparison.act(what, str(event.name), **options))
        return [*answer, "found" if what == "show" and bench.runner.problem is None else gr.skip()]

    def search(
        self,
        key: str,
        kind: str,
        amount: float,
        context: float,
        objective: str,
        seconds: float,
        survivors: list[str],
        repaired: bool,
        every: bool,
    ) -> list[Any]:
        """Search for a target; the best plan so far becomes the plan shown."""
        bench = self._of(key)

        def do() -> None:
            if amount is None or seconds is None:
                raise LayerscopeError("a search needs a target and a time")
            target = {
                "layers": Target(keep=int(amount)),
                "parameters": Target(parameters=amount * 1e6),
                "memory": Target(bytes=amount * 1e6, context=int(context or 0)),
            }[kind]
            bench.searching.start(target, objective, seconds, tuple(survivors), repaired, every)

        answer = self._act(bench, do)
        return [*answer, "found" if bench.runner.problem is None else gr.skip()]

    def baseline(self, key: str, method: str, kind: str, amount: float, objective: str) -> list[Any]:
        """Make a baseline's plan for as many layers."""
        bench = self._of(key)

        def do() -> None:
            if kind != "layers" or amount is None:
                raise LayerscopeError("a baseline needs a number of layers as its target")
            bench.searching.make_baseline(method, int(amount), objective)

        answer = self._act(bench, do)
        return [*answer, "found" if bench.runner.problem is None else gr.skip()]

    def cancel(self, key: str) -> list[Any]:
        """Stop whatever runs."""
        bench = self._of(key)
        return self._act(bench, bench.cancel)


def _settings(C: int, I: int, L: int, H: int | None, rule: str, similarity: str) -> LacoSettings:
    return LacoSettings(int(C), int(I), 1.0, int(L), None if H is None else int(H), rule, similarity)  # type: ignore[arg-type]
