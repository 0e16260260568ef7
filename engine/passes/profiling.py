"""Measure redundancy from captured states and weights. Pure maths; no model is run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from engine.cache import Definition, key_of
from engine.jobs import Job, Progress
from engine.measurements import Measurements
from engine.messages import Message
from engine.models.families import architecture_of, blocks_of
from engine.passes.forward import Capture
from engine.types import Model

PROFILE = Definition("profiles", 1)
WEIGHT_DISTANCE = Definition("weights", 1)
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """One layer's figures, over all tokens of the calibration texts.

    `block_influence` is 1 - mean cosine of the layer's input and output (ShortGPT); `cosine_to_next` is that mean cosine. The `_rest`
    figures leave out the first token of each text.
    """

    index: int
    block_influence: float
    block_influence_rest: float
    cosine_to_next: float
    cosine_to_next_rest: float


@dataclass(frozen=True, slots=True)
class NormProfile:
    """Norms of the residual stream at each of depth + 1 points: the mean over first tokens, and the median and maximum over all other
    tokens."""

    first_token: tuple[float, ...]
    other_median: tuple[float, ...]
    other_max: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Redundancy of a model on some texts, from the raw residual stream (before the final norm).

    Matrices are (depth + 1) x (depth + 1): state 0 enters the first layer, state i leaves layer i - 1. `similarity` is the mean of the
    tokens' cosines; `similarity_rest` leaves out each text's first token; `angular` is the mean of arccos(cosine) / pi over the last token
    of each text (2403.17887).
    """

    similarity: tuple[tuple[float, ...], ...]
    similarity_rest: tuple[tuple[float, ...], ...]
    angular: tuple[tuple[float, ...], ...]
    layers: tuple[LayerProfile, ...]
    norms: NormProfile
    tokens: int
    texts: int


@dataclass(frozen=True, slots=True)
class WeightDistance:
    """The distance of each projection to the same one in the next layer: [projection][layer], depth - 1 values per row.

    `relative_l2` is |W(l+1) - W(l)| / |W(l)| in the Frobenius norm, `cosine` that of the flattened weights.
    """

    projections: tuple[str, ...]
    relative_l2: tuple[tuple[float, ...], ...]
    cosine: tuple[tuple[float, ...], ...]


def profile(captures: Sequence[Capture]) -> Job[Profile]:
    """Return similarity, block influence, angular distance and norms from the raw residual stream of one pass.

    Every mean is over tokens (over texts for the angular distance), equally weighted. If all texts are single tokens, the `_rest` figures
    are NaN.
    """
    yield Progress(Message("Comparing hidden states"), 0.0)
    points = len(captures[0].states)
    every = torch.zeros(points, points, dtype=torch.float64)
    first, angular = torch.zeros_like(every), torch.zeros_like(every)
    norms, is_first, texts = [], [], 0
    for done, record in enumerate(captures):
        states = torch.stack([state[0].float().cpu() for state in record.states])  # [points, tokens, hidden]
        lengths = states.norm(dim=-1)
        unit = states / lengths.clamp_min(1e-30)[..., None]
        opening = record.pack.first_tokens()
        every += token_gram(unit)
        first += token_gram(unit[:, opening])
        last = unit[:, record.pack.last_tokens()].transpose(0, 1)  # [texts, points, hidden]
        angular += (torch.matmul(last, last.mT).double().clamp(-1, 1).acos() / math.pi).sum(0)
        norms.append(lengths)
        is_first.append(opening)
        texts += len(record.pack.spans)
        yield Progress(Message("Comparing hidden states"), (done + 1) / len(captures))
    opening, length = torch.cat(is_first), torch.cat(norms, dim=1)
    tokens, others = len(opening), int((~opening).sum())
    similarity = (every / tokens).clamp(-1, 1)
    rest = ((every - first) / others).clamp(-1, 1) if others else torch.full_like(every, math.nan)
    angular = (angular / texts).fill_diagonal_(0.0)
    return Profile(
        similarity=_matrix(similarity),
        similarity_rest=_matrix(rest),
        angular=_matrix(angular),
        layers=_layers(similarity, rest),
        norms=_norms(length, opening),
        tokens=tokens,
        texts=texts,
    )


