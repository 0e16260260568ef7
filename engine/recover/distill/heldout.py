"""Measure the gap between a trained network and its source on held-out text: of the training kind, and of another kind.

Both curves are always needed: a small text is soon memorised, which only other text shows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from engine.corpus.rows import Rows
from engine.jobs import Job, Progress
from engine.judge.evaluation import exp_of, rise, windows
from engine.messages import Message
from engine.models.texts import Pack, beginning, bundled
from engine.records import FloatOrNaN
from engine.training.losses import ROWS, head_of
from engine.training.precision import casting
from engine.types import Model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")
Within = Callable[[Callable[[], Any]], Any]  # runs a function on networks, which may be sharded over several processes


@dataclass(frozen=True, slots=True)
class Gap:
    """Perplexity of a network and of its source on some text, their ratio with its 95 % interval over texts, and the number of tokens."""

    perplexity: FloatOrNaN
    source: FloatOrNaN
    ratio: FloatOrNaN
    low: FloatOrNaN
    high: FloatOrNaN
    tokens: int


TextLosses = tuple[tuple[int, int, FloatOrNaN], ...]  # for each text: its number, its scored tokens, and their negative log-likelihood


@dataclass(frozen=True, eq=False, slots=True)
class HeldOut:
    """Held-out text: its packs, and for each how many leading tokens of each span are not scored."""

    packs: tuple[Pack, ...]
    skips: tuple[tuple[int, ...], ...]

    def first(self, tokens: int) -> "HeldOut":
        """Return the leading packs that fit into `tokens` tokens; at least one."""
        count = beginning(self.packs, tokens)
        return replace(self, packs=self.packs[:count], skips=self.skips[:count])


def held_packs(packs: Sequence[Pack]) -> HeldOut:
    """Return packs in which every token except each text's first is scored."""
    return HeldOut(tuple(packs), tuple((1,) * len(pack.spans) for pack in packs))


def held_texts(model: Model, kind: Sequence[Pack], language: str, tokens: int) -> dict[str, HeldOut]:
    """Return both held-out texts: packs of the training kind, and at most `tokens` tokens of the bundled evaluation texts."""
    _, packs, skips = windows(model.tokenizer, model.config, bundled(language, "evaluation"), limit=tokens)
    return {
        "kind": held_packs(kind),
        "other": HeldOut(packs, skips),
    }


def plainly(work: Callable[[], T]) -> T:
    """Run a function on unsharded networks."""
    return work()


def likelihoods(
    network: "PreTrainedModel", held: HeldOut, autocast: str = "", device: str = "cpu", within: Within = plainly
) -> Job[TextLosses]:
    """Measure a network on held-out text, in evaluation mode; `within` runs the forward passes."""
    found: dict[int, tuple[int, float]] = {}
    training = network.training
    network.eval()
    try:
        for number, (pack, skips) in enumerate(zip(held.packs, held.skips, strict=True)):
            yield Progress(Message("Evaluating on held-out text"), number / len(held.packs))
            for text, tokens, loss in within(partial(_scored, network, pack, skips, autocast, device)):
                there = found.get(text, (0, 0.0))
                found[text] = (there[0] + tokens, there[1] + loss)
    finally:
        network.train(training)
    return tuple((text, *found[text]) for text in sorted(found))


@torch.no_grad()
def _scored(network: "PreTrainedModel", pack: Pack, skips: Sequence[int], autocast: str, device: str) -> list[tuple[int, int, float]]:
    with casting(device, autocast):
        ids, positions = pack.ids.to(device), pack.positions.to(device)
        states = network.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[0]
    head = head_of(network).cast(getattr(torch, autocast) if autocast else states.dtype)
    found = []
    for (text, start, stop), skip in zip(pack.spans, skips, strict=True):
        places = torch.arange(start + skip - 1, stop - 1, device=ids.device)
        logs = (head.logits(states[part]).log_softmax(-1).gather(1, ids[0, part + 1][:, None]) for part in places.split(ROWS))
        found.append((text, len(places), -sum(float(one.double().sum()) for one in logs)))
    return found


def held_of_domains(rows: Rows, tokens: int) -> dict[str, HeldOut]:
    """Return the held-out text of each domain, at most `tokens` tokens each."""
    return {name: held_packs(rows.of(name).held_out(tokens)) for name in rows.domains}


def domain_costs(
    network: "PreTrainedModel", held: Mapping[str, HeldOut], autocast: str = "", device: str = "cpu", within: Within = plainly
) -> Job[dict[str, float]]:
    """Return a network's mean held-out loss of each domain, in nats per token."""
    found = {}
    for name, texts in held.items():
        sums = yield from likelihoods(network, texts, autocast, device, within)
        found[name] = sum(loss for _, _, loss in sums) / sum(tokens for _, tokens, _ in sums)
    return found


def gap(source: TextLosses, network: TextLosses) -> Gap:
    """Return the gap between a network and its source, from the scores of both on the same text."""
    tokens = sum(count for _, count, _ in source)
    ours, theirs = (sum(loss for _, _, loss in sums) / tokens for sums in (network, source))
    mean, spread = rise([(count, after - before) for (_, count, before), (_, _, after) in zip(source, network, strict=True)])
    return Gap(exp_of(ours), exp_of(theirs), exp_of(mean), exp_of(mean - spread), exp_of(mean + spread), tokens)


def gaps(
    network: "PreTrainedModel",
    held: Mapping[str, HeldOut],
    source: Mapping[str, TextLosses],
    autocast: str = "",
    device: str = "cpu",
    within: Within = plainly,
) -> Job[dict[str, Gap]]:
    """Return the gap on each of the texts."""
    found = {}
    for name, texts in held.items():
        found[name] = gap(source[name], (yield from likelihoods(network, texts, autocast, device, within)))
    return found
