"""Event handlers for scores, widths and masks."""

from typing import Any

import gradio as gr

from engine.methods.masks.pruning import MASKS
from engine.methods.masks.settings import PruneSettings
from engine.methods.width.settings import TrimSettings
from engine.search.settings import ShapesSettings
from engine.settings import record_from_controls, split
from ui.page.handlers.responses import Answering, ignore_if_outdated


class LabHandlers(Answering):
    """The handlers of Importance, Width and Weights, and of the search for shapes."""

    @ignore_if_outdated
    def importance(self, key: str, axis: str, score: str, tokens: float) -> list[Any]:
        """Measure one score of an axis."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.scoring.measure(axis, score, int(tokens)))

    @ignore_if_outdated
    def importances(self, key: str, axis: str, tokens: float) -> list[Any]:
        """Measure every score of an axis that needs no gradients."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.scoring.measure(axis, None, int(tokens)))

    @ignore_if_outdated
    def importance_times(self, key: str, axis: str, score: str, tokens: float) -> list[Any]:
        """Return how long the visible buttons of Importance take."""
        bench = self._of(key)
        return self._looked_at(bench, lambda: bench.scoring.times(axis, score, int(tokens)))

    @ignore_if_outdated
    def trim_times(self, key: str, score: str, compensation: str, tokens: float) -> list[Any]:
        """Return how long trimming takes, while Width is visible."""
        bench = self._of(key)
        return self._looked_at(bench, lambda: bench.trimming.times(score, compensation, int(tokens)))

    @ignore_if_outdated
    def mask_times(self, key: str, method: str, tokens: float) -> list[Any]:
        """Return how long pruning takes, while Weights is visible."""
        bench = self._of(key)
        return self._looked_at(bench, lambda: bench.pruning.times(method, int(tokens)))

    @ignore_if_outdated
    def look(self, key: str, tokens: float, event: gr.EventData) -> list[Any]:
        """Open the chosen head or neuron."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.looking.look(str(event.axis), int(event.layer), int(event.unit), int(tokens)))

    @ignore_if_outdated
    def losses(self, key: str, event: gr.EventData) -> list[Any]:
        """Measure the model's loss without each head of a layer, or without each of some neurons."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.looking.losses(str(event.axis), int(event.layer)))

    @ignore_if_outdated
    def trim(self, key: str, choice: str, threshold: float, tokens: float, *values: Any) -> list[Any]:
        """Trim the plan shown on Fold; `values` are those of the controls of TrimSettings."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.trimming.trim(choice, threshold, record_from_controls(TrimSettings, values), int(tokens)))

    @ignore_if_outdated
    def prune(self, key: str, choice: str, threshold: float, tokens: float, *values: Any) -> list[Any]:
        """Prune weights of the plan shown on Fold; `values` are those of the controls of PruneSettings and of the methods' settings."""
        bench = self._of(key)
        asked, settings = split(PruneSettings, values)
        given = MASKS.given(asked.method, settings)
        return self._act(bench, lambda: bench.pruning.prune(choice, threshold, asked, int(tokens), **given))

    @ignore_if_outdated
    def mask_curves(self, key: str, sparsity: float) -> list[Any]:
        """Measure the cost of several sparsities by each method."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.pruning.curves(float(sparsity)))

    @ignore_if_outdated
    def width_curves(self, key: str, *values: Any) -> list[Any]:
        """Measure the cost of several widths by each score."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.trimming.curves(record_from_controls(TrimSettings, values)))

    @ignore_if_outdated
    def time_zeros(self, key: str, choice: str, threshold: float) -> list[Any]:
        """Time the plan shown on Fold against its source."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.timing.measure(bench.chosen(choice, threshold)[0]))

    @ignore_if_outdated
    def shapes(self, key: str, millions: float | None, tokens: float, *values: Any) -> list[Any]:
        """Search for the best shape with this many million parameters."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.shaping.search(millions, record_from_controls(ShapesSettings, values), int(tokens)))

    @ignore_if_outdated
    def shape(self, key: str, event: gr.EventData) -> list[Any]:
        """Show the chosen measured shape."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.shaping.show(str(event.name)))
