"""Weight domains by cost during a run: measure the held-out loss of each domain, report it, and change how much of each is read.

The proportions themselves are computed in engine/corpus/domains.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.corpus.domains import RowReader
from engine.corpus.settings import Update
from engine.errors import SettingsError
from engine.jobs import Job
from engine.recover.distill.heldout import HeldOut, Within, domain_costs, plainly
from engine.recover.run.runs import Run
from engine.training.parallel import agreed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HELD = 2000  # held-out tokens per domain


@dataclass(frozen=True, eq=False, slots=True)
class DomainWeighting:
    """Reweights a run's domains every `every` steps; the reference losses are stored in the run's record."""

    run: Run
    reader: RowReader
    held: Mapping[str, HeldOut]
    update: Update
    every: int

    def due(self, step: int) -> bool:
        """Return whether domains are reweighted before the step of that number."""
        return step > 0 and step % self.every == 0

    def look(self, network: "PreTrainedModel", step: int, autocast: str, device: str, within: Within = plainly) -> Job[dict[str, float]]:
        """Return the held-out loss of each domain in nats per token, and record it."""
        mix, references = self.reader.mix, self._references()
        assert mix is not None
        found = agreed((yield from domain_costs(network, self.held, autocast, device, within)))
        shares = dict(zip(mix.domains, mix.proportions, strict=True))
        facts = {name: {"cost": found[name], "reference": references[name], "proportion": shares[name]} for name in found}
        self.run.log_line({"step": step, "domains": facts})
        return found

    def weigh(self, network: "PreTrainedModel", step: int, autocast: str, device: str, within: Within = plainly) -> Job[None]:
        """Measure the losses and update the proportions."""
        costs = yield from self.look(network, step, autocast, device, within)
        self.reader.weigh(costs, self._references(), self.update)

    def _references(self) -> dict[str, float]:
        found = self.run.about.references
        assert found is not None
        return found


def known_references(given: Mapping[str, float], domains: Sequence[str]) -> dict[str, float]:
    """Return the reference losses given by the user, by domain.

    Raises:
        SettingsError: a domain does not exist.
    """
    if unknown := sorted(set(given) - set(domains)):
        raise SettingsError("the text has no domain '{unknown}'; its domains are {choices}", unknown=unknown[0], choices=", ".join(domains))
    return dict(given)
