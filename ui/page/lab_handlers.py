"""What the page asks of the lab: scores, widths, masks."""

from typing import Any

import gradio as gr

from engine.methods.masks import MASKS
from ui.page.answering import Answering, of_what_is_open


class LabHandlers(Answering):
    """The handlers of Importance, Width and Weights, and of the search for shapes."""

    @of_what_is_open
    def importance(self, key: str, axis: str, score: str, tokens: float) -> list[Any]:
        """Measure one score of an axis."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.scoring.measure(axis, score, int(tokens)))

    @of_what_is_open
    def importances(self, key: str, axis: str, tokens: float) -> list[Any]:
        """Measure every score of an axis that needs no gradients."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.scoring.measure(axis, None, int(tokens)))

    @of_what_is_open
    def head(self, key: str, event: gr.EventData) -> list[Any]:
        """A head was chosen."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.scoring.look_at_head(int(event.layer), int(event.head)))

    @of_what_is_open
    def trim(
        self,
        key: str,
        choice: str,
        threshold: float,
        heads: float,
        neurons: float,
        channels: float,
        score: str,
        refit: bool,
        plain: bool,
        tokens: float,
    ) -> list[Any]:
        """Trim the plan that Fold shows."""
        bench = self._of(key)
        return self._act(
            bench,
            lambda: bench.trimming.trim(choice, threshold, bench.trimming.kept(heads, neurons, channels), score, refit, plain, int(tokens)),
        )

    @of_what_is_open
    def prune(
        self, key: str, choice: str, threshold: float, method: str, sparsity: float, pattern: str, group: str, tokens: float, *settings: Any
    ) -> list[Any]:
        """Prune weights of the plan that Fold shows."""
        bench, given = self._of(key), MASKS.given(method, settings)
        asked = (choice, threshold, method, float(sparsity), pattern, group, int(tokens))
        return self._act(bench, lambda: bench.pruning.prune(*asked, **given))

    @of_what_is_open
    def curves(self, key: str) -> list[Any]:
        """Measure what sparsities cost, method against method."""
        bench = self._of(key)
        return self._act(bench, bench.pruning.curves)

    @of_what_is_open
    def time_zeros(self, key: str, choice: str, threshold: float) -> list[Any]:
        """Time the plan that Fold shows beside its source."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.timing.measure(bench.chosen(choice, threshold)[0]))

    @of_what_is_open
    def shapes(self, key: str, millions: float | None, measured: float, refit: bool, speed: bool, tokens: float) -> list[Any]:
        """Look for the best shape of so many parameters."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.shaping.search(millions, int(measured), refit, speed, int(tokens)))

    @of_what_is_open
    def shape(self, key: str, event: gr.EventData) -> list[Any]:
        """A measured shape was chosen."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.shaping.show(str(event.name)))
