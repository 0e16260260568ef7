"""Estimate the cost of less depth and width, in nats per token, without running any of it: the ranking of the search over shapes.

At the source the KL divergence and its gradient are zero, so a change d of the residual stream costs about 1/2 E[(g . d)^2], g the gradient
of a drawn token's log-likelihood there (see engine/passes/sensitivity.py). One pass over practice texts sums up d:

layers    their output, of all removed layers together
channels  what is written to them at any point, summed
heads,    the part of a layer's output that the refit's normal equations leave: with S the second moments of x_P - x_K B
neurons   (B the least squares fit of the cut inputs by the kept ones), 1/2 tr(M W_P S W_P^T), M = E[g g^T], summed over layers

Tokens are weighted by 1 / |r|, r the stream that enters the layer, and gradients by |r|: the next norm divides by it, so a massive
activation counts as much as any other token. To second order only small changes are estimated correctly; `learned` therefore fits one scale
per axis to the measured shapes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from engine.jobs import Job, Progress, scaled
from engine.messages import Message
from engine.methods.width.scores import AXES
from engine.models.shapes import shape_of
from engine.models.texts import Pack, beginning
from engine.passes.forward import capture
from engine.passes.sensitivity import Sensitivity
from engine.passes.sums import Sums
from engine.passes.walk import Walk
from engine.plans.rules import untouched
from engine.types import Block, Model, Shape

DRAFT_TOKENS = 1024  # tokens whose gradients are computed; their states at every point are in memory meanwhile
_DAMPING = 0.01
_TRUST = 0.1  # the weight of an estimate relative to one measurement


@dataclass(frozen=True, slots=True)
class Estimates:
    """A model's estimated loss in nats per token: without the first so many layers of `going` (`layers[count]`), with fewer heads or
    neurons in a layer (`heads[count][layer]`), and with fewer channels (`channels[count]`), by the number kept."""

    going: tuple[int, ...]
    layers: tuple[float, ...]
    heads: dict[int, tuple[float, ...]]
    neurons: dict[int, tuple[float, ...]]
    channels: dict[int, float]

    def of(self, shape: Shape) -> tuple[float, ...]:
        """Return the estimates of a shape: of its depth, heads, neurons and channels."""
        kept = self.kept(shape.depth)
        by_layer = (sum(table[left][layer] for layer in kept) for table, left in ((self.heads, shape.heads), (self.neurons, shape.neurons)))
        return (self.layers[len(self.going) - shape.depth], *by_layer, self.channels[shape.channels])

    def kept(self, depth: int) -> tuple[int, ...]:
        """Return the kept layers, in order."""
        return tuple(sorted(self.going[len(self.going) - depth :]))


def estimates(model: Model, packs: Sequence[Pack], shapes: Sequence[Shape]) -> Job[Estimates]:
    """Return the source's estimated losses at the depths and widths of some shapes, from one pass over practice texts and backward passes
    over their beginning."""
    source, whole = untouched(model.spec.depth).blocks, shape_of(model.config)
    wanted = {axis: sorted({getattr(shape, axis) for shape in (*shapes, whole)}) for axis in AXES}
    yield Progress(Message("Gradients of the source"), 0.0)
    sensitivity = _sensitivity(model, packs)
    going, layers = _going(sensitivity, len(source))
    walk = Walk(model, packs, source)
    run, tables = _Layer(walk, whole), {axis: {left: list[float]() for left in wanted[axis]} for axis in ("heads", "neurons")}
    for place, block in enumerate(source):
        seen, found = dict[str, Sums](), list(walk.states)
        sizes = {id(pack): state[0].float().norm(dim=-1, keepdim=True) for pack, state in zip(walk.packs, found, strict=True)}

        def see(name: str, x: torch.Tensor, pack: Pack, seen: dict[str, Sums] = seen, sizes: dict[int, torch.Tensor] = sizes) -> None:
            if name in run.consumers:
                seen.setdefault(name, Sums(x.shape[1], torch.float32)).add(x.float() / sizes[id(pack)], pack)

        yield from scaled(walk.step(block, see), place / len(source), (place + 1) / len(source))
        metric = sensitivity.metric(place)
        for axis, table in tables.items():
            for left, lost in zip(table, run.lost(block, axis, tuple(table), seen, metric), strict=True):
                table[left].append(lost)
    heads, neurons = ({left: tuple(lost) for left, lost in tables[axis].items()} for axis in ("heads", "neurons"))
    return Estimates(going, layers, heads, neurons, _channels(sensitivity, wanted["channels"]))


def learned(parts: Sequence[Sequence[float]], costs: Sequence[float]) -> tuple[float, ...]:
    """Return a scale per axis: the s >= 0 that minimises sum ((parts . s) / cost - 1)^2 + trust |s - 1|^2.

    `parts` are the estimates of the measured shapes, one per axis; `costs` are the measured costs in nats.
    """
    if not costs:
        return ()
    facts = torch.tensor(parts, dtype=torch.float64) / torch.tensor(costs, dtype=torch.float64).clamp_min(1e-6)[:, None]
    damped = facts.mT @ facts + _TRUST * torch.eye(facts.shape[1], dtype=torch.float64)
    found = 1 + torch.linalg.solve(damped, facts.mT @ (1 - facts.sum(1)))
    return tuple(found.clamp_min(0).tolist())


def residuals(gram: torch.Tensor, weight: torch.Tensor, order: torch.Tensor, metric: torch.Tensor) -> torch.Tensor:
    """Return [in + 1]: for each number of inputs kept (the first in an order), the least sum of e^T M e, e the error of W x with only
    those.

    G, the damped sum of x x^T [in, in] in that order, is L L^T. The second moments of the other inputs that the kept ones do not explain
    are the lower right part of L times its transpose, so each column of W L [out, in] adds its own loss. W [out, in], M [out, out].
    """
    ordered = gram[order][:, order]
    sizes = ordered.diagonal().clone()
    ordered.diagonal().add_(_DAMPING * sizes + 1e-9 * sizes.mean().clamp_min(1e-30))
    written = weight[:, order] @ torch.linalg.cholesky(ordered)
    each = (metric @ written * written).sum(0)
    return torch.cat([each.flip(0).cumsum(0).flip(0), each.new_zeros(1)])


def _sensitivity(model: Model, packs: Sequence[Pack]) -> Sensitivity:
    with model.lock:
        records = tuple(capture(model, pack) for pack in packs[: beginning(packs, DRAFT_TOKENS)])
    return Sensitivity(model, records)


def _going(sensitivity: Sensitivity, depth: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the layers in the order of removal, each the cheapest together with those before it, and the cumulative costs."""
    gone, costs = list[int](), [0.0]
    while len(gone) < depth:
        left = {layer: sensitivity.without({*gone, layer}) for layer in range(depth) if layer not in gone}
        gone.append(min(left, key=lambda layer: left[layer]))
        costs.append(left[gone[-1]])
    return tuple(gone), tuple(costs)


