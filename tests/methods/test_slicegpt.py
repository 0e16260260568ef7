"""What a stream's principal directions hold, against a singular value decomposition of the states that transformers returns."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from engine.jobs import drain
from engine.judge.practice import practice_packs
from engine.methods.analysis.slicegpt import directions
from engine.models.texts import Pack, calibration_of
from engine.plans.rules import untouched
from engine.types import Model
from tests.families import FAMILIES, TEXTS

LONGER = calibration_of(tuple(f"{text} {number}" for number in range(12) for text in TEXTS))


def streams(network: Any, packs: tuple[Pack, ...]) -> list[np.ndarray]:
    """What enters each layer over all texts: [tokens, hidden]."""
    found = []
    with torch.no_grad():
        for pack in packs:
            for _, start, stop in pack.spans:
                found.append(network(input_ids=pack.ids[:, start:stop], output_hidden_states=True, use_cache=False).hidden_states)
    return [torch.cat([states[layer][0] for states in found]).double().numpy() for layer in range(6)]


@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_those_of_a_principal_component_analysis(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    packs = practice_packs(model, LONGER, 600)
    found = drain(directions(model, untouched(6), packs))
    assert len(found.principal) == len(found.channels) == 6
    for layer, x in enumerate(streams(model.network, packs)):
        if family == "gpt2":  # LayerNorm
            x = x - x.mean(1, keepdims=True)
        epsilon = model.config.layer_norm_epsilon if family == "gpt2" else model.config.rms_norm_eps
        x = x / np.sqrt((x**2).mean(1, keepdims=True) + epsilon)
        _, singular, basis = np.linalg.svd(x, full_matrices=False)
        assert found.principal[layer] == pytest.approx(singular**2 / (singular**2).sum(), rel=1e-3, abs=1e-7)
        assert found.channels[layer] == pytest.approx((x**2).sum(0) / (x**2).sum(), rel=1e-3, abs=1e-7)
        for k in (4, 20):  # what really stays of the stream
            stays = np.linalg.norm(x @ basis[:k].T @ basis[:k]) ** 2 / np.linalg.norm(x) ** 2
            assert sum(found.principal[layer][:k]) == pytest.approx(stays, rel=1e-3)
            assert sum(found.principal[layer][:k]) >= sum(sorted(found.channels[layer])[-k:])  # no channels hold more
