"""Domains by cost in a run: what held-out text of each domain costs the network that learns, told, and how much of each is read next.

The proportions themselves are engine/corpus/domains.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.corpus.domains import Reader
from engine.corpus.settings import Update
from engine.errors import SettingsError
from engine.jobs import Job
from engine.recover.heldout import Held, Within, domain_costs, plainly
from engine.recover.runs import Run
from engine.training.parallel import agreed

HELD = 2000  # tokens that are held out of each domain


@dataclass(frozen=True, eq=False, slots=True)
class Weighing:
    """Of a run's text, every so many steps; the references that costs are held against stand in the run's record."""

    run: Run
    reader: Reader
    held: Mapping[str, Held]
    update: Update
    every: int

    def due(self, step: int) -> bool:
        """Return whether domains are weighed before the step of that number."""
        return step > 0 and step % self.every == 0

    def look(self, network: Any, step: int, autocast: str, device: str, within: Within = plainly) -> Job[dict[str, float]]:
        """Return what the text that is held out of each domain costs, in nats a token, and tell of it."""
        mix, references = self.reader.mix, self.run.record["references"]
        assert mix is not None
        found = agreed((yield from domain_costs(network, self.held, autocast, device, within)))
        shares = dict(zip(mix.domains, mix.proportions, strict=True))
        told = {name: {"cost": found[name], "reference": references[name], "proportion": shares[name]} for name in found}
        self.run.tell({"step": step, "domains": told})
        return found

    def weigh(self, network: Any, step: int, autocast: str, device: str, within: Within = plainly) -> Job[None]:
        """Look, and let the proportions follow."""
        costs = yield from self.look(network, step, autocast, device, within)
        self.reader.weigh(costs, self.run.record["references"], self.update)


def known_references(given: Mapping[str, float], domains: Sequence[str]) -> dict[str, float]:
    """Return the reference losses that a person gave, by domain.

    Raises:
        SettingsError: there is no such domain.
    """
    if unknown := sorted(set(given) - set(domains)):
        raise SettingsError(f"there is no domain '{unknown[0]}' in the text; its domains are {', '.join(domains)}")
    return dict(given)