def _channels(sensitivity: Sensitivity, counts: Sequence[int]) -> dict[int, float]:
    """Return the loss by number of channels kept, removing the least important channels first."""
    written = sensitivity.channels()
    order = written.square().sum(0).argsort()
    return {left: float(written[:, order[: len(order) - left]].sum(1).square().mean()) / 2 for left in counts}


class _Layer:
    """Computes the loss of one layer."""

    def __init__(self, walk: Walk, whole: Shape) -> None:
        self._walk, self._whole = walk, whole
        self.consumers = walk.mixer.cutter.row.consumers
        self._reader = dict(zip(("heads", "neurons"), self.consumers, strict=True))

    def lost(self, block: Block, axis: str, counts: Sequence[int], seen: dict[str, Sums], metric: torch.Tensor) -> Iterator[float]:
        """Yield a layer's loss in nats per token for each number of heads or neurons kept."""
        sums, weight = seen[self._reader[axis]], self._walk.mixer.weight(block, self._reader[axis])
        unit, gram = self._whole.head_dim if axis == "heads" else 1, sums.gram
        assert gram is not None
        scores = (sums.norm * weight.norm(dim=0)).square().reshape(-1, unit).sum(1)
        groups = self._whole.sharing if axis == "heads" else 1
        ranked = scores.reshape(groups, -1).argsort(dim=1, descending=True) + torch.arange(groups)[:, None] * (len(scores) // groups)
        order = (ranked.T.reshape(-1, 1) * unit + torch.arange(unit)).flatten()  # the first of every group, then the second of each
        lost = residuals(gram.float(), weight.float(), order, metric.float()) / (2 * sums.tokens)  # float32 is precise enough for ranking
        yield from (float(lost[left * unit]) for left in counts)
