"""Attention patterns of heads over a text, and the role that a stated rule assigns to each head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from engine.models.families import blocks_of
from engine.models.texts import characters_at
from engine.types import Model

# Roles in the order they are tried: each is an attention share averaged over tokens, and the least share that assigns the role.
ROLES = (("induction", 0.4), ("previous", 0.4), ("first", 0.6), ("diffuse", 0.8))
_STRING = 24  # random tokens, repeated once
_EDGES = 3


@dataclass(frozen=True, slots=True)
class HeadRole:
    """The shares of one head (see ROLES) and the first role they reach, or "mixed".

    `previous` is the attention on the previous token, `first` on the first token, `induction` on the token after the earlier occurrence in
    a repeated random string; `diffuse` is the entropy relative to uniform attention.
    """

    previous: float
    first: float
    induction: float
    diffuse: float
    role: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """A head's attention on a text: for each token its strongest edges (to, share), and separately the share on the first token, which
    would dominate the others."""

    tokens: tuple[str, ...]
    edges: tuple[tuple[tuple[int, float], ...], ...]
    first: tuple[float, ...]


def roles(model: Model, ids: torch.Tensor) -> tuple[tuple[HeadRole, ...], ...]:
    """Return the shares and role of every head of every layer, from a text's token ids [1, tokens] and from a repeated random string."""
    generator = torch.Generator().manual_seed(0)
    string = torch.randint(0, model.config.vocab_size, (1, _STRING), generator=generator)
    found = []
    for text, twice in zip(attention(model, ids), attention(model, torch.cat([string, string], 1)), strict=True):
        places = torch.arange(1, text.shape[-1])
        previous, first = text[:, places, places - 1].mean(1), text[:, 1:, 0].mean(1)
        again = torch.arange(_STRING, 2 * _STRING)
        induction = twice[:, again, again - _STRING + 1].mean(1)
        entropy = -(text * text.clamp_min(1e-12).log()).sum(-1)[:, 1:] / (places + 1).log()
        shares = torch.stack([induction, previous, first, entropy.mean(1)], 1).tolist()
        found.append(tuple(HeadRole(p, f, i, d, _role((i, p, f, d))) for i, p, f, d in shares))
    return tuple(found)


def _role(shares: Sequence[float]) -> str:
    return next((name for (name, least), share in zip(ROLES, shares, strict=True) if share >= least), "mixed")


def pattern(model: Model, ids: torch.Tensor, layer: int, head: int) -> Pattern:
    """Return one head's attention pattern on a text's token ids [1, tokens]."""
    weights = attention(model, ids)[layer][head]
    rest = weights.clone()
    rest[:, 0] = 0.0
    edges = []
    for row in rest:
        top = row.topk(min(_EDGES, len(row)))
        edges.append(tuple((int(to), float(share)) for share, to in zip(top.values, top.indices, strict=True) if share > 0.02))
    decode = model.tokenizer.decode
    tokens = tuple(decode(ids[0, slice(*characters_at(decode, ids[0], place))]) for place in range(ids.shape[1]))
    return Pattern(tokens, tuple(edges), tuple(weights[:, 0].tolist()))


@torch.no_grad()
def attention(model: Model, ids: torch.Tensor) -> list[torch.Tensor]:
    """Return the attention of every layer over token ids [1, tokens]: [heads, tokens, tokens], one row per query token.

    Other kernels never store the attention matrix, so this pass uses the eager one, under the model's lock.
    """
    with model.lock, _eager(model):
        output = model.network.base_model(input_ids=ids.to(model.source.device), use_cache=False, output_attentions=True)
    assert len(output.attentions) == len(blocks_of(model.network))
    return [layer[0].float().cpu() for layer in output.attentions]


@contextmanager
def _eager(model: Model) -> Iterator[None]:
    usual = model.config._attn_implementation
    model.network.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.network.set_attn_implementation(usual)
