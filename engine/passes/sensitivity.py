"""Estimate the cost of small changes of the hidden states to second order, from one backward pass.

At the source itself the KL divergence and its gradient are zero, so a change d of the states costs about 1/2 E[(g . d)^2], where g is the
gradient of log p(y) for tokens y drawn from the model's own prediction. This is the Fisher information, which is the Gauss-Newton Hessian
of the divergence (Amari 1998). Each token is treated separately; interactions between tokens are ignored. The estimate is exact only in the
limit of small changes: use it to choose what to measure.
"""

from itertools import pairwise

import torch

from engine.model_lock import check_cancelled
from engine.models.devices import exact
from engine.models.families import blocks_of, final_norm_of
from engine.passes.forward import Capture, state_of
from engine.types import Model

DRAWS = 2


class Sensitivity:
    """Gradients of the log-likelihood of drawn tokens at every depth of the source, over some captures.

    The cost is one forward and `DRAWS` backward passes without weight gradients: about (1 + DRAWS) * depth blocks.
    """

    def __init__(self, model: Model, records: tuple[Capture, ...], seed: int = 0) -> None:
        self._records = records
        with model.lock:
            self._gradients = tuple(_gradients(model, record, seed) for record in records)
        self.tokens = sum(record.pack.ids.shape[1] for record in records)
        depth = model.spec.depth
        costs = [self._products(layer + 1, [r.states[layer] for r in records]) for layer in range(depth)]
        vectors = torch.stack(costs)  # [layers, draws * tokens]: first-order change of the log-likelihood if a layer is skipped
        self._quadratic = vectors @ vectors.T / (2 * DRAWS * self.tokens)

    def _products(self, point: int, states: list[torch.Tensor]) -> torch.Tensor:
        found = []
        for record, gradients, state in zip(self._records, self._gradients, states, strict=True):
            change = (state - record.states[point])[0].float()
            found += [(draw[point][0].float() * change).sum(-1) for draw in gradients]
        return torch.cat(found).cpu().double()

    def cost(self, point: int, states: list[torch.Tensor]) -> float:
        """Return the estimated KL divergence (nats per token) if `states[point]` of the source is replaced by these states, one per
        capture."""
        return float(self._products(point, states).square().sum()) / (2 * DRAWS * self.tokens)

    def metric(self, layer: int) -> torch.Tensor:
        """Return [hidden, hidden]: the mean of |r|^2 g g^T, r the state that enters a layer and g the gradient after it; float64."""
        rows = [
            draw[layer + 1][0].float() * record.states[layer][0].float().norm(dim=-1, keepdim=True)
            for record, gradients in zip(self._records, self._gradients, strict=True)
            for draw in gradients
        ]
        gradients = torch.cat(rows)
        return exact(gradients.mT @ gradients).cpu() / len(gradients)

    def channels(self) -> torch.Tensor:
        """Return [draws * tokens, hidden]: the first-order change of each token's log-likelihood if a channel is removed from the residual
        stream wherever it is written; float64."""
        found = []
        for record, gradients in zip(self._records, self._gradients, strict=True):
            written = [record.states[0], *(after - before for before, after in pairwise(record.states))]
            found += [torch.stack([(g[0] * w[0]).float() for g, w in zip(draw, written, strict=True)]).sum(0) for draw in gradients]
        return exact(torch.cat(found)).cpu()

    def without(self, gone: set[int]) -> float:
        """Return the estimated KL divergence of skipping these layers, assuming that their contributions stay the source's."""
        index = sorted(gone)
        return float(self._quadratic[index][:, index].sum())


@torch.enable_grad()
def _gradients(model: Model, record: Capture, seed: int) -> tuple[tuple[torch.Tensor, ...], ...]:
    state = record.states[0].detach().clone().requires_grad_()
    states = [state]
    for layer, (args, kwargs) in zip(blocks_of(model.network), record.calls, strict=True):
        check_cancelled()
        states.append(state_of(layer(states[-1], *args, **kwargs)))
    logs = model.network.get_output_embeddings()(final_norm_of(model.network)(states[-1])[0]).float().log_softmax(-1)
    generator = torch.Generator(logs.device).manual_seed(seed)
    found = []
    for draw in range(DRAWS):
        check_cancelled()
        tokens = torch.multinomial(logs.detach().exp(), 1, generator=generator)
        found.append(torch.autograd.grad(logs.gather(1, tokens).sum(), states, retain_graph=draw < DRAWS - 1))
    return tuple(found)
