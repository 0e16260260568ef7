"""Masks against values computed by hand, and a Lagrangian with a known solution."""

import math

import pytest
import torch

from engine.methods.learned.hard_concrete import BOUNDS, chance, drawn, soft, stretched, topmost
from engine.methods.learned.masks import MaskKind, Masks, lagrangian
from engine.training.loop import ExtraParameters, Learner
from engine.training.recipe import Recipe


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("a", "u", "z"),
    [
        (0.0, 0.5, 0.5),  # sigmoid(0) * 1.2 - 0.1
        (1.0, 0.5, 0.8810894),  # sigmoid(1 / (2/3)) = 0.8175745
        (1.0, 0.2, 0.3308724),  # log(0.2 / 0.8) = -1.3862944, sigmoid(-0.3862944 / (2/3)) = 0.3590603
        (5.0, 0.5, 1.0),  # sigmoid(7.5) * 1.2 - 0.1 = 1.0993
        (-5.0, 0.5, 0.0),
    ],
)
def test_a_mask_is_a_stretched_concrete_variable(a: float, u: float, z: float) -> None:
    assert float(stretched(torch.tensor(a), torch.tensor(u))) == pytest.approx(z, abs=2e-6)


@pytest.mark.parametrize("a", [-3.0, -0.5, 0.0, 1.0, 4.0])
def test_chance_is_how_often_a_mask_is_drawn_above_0(a: float) -> None:
    torch.manual_seed(0)
    parameter = torch.full((200_000,), a)
    expected = sigmoid(a - 2 / 3 * math.log(0.1 / 1.1))
    assert chance(parameter)[0].item() == pytest.approx(expected, abs=1e-6)
    assert (drawn(parameter) > 0).float().mean().item() == pytest.approx(expected, abs=4e-3)


def test_the_topmost_of_each_row_stay_softly() -> None:
    a = torch.tensor([[0.0, 2.0, -1.0, 2.0], [3.0, 3.0, 3.0, -3.0]])
    found = topmost(a, torch.tensor([1.0, 2.0]))
    kept = [sigmoid(2.0 / (2 / 3) * 0.8), sigmoid(3.0 / (2 / 3) * 0.8)]
    torch.testing.assert_close(found, torch.tensor([[0.0, kept[0], 0.0, 0.0], [kept[1], kept[1], 0.0, 0.0]]))


def test_the_lagrangian_is_worked_out_row_by_row() -> None:
    gone = torch.tensor([0.1, 0.5])
    # 2 (0.1 - 0.25) + 3 (0.1 - 0.25)^2 = -0.2325 and 2 * 0.25 + 3 * 0.0625 = 0.6875
    assert lagrangian(gone, 0.25, torch.tensor([2.0, 3.0])).item() == pytest.approx((-0.2325 + 0.6875) / 2)


def test_masks_begin_nearly_whole_and_multipliers_at_nothing() -> None:
    masks = Masks([MaskKind("neurons", 3, 400, 100)], seed=0)
    a = masks.a["neurons"].detach()
    assert a.mean().item() == pytest.approx(5, abs=2e-3)
    assert a.std().item() == pytest.approx(0.01, abs=1e-3)
    assert masks.multipliers["neurons"].tolist() == [0, 0]
    assert masks.lagrangian(1.0).item() == 0  # nothing pulls yet
    masks.drawn()
    assert masks.a["neurons"].max().item() == pytest.approx(BOUNDS[1])  # log 100


def toy(worth: torch.Tensor, kept: int, steps: int, clip: float = 1.0) -> tuple[Masks, torch.nn.Parameter]:
    """Masks of which each is worth something, whichever way: the answer is the dearest `kept` of each row."""
    masks = Masks([MaskKind("parts", *worth.shape, kept)], seed=0)
    weight = torch.nn.Parameter(torch.ones(()))
    recipe = Recipe(steps, 1e-3, clip=clip)
    beside = [
        ExtraParameters({"a": masks.a["parts"]}, 0.1),
        ExtraParameters({"multipliers": masks.multipliers["parts"]}, 0.1, upwards=True),
    ]
    learner = Learner({"weight": weight}, recipe, extra=beside)
    for step in range(steps):
        learner.learn([
            lambda: -(masks.drawn()["parts"] * worth).sum() * weight,
            lambda step=step: masks.lagrangian(min(1.0, step / (0.2 * steps))),
        ])  # fmt: skip
    return masks, weight


def test_the_lagrangian_leads_to_the_number_wanted_and_to_the_parts_that_are_worth_most() -> None:
    worth = torch.tensor([[0.01, 0.9, 0.02, 0.8, 0.03, 0.7], [0.8, 0.02, 0.01, 0.03, 0.9, 0.7]])
    masks, _ = toy(worth, kept=3, steps=600)
    told = masks.summary(1.0)["parts"]
    assert told["wanted"] == 3
    assert told["expected"] == pytest.approx(3, abs=0.25)
    found = masks.exact()["parts"]
    assert (found > 0).tolist() == (worth > 0.5).tolist()
    assert masks.multipliers["parts"].abs().min().item() > 0


def test_exact_masks_keep_as_many_of_each_row_wherever_learning_stopped() -> None:
    masks = Masks([MaskKind("neurons", 5, 48, 7), MaskKind("layers", 1, 6, 4), MaskKind("heads", 10, 2, 1, 5)], seed=1)
    for a in masks.a.values():
        torch.nn.init.normal_(a)
    for name, kept in (("neurons", 7), ("layers", 4), ("heads", 1)):
        found, a = masks.exact()[name], masks.a[name].detach()
        assert (found > 0).sum(1).tolist() == [kept] * len(found)
        assert all(set(row.nonzero().flatten().tolist()) == set(one.topk(kept).indices.tolist()) for row, one in zip(found, a, strict=True))
    expected = masks.expected()["neurons"]
    assert (expected > 0).sum(1).tolist() == chance(masks.a["neurons"]).sum(1).round().int().tolist()


def test_undecided_masks_are_counted() -> None:
    masks = Masks([MaskKind("heads", 2, 3, 2, 4)], seed=0)
    with torch.no_grad():
        masks.a["heads"].copy_(torch.tensor([[4.6, -4.6, 0.0], [4.6, 2.0, -4.6]]))
    told = masks.summary(0.5)["heads"]
    assert (told["undecided"], told["masks"]) == (2, 6)
    assert soft(torch.tensor(4.6)).item() > 0.99
    assert told["wanted"] == pytest.approx(10)  # of 12 heads a layer half of the way to 8
    assert told["expected"] == pytest.approx(chance(masks.a["heads"].detach()).sum().item() * 2)
