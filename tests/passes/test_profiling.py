"""The profile's figures, recomputed token by token in plain Python floats."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import pytest
import torch

from engine.jobs import Progress, drain
from engine.judge.similarity import SimilarityMeter
from engine.models.families import architecture_of, blocks_of
from engine.models.texts import calibration_of
from engine.passes import profiling
from engine.passes.forward import Capture
from engine.passes.profiling import Profile, profile, weight_distance
from engine.types import Model
from tests.families import TEXTS
from tests.naive import token_ids

UNEQUAL = (*TEXTS, "x", "odd")  # from one token to 32; the median below is over an odd number of tokens
MANY = tuple(f"{number} {'the river flows on, ' * 5}." for number in range(7))  # more than one pack
FAMILIES_PROFILED = ("llama", "gemma3_text", "gpt2")


def captures_of(model: Model, texts: tuple[str, ...]) -> tuple[Capture, ...]:
    return SimilarityMeter(model, calibration_of(texts)).captures


def profile_of(model: Model, texts: tuple[str, ...]) -> Profile:
    return drain(profile(captures_of(model, texts)))


@torch.no_grad()
def raw_states(model: Model, texts: tuple[str, ...]) -> list[list[list[torch.Tensor]]]:
    """Return states[text][point][token] in float64: what each layer was given and what the last one gave, seen by hooks."""
    layers, points = blocks_of(model.network), []
    hooks = [layer.register_forward_pre_hook(lambda _m, args: points.append(args[0])) for layer in layers]
    hooks.append(layers[-1].register_forward_hook(lambda _m, _a, out: points.append(out[0] if isinstance(out, tuple) else out)))
    sentences = token_ids(model.tokenizer, texts)
    for ids in sentences:
        model.network(ids)
    for hook in hooks:
        hook.remove()
    count = len(layers) + 1
    return [[list(point[0].double()) for point in points[count * text : count * (text + 1)]] for text in range(len(sentences))]


def naive_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    dot, aa, bb = ((x * y).sum().item() for x, y in ((a, b), (a, a), (b, b)))
    return max(-1.0, min(1.0, dot / math.sqrt(aa * bb)))


@pytest.mark.parametrize("texts", [UNEQUAL, MANY], ids=["unequal", "packs"])
@pytest.mark.parametrize("family", FAMILIES_PROFILED)
def test_similarity_and_block_influence_are_means_over_tokens(family: str, texts: tuple[str, ...], tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    found, states = profile_of(model, texts), raw_states(model, texts)
    for matrix, skip in ((found.similarity, 0), (found.similarity_rest, 1)):
        for i, j in ((0, 0), (0, 1), (2, 3), (1, 5), (5, 6), (6, 5), (6, 6)):
            tokens = [naive_cosine(a, b) for text in states for a, b in zip(text[i][skip:], text[j][skip:], strict=True)]
            assert matrix[i][j] == pytest.approx(fmean(tokens), abs=1e-5)
    for index, layer in enumerate(found.layers):
        cosines = [[naive_cosine(a, b) for a, b in zip(text[index], text[index + 1], strict=True)] for text in states]
        every, rest = fmean(value for text in cosines for value in text), fmean(value for text in cosines for value in text[1:])
        assert layer.index == index
        assert (layer.block_influence, layer.cosine_to_next) == pytest.approx((1 - every, every), abs=1e-5)
        assert (layer.block_influence_rest, layer.cosine_to_next_rest) == pytest.approx((1 - rest, rest), abs=1e-5)
    assert (found.texts, found.tokens) == (len(texts), sum(len(text[0]) for text in states))


@pytest.mark.parametrize("family", FAMILIES_PROFILED)
def test_angular_distance_is_of_the_last_tokens(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    found, states = profile_of(model, UNEQUAL).angular, raw_states(model, UNEQUAL)
    for i in range(7):
        for j in range(7):
            expected = fmean(math.acos(naive_cosine(text[i][-1], text[j][-1])) / math.pi for text in states) if i != j else 0.0
            assert found[i][j] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES_PROFILED)
def test_norms_keep_first_tokens_apart(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    found, states = profile_of(model, UNEQUAL).norms, raw_states(model, UNEQUAL)
    for point in range(7):
        others = [token.norm().item() for text in states for token in text[point][1:]]
        assert len(others) % 2 == 1
        assert found.first_token[point] == pytest.approx(fmean(text[point][0].norm().item() for text in states), rel=1e-5)
        assert found.other_median[point] == pytest.approx(median(others), rel=1e-5)
        assert found.other_max[point] == pytest.approx(max(others), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES_PROFILED)
def test_the_last_state_is_taken_before_the_final_norm(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    (ids,) = token_ids(model.tokenizer, TEXTS[:1])
    with torch.no_grad():
        after_norm = model.network(ids, output_hidden_states=True).hidden_states[-1][0]
    assert profile_of(model, TEXTS[:1]).norms.other_max[-1] != pytest.approx(after_norm[1:].norm(dim=-1).max().item(), rel=1e-2)


def test_where_every_text_is_one_token_the_rest_is_nan(tiny: Callable[..., Model]) -> None:
    found = profile_of(tiny("llama"), ("a", "b"))
    assert all(math.isnan(value) for row in found.similarity_rest for value in row)
    assert all(math.isnan(layer.block_influence_rest) for layer in found.layers)
    assert not any(math.isnan(value) for row in (*found.similarity, *found.angular) for value in row)


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
def test_weight_distance_is_that_of_neighbouring_projections(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    found, layers = drain(weight_distance(model)), blocks_of(model.network)
    assert found.projections == tuple(architecture_of(model.config).projections)
    for name, distances, cosines in zip(found.projections, found.relative_l2, found.cosine, strict=True):
        weights = [layer.get_submodule(name).weight.double().flatten() for layer in layers]
        pairs = list(pairwise(weights))
        assert distances == pytest.approx([math.sqrt(((b - a) ** 2).sum() / (a**2).sum()) for a, b in pairs], rel=1e-5)
        assert cosines == pytest.approx([naive_cosine(a, b) for a, b in pairs], abs=1e-6)


def test_weight_distance_is_remembered_of_this_model_only(
    tiny: Callable[..., Model], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = weight_distance(tiny("llama"))
    for _ in range(10):
        next(interrupted)
    interrupted.close()
    told: list[Progress] = []
    first = drain(weight_distance(tiny("llama")), told.append)
    assert len(told) == 7 * 5 - 9  # seven projections of five pairs of layers, nine of which were compared before
    other = drain(weight_distance(tiny("llama", seed=1)))
    monkeypatch.setattr(profiling, "_compare", None)
    assert drain(weight_distance(tiny("llama"))) == first != other
    assert drain(weight_distance(tiny("llama", seed=1))) == other
