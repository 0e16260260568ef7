"""Find the tokens with the largest activation of each neuron of a layer, for all neurons in one pass. An activation is what the MLP's
consumer reads; only the largest few are kept.

The first token of each text is left out: the residual stream has massive values there for any token, and they would be every
neuron's largest.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from engine.jobs import Job, scaled
from engine.models.families import architecture_of
from engine.models.texts import BROKEN, Pack, characters_at
from engine.passes.walk import Walk
from engine.plans.rules import untouched
from engine.types import Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS = 8  # kept per neuron
_BEFORE, _AFTER = 8, 4  # tokens of context


@dataclass(frozen=True, slots=True)
class Excited:
    """A token that activates a neuron, decoded to whole characters, with its context and the neuron's signed activation."""

    before: str
    token: str
    after: str
    value: float


class Peaks:
    """The tokens with the largest |activation| of every neuron of a layer, the largest first."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", packs: Sequence[Pack]) -> None:
        self._decode, self._ids = tokenizer.decode, torch.cat([pack.ids[0] for pack in packs])
        lengths = [stop - start for pack in packs for _, start, stop in pack.spans]
        self._ends = torch.tensor(lengths).cumsum(0).tolist()  # the end of each text, counted over all tokens
        self.read = 0  # tokens added so far
        self._values: torch.Tensor | None = None
        self._places = torch.zeros(0, 0, dtype=torch.int64)  # [kept, neurons], counted over all tokens

    def add(self, x: torch.Tensor, pack: Pack) -> None:
        """Add the activations [tokens, neurons] of the next pack."""
        counted = ~pack.first_tokens()
        x, places = x.float().cpu()[counted], (self.read + torch.arange(len(x)))[counted]
        places = places[:, None].expand(-1, x.shape[1])
        if self._values is not None:
            x, places = torch.cat([self._values, x]), torch.cat([self._places, places])
        best = x.abs().topk(min(TOKENS, len(x)), dim=0).indices
        self._values, self._places = x.gather(0, best), places.gather(0, best)
        self.read += len(counted)

    def of(self, neuron: int) -> tuple[Excited, ...]:
        """Return the tokens with the largest activations of a neuron."""
        assert self._values is not None
        found = zip(self._places[:, neuron].tolist(), self._values[:, neuron].tolist(), strict=True)
        return tuple(self._told(place, value) for place, value in found)

    def _told(self, place: int, value: float) -> Excited:
        text = bisect_right(self._ends, place)
        first, last = max(place - _BEFORE, self._ends[text - 1] if text else 0), min(place + 1 + _AFTER, self._ends[text])
        start, stop = (first + end for end in characters_at(self._decode, self._ids[first:last], place - first))
        before, token, after = (self._decode(self._ids[a:b]) for a, b in ((first, start), (start, stop), (stop, last)))
        return Excited(before.lstrip(BROKEN), token, after.rstrip(BROKEN), value)  # the context may begin or end within a character


def exciting(model: Model, packs: Sequence[Pack], layer: int) -> Job[Peaks]:
    """Return the tokens in some packs with the largest activations of each neuron of a source layer, from one walk up to that layer."""
    blocks, consumer = untouched(model.spec.depth).blocks, architecture_of(model.config).reader_of("neuron")
    walk, peaks = Walk(model, packs, blocks), Peaks(model.tokenizer, packs)
    for place in range(layer):
        yield from scaled(walk.step(blocks[place]), place / (layer + 1), (place + 1) / (layer + 1))
    yield from scaled(walk.watch(blocks[layer], lambda _, x, pack: peaks.add(x, pack), (consumer,)), layer / (layer + 1), 1.0)
    return peaks