def profile_of(value: Mapping[str, Any]) -> Profile:
    """Return a profile from its fields as stored in JSON."""
    matrices = {name: tuple(map(tuple, value[name])) for name in ("similarity", "similarity_rest", "angular")}
    norms = NormProfile(**{name: tuple(norms) for name, norms in value["norms"].items()})
    layers = tuple(LayerProfile(**layer) for layer in value["layers"])
    return Profile(**{**value, **matrices, "norms": norms, "layers": layers})


def token_gram(unit: torch.Tensor) -> torch.Tensor:
    """Return the sum over tokens of the cosines between points: [points, tokens, hidden] to [points, points] float64."""
    return torch.matmul(unit.flatten(1), unit.flatten(1).mT).double()


def block_influence(similarity: torch.Tensor) -> list[float]:
    """Return each layer's block influence from the mean token cosines (ShortGPT, 2403.03853).

    BI_i = 1 - E[cos(h_i, h_{i+1})], where h_i is the raw state that enters layer i. (Hugging Face's last `hidden_states` entry is taken
    after the final norm and would make the last layer look far more important.)
    """
    return (1.0 - similarity.diagonal(offset=1)).tolist()


def _layers(similarity: torch.Tensor, rest: torch.Tensor) -> tuple[LayerProfile, ...]:
    influence, influence_rest = block_influence(similarity), block_influence(rest)
    return tuple(
        LayerProfile(index, influence[index], influence_rest[index], float(similarity[index, index + 1]), float(rest[index, index + 1]))
        for index in range(len(influence))
    )


def _norms(length: torch.Tensor, opening: torch.Tensor) -> NormProfile:
    others = length[:, ~opening] if bool((~opening).any()) else length
    return NormProfile(
        first_token=tuple(length[:, opening].mean(dim=1).tolist()),
        other_median=tuple(others.quantile(0.5, dim=1).tolist()),
        other_max=tuple(others.max(dim=1).values.tolist()),
    )


def _matrix(values: torch.Tensor) -> Matrix:
    return tuple(tuple(row) for row in values.tolist())


@torch.no_grad()
def _compare(model: Model, name: str, layer: int) -> tuple[float, float]:
    layers = blocks_of(model.network)
    a, b = (layers[index].get_parameter(f"{name}.weight").float().flatten() for index in (layer, layer + 1))
    if a.shape != b.shape:
        return math.nan, math.nan
    return float((b - a).norm() / a.norm()), float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def weight_distance(model: Model) -> Job[WeightDistance]:
    """Return the distance of each projection to the next layer's (LaCo's motivation, 2402.11187): see WeightDistance."""
    names = tuple(architecture_of(model.config).projections)
    pairs = model.spec.depth - 1
    measured = Measurements(key_of(model, WEIGHT_DISTANCE))
    for row, name in enumerate(names):
        for layer in range(pairs):
            if measured.get(f"{name} {layer}") is None:
                yield Progress(Message("Comparing {name}", name=name), (row * pairs + layer) / (len(names) * pairs))
                with model.lock:
                    measured.add(f"{name} {layer}", _compare(model, name, layer))
    values = [[measured.get(f"{name} {layer}") or (math.nan, math.nan) for layer in range(pairs)] for name in names]
    relative, cosine = (tuple(tuple(pair[which] for pair in row) for row in values) for which in (0, 1))
    return WeightDistance(names, relative, cosine)


def profile_to_json(profile: Profile, weights: WeightDistance) -> dict[str, Any]:
    """Return a profile as JSON values, with the figures of each layer gathered under "layers"."""
    depth = len(profile.layers)
    layers = [asdict(layer) for layer in profile.layers]
    for index, layer in enumerate(layers):
        layer["angular_distance"] = {str(span): profile.angular[index][index + span] for span in range(1, depth - index + 1)}
    return {
        "similarity": profile.similarity,
        "similarity_rest": profile.similarity_rest,
        "angular": profile.angular,
        "layers": layers,
        "norms": asdict(profile.norms),
        "tokens": profile.tokens,
        "texts": profile.texts,
        "weight_distance": asdict(weights),
    }
