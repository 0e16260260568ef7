"""Event handlers of Recover: repairs and training runs."""

from dataclasses import replace
from typing import Any

import gradio as gr

from engine.errors import SettingsError
from engine.recover.repair.seam_maps import REPAIRS
from engine.recover.run.settings import RecoverySettings, ShearSettings
from engine.settings import record_from_controls
from ui.page.bench.shared import texts_of
from ui.page.handlers.responses import Answering, ignore_if_outdated
from ui.text.commands import SHEARED_TO


class RecoverHandlers(Answering):
    """The handlers of Recover."""

    @ignore_if_outdated
    def repair(self, key: str, choice: str, threshold: float, kind: str, texts: str, own: str, tokens: float, *settings: Any) -> list[Any]:
        """Repair the plan shown on Fold; the repaired plan becomes the plan shown."""
        bench, given = self._of(key), REPAIRS.given(kind, settings)
        on = (choice, threshold, kind)
        return self._act(bench, lambda: bench.repairing.repair(*on, texts_of(texts, own, "evaluation"), int(tokens), **given))

    @ignore_if_outdated
    def repair_times(self, key: str, choice: str, threshold: float, tokens: float, *settings: Any) -> list[Any]:
        """Return how long each visible repair takes and which repairs the plan forbids; empty where there is no plan yet."""
        bench, given = self._of(key), REPAIRS.given("ridge", settings)
        refused: dict[str, str] = {}

        def find() -> dict[str, Any]:
            refused.update(bench.repairing.refused(choice, threshold))
            return bench.repairing.times(choice, threshold, int(tokens), **given)

        answer = self._looked_at(bench, find)
        return [self._refusals(refused), *(gr.update(interactive=kind not in refused) for kind in REPAIRS), *answer]

    def _refusals(self, refused: dict[str, str]) -> str:
        """Return one line per reason, after the names of the buttons that it disables."""
        reasons = {reason: [self._say(f"repair_{kind}") for kind in refused if refused[kind] == reason] for reason in refused.values()}
        return "\n\n".join(f"{', '.join(buttons)}: {self._in_words(reason)}" for reason, buttons in reasons.items())

    @ignore_if_outdated
    def undo_repair(self, key: str) -> list[Any]:
        """Show the plan as it was before the last repair."""
        bench = self._of(key)
        return self._act(bench, bench.repairing.undo)

    @ignore_if_outdated
    def learn(self, key: str, choice: str, threshold: float, name: str, *asked: Any) -> list[Any]:
        """Start a recovery run of the plan shown on Fold; `asked` are the values of `ui.page.tabs.recover.asked`."""
        return self._begun(key, choice, threshold, name, asked)

    @ignore_if_outdated
    def measure_step(self, key: str, choice: str, threshold: float, name: str, *asked: Any) -> list[Any]:
        """Start a run as `learn` does, but only measure the time per step; the user then decides whether to resume."""
        return self._begun(key, choice, threshold, name, asked, measure=True)

    def _begun(self, key: str, choice: str, threshold: float, name: str, asked: tuple[Any, ...], **also: Any) -> list[Any]:
        bench = self._of(key)

        def begin() -> None:
            settings = replace(settings_of(*asked[2:]), **also)
            bench.recovering.begin(choice, threshold, name.strip(), learned_from(*asked[:2]), settings)

        return self._act(bench, begin)

    @ignore_if_outdated
    def shear(self, key: str, texts: list[str], files: str, *asked: Any) -> list[Any]:
        """Start a shearing run of the open model; `asked` are the values of `ui.page.tabs.recover.sheared` after the texts."""
        bench, count = self._of(key), len(SHEARED_TO)
        target = {name: int(value) for name, value in zip(SHEARED_TO, asked[:count], strict=True) if value}
        return self._act(
            bench, lambda: bench.recovering.shear(learned_from(texts, files), target, record_from_controls(ShearSettings, asked[count:]))
        )

    def run(self, key: str, event: gr.EventData) -> list[Any]:
        """Handle a chosen run, or a button below it."""
        bench = self._of(key)
        return self._act(bench, lambda: bench.recovering.act(str(event.what), str(event.name)))

    def runs(self, key: str) -> list[Any]:
        """Refresh the visible list of runs, which may have changed outside this tab."""
        bench = self._of(key)
        bench.recovering.publish()
        return self._status(bench)


def learned_from(bundled: list[str], files: str) -> list[str]:
    """Return the training texts: the ticked ones, and the lines of the text box."""
    return [*bundled, *(line.strip() for line in files.splitlines() if line.strip())]


def settings_of(budget: str, amount: float | None, *values: Any) -> RecoverySettings:
    """Return the recovery settings that the controls hold: a budget, and the values of RecoverySettings.

    Raises:
        SettingsError: there is no budget.
    """
    if not amount:
        raise SettingsError("name one budget: minutes or tokens")
    found: RecoverySettings = record_from_controls(RecoverySettings, values, **{budget: amount})
    return found
