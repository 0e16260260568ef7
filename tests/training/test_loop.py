"""The training loop, its learning rate and its checkpoints: a stopped and resumed run is bit-identical to one that was not stopped."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from engine.errors import TrainingError
from engine.training.checkpoints import checkpoints, latest, save_checkpoint, write_tensors
from engine.training.loop import ExtraParameters, Learner
from engine.training.recipe import Recipe, rate_at

RECIPE = Recipe(steps=8, rate=0.01, accumulate=2, seed=3)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.dropout, self.second = torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.dropout(self.first(x).relu()))


def losses(network: Net, step: int) -> Iterator[Callable[[], torch.Tensor]]:
    for part in range(RECIPE.accumulate):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(100 * step + part))
        yield lambda x=x: network(x).square().mean()


def run(network: Net, learner: Learner, until: int) -> list[float]:
    return [learner.learn(losses(network, step)).loss for step in range(learner.step, until)]


def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = Net()
    told = run(whole, Learner(dict(whole.named_parameters()), RECIPE), 8)
    for stop in (1, 5):
        network = Net()
        learner = Learner(dict(network.named_parameters()), RECIPE)
        run(network, learner, stop)
        save_checkpoint(tmp_path, stop, learner.state())
        other = Net()
        torch.rand(7)  # somebody else draws in between
        again = Learner(dict(other.named_parameters()), RECIPE)
        again.restore(*(latest(tmp_path) or (0, {})))
        assert run(other, again, 8) == told[stop:]
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters(), strict=True))


def test_a_step_is_torchs_adamw_on_the_mean_gradient_clipped() -> None:
    ours, theirs = Net(), Net()
    learner, optimizer = (
        Learner(dict(ours.named_parameters()), RECIPE),
        torch.optim.AdamW(theirs.parameters(), betas=(0.9, 0.95), weight_decay=0),
    )
    for step in range(3):
        learner.learn(losses(ours, step))
        torch.manual_seed((3 << 32) + step)
        optimizer.zero_grad()
        sum(loss() for loss in losses(theirs, step)).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = rate_at(RECIPE, step)
        optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_groups_learn_at_rates_of_their_own_upwards_too_and_only_the_weights_are_clipped() -> None:
    recipe = Recipe(steps=10, rate=0.01, clip=1e-3, decay=0.5, warmup=0.4, floor=0.1)
    weight, mask, multiplier = (torch.nn.Parameter(torch.full((3,), 2.0)) for _ in range(3))
    extra = [ExtraParameters({"mask": mask}, 1.0), ExtraParameters({"multiplier": multiplier}, 0.5, upwards=True)]
    learner = Learner({"weight": weight}, recipe, extra=extra)
    told = learner.learn([lambda: (5 * weight + 7 * mask + 3 * multiplier).sum()])
    # AdamW's first step is as long as the rate, here a fourth of the highest; 0.5 * 0.0025 of the weight decays beside it
    torch.testing.assert_close(weight.detach(), torch.full((3,), 2.0 - 2.0 * 0.5 * 0.0025 - 0.0025), rtol=0, atol=1e-6)
    torch.testing.assert_close(mask.detach(), torch.full((3,), 2.0 - 0.25), rtol=0, atol=1e-6)
    torch.testing.assert_close(multiplier.detach(), torch.full((3,), 2.0 + 0.125), rtol=0, atol=1e-6)
    assert told.gradient == pytest.approx(5 * math.sqrt(3))  # of the weights alone
    assert weight.grad is not None
    assert weight.grad.norm().item() == pytest.approx(1e-3, rel=1e-2)
    assert mask.grad is not None
    assert mask.grad.tolist() == [7, 7, 7]
    assert set(learner.state()) == {f"{part}.{name}" for part in ("weight", "first", "second") for name in ("weight", "mask", "multiplier")}
    assert list(learner.weights()) == ["weight"]


def test_zeros_stay_zero() -> None:
    network = Net()
    zero = torch.rand(8, 4) < 0.5
    with torch.no_grad():
        network.first.weight.masked_fill_(zero, 0.0)
    run(network, Learner(dict(network.named_parameters()), RECIPE, {"first.weight": zero}), 4)
    assert torch.equal(network.first.weight == 0, zero)


def test_a_loss_that_is_no_number_stops_and_changes_nothing() -> None:
    network = Net()
    learner = Learner(dict(network.named_parameters()), RECIPE)
    run(network, learner, 2)
    before = {name: tensor.clone() for name, tensor in learner.state().items()}
    with pytest.raises(TrainingError, match="step 3 has a loss of nan"):
        learner.learn([lambda: network(torch.full((1, 4), math.nan)).sum()])
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state().items())


def test_the_rate_rises_over_a_twentieth_and_falls_to_a_twentieth() -> None:
    recipe = Recipe(steps=100, rate=1.0)
    rates = [rate_at(recipe, step) for step in range(101)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert rates[5 + 95 // 2] == pytest.approx(0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * 47 / 95)))
    assert rates[-1] == pytest.approx(0.05)
    assert Recipe(steps=1, rate=1.0).rate == rate_at(Recipe(steps=1, rate=1.0), 0)


def test_the_last_checkpoint_that_is_whole_counts_and_few_are_kept(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    for step in range(4):
        save_checkpoint(tmp_path, step, {"a": torch.tensor([float(step)])})
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002.safetensors", "step-00000003.safetensors"]
    checkpoints(tmp_path)[-1].write_bytes(b"cut off")
    step, state = latest(tmp_path) or (0, {})
    assert (step, state["a"].item()) == (2, 2.0)


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.safetensors"
    write_tensors(path, {"a": torch.ones(3)}, {})
    whole = path.read_bytes()

    def full(_tensors: object, file: Path, _about: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.training.checkpoints.save_file", full)
    with pytest.raises(TrainingError, match="No space left on device"):
        write_tensors(path, {"a": torch.zeros(3)}, {})
    assert path.read_bytes() == whole
    assert [one.name for one in tmp_path.iterdir()] == ["kept.safetensors"]


def test_what_a_killed_process_had_begun_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".step-00000001.safetensors").write_bytes(b"half")
    (tmp_path / ".step-00000002").mkdir()
    save_checkpoint(tmp_path, 3, {"a": torch.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003.safetensors"]
