"""A whole run: what it learns, that it never ends worse than it began, and that a stop at any point changes nothing."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from engine.jobs import Progress, drain
from engine.models.families import blocks_of
from engine.models.texts import calibration_of, packs_of
from engine.plans.live import live_network
from engine.recover.distill.student import merged, student_of, trained
from engine.recover.run import recovery
from engine.recover.run.runs import Run
from engine.training.checkpoints import about, write_tensors
from engine.types import Model, Plan, Trim
from tests.families import TEXTS
from tests.recovering import (
    DEEP,
    NARROW,
    STEPS,
    assert_same,
    begun,
    going_on,
    played,
    shortened,
    stopped,
    told,
    weights_in,
    with_width,
    with_zeros,
)

Open = Callable[[str], Model]
NEURONS, HEADS = tuple(range(0, 48, 2)), (0, 2)
PLANS: dict[str, Callable[[], Plan]] = {
    "deep": lambda: DEEP,
    "narrow": lambda: with_width(DEEP, Trim(heads=HEADS, neurons=NEURONS)),
    "few channels": lambda: with_width(DEEP, Trim(neurons=NEURONS, channels=NARROW)),
    "zeros": lambda: with_zeros(DEEP, (32, 48)),
}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"family": "gpt2"},
    "accumulated": {"accumulate": 2, "rows": 2},
    "adapters": {"train": "lora"},
    "bfloat16": {"autocast": "bfloat16"},
    "worked out again": {"recompute": True, "family": "gpt2"},
    "states": {"loss": "kl+cosine"},
}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(monkeypatch.setattr)


@pytest.mark.parametrize(
    ("plan", "train", "loss"),
    [
        *[("deep", "all", loss) for loss in ("kl", "ce", "0.5*kl+0.5*ce", "kl+cosine", "mse", "local")],
        *[("deep", train, "kl") for train in ("lora", "seams")],
        *[(plan, "all", "kl+cosine") for plan in ("narrow", "few channels", "zeros")],
        ("few channels", "lora", "kl+mse"),
        ("zeros", "seams", "kl"),
        ("narrow", "lora", "kl"),
    ],
)
def test_a_run_learns_and_is_never_worse_than_what_it_began_with(able: Open, tmp_path: Path, plan: str, train: str, loss: str) -> None:
    model, chosen = able("llama"), PLANS[plan]()
    run = begun(model, chosen, tmp_path / "run", train=train, loss=loss)
    answer = played(run)
    losses = [line["loss"] for line in run.lines() if "loss" in line]
    assert (answer["state"], len(losses)) == ("learned", STEPS)
    looks = [line["kind"]["ratio"] for line in run.lines() if "kind" in line]
    assert len(looks) == 4  # at the start, after two steps each, at the end
    assert float(about(run.best)["ratio"]) == pytest.approx(min(looks), rel=1e-6)
    assert answer["after"]["kind"]["ratio"] <= answer["before"]["kind"]["ratio"]
    if loss in ("kl", "0.5*kl+0.5*ce", "kl+cosine"):
        assert min(looks[1:]) < looks[0]
    found = weights_in(run)
    before = live_network(model, chosen).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        name: tuple(before[name].shape) for name in found
    }  # stock ones, of the plan's shape
    assert torch.equal(found["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    if plan == "zeros":
        for place in range(chosen.depth):
            name = f"model.layers.{place}.mlp.down_proj.weight"
            assert torch.equal(found[name] == 0, before[name] == 0)
    if train == "seams":
        changed = {int(name.split(".")[2]) for name in found if "layers" in name and not torch.equal(found[name], before[name])}
        assert changed == {1, 2}


def test_what_is_written_is_what_was_judged_and_is_opened_by_transformers(able: Open, tmp_path: Path) -> None:
    model = able("llama")
    run = begun(model, DEEP, tmp_path / "run")
    answer = played(run)
    network: Any = AutoModelForCausalLM.from_pretrained(run.weights)
    scored = {}
    for name, texts in drain(recovery._opened(run)).held.items():
        scored[name] = drain(recovery.likelihoods(network, texts))
        perplexity = torch.tensor(sum(loss for *_, loss in scored[name]) / sum(count for _, count, _ in scored[name])).exp()
        assert answer["after"][name]["perplexity"] == pytest.approx(float(perplexity), rel=1e-5)
    assert len(blocks_of(network)) == DEEP.depth


def test_learning_that_only_harms_ends_with_the_plan_itself(able: Open, tmp_path: Path) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run", rate=3.0)
    answer = played(run)
    assert answer["best"] == 0
    assert answer["after"] == answer["before"]
    before = live_network(able("llama"), DEEP).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_in(run).items())


def test_what_only_a_short_look_took_for_better_is_not_written(able: Open, tmp_path: Path) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run", rate=3.0)
    stopped(run, lambda label: label == "Writing the weights")
    worse = {name: tensor + 0.3 for name, tensor in load_file(run.best).items()}
    write_tensors(run.best, worse, {"step": "4", "ratio": "0.5"})  # as if a look had praised them
    answer = played(run)
    assert (answer["best"], answer["after"]) == (0, answer["before"])


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_merged_adapters_answer_as_the_adapters_did(tiny: Callable[..., Model], family: str) -> None:
    model = tiny(family)
    network = student_of(model, DEEP).eval()
    (pack,) = packs_of(model.tokenizer, model.config, calibration_of(TEXTS))
    with torch.no_grad():
        for parameter in trained(network, DEEP, "lora").values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.05)
        apart, whole = (one(input_ids=pack.ids, position_ids=pack.positions, use_cache=False).logits for one in (network, merged(network)))
    names = {name for name, _ in live_network(model, DEEP).named_parameters()}
    assert {name for name, _ in network.named_parameters()} == names
    assert (apart - whole).abs().max() < 1e-5 * apart.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_a_run_that_was_paused_comes_to_the_same_bits(able: Open, tmp_path: Path, form: str) -> None:
    asked = dict(FORMS[form])
    model = able(asked.pop("family", "llama"))
    whole, parts = (begun(model, DEEP, tmp_path / name, **asked) for name in ("whole", "parts"))
    played(whole)
    for step in (1, 3):
        with_pause(parts, step)
    played(parts)
    assert_same(whole, parts)


def with_pause(run: Run, step: int) -> None:
    """Ask for a pause while a step is told, and see that the run heeds it."""

    def ask(progress: Progress) -> None:
        if progress.label.startswith(f"Training: step {step} "):
            run.ask_to_pause()

    assert drain(recovery.recover({"folder": str(run.folder)}), ask) == {"state": "paused"}
    assert run.state == "paused"
    assert max(line["step"] for line in told(run)) == step


def test_working_activations_out_again_changes_nothing(able: Open, tmp_path: Path) -> None:
    runs = [begun(able("gpt2"), DEEP, tmp_path / str(again), recompute=again) for again in (False, True)]
    saved: list[int] = []
    for run in runs:
        bytes_kept = 0

        def kept(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal bytes_kept
            bytes_kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
            stopped(run, lambda label: label.startswith("Training: step 1 "))
        saved.append(bytes_kept)
        played(run)
    assert saved[1] < 0.5 * saved[0]
    assert_same(*runs)


def test_a_run_that_was_killed_comes_to_the_same_bits(able: Open, tmp_path: Path) -> None:
    """Real processes, killed without a warning while they learn."""
    chance = random.Random(0)
    whole, killed = (begun(able("gpt2"), DEEP, tmp_path / name) for name in ("whole", "killed"))
    played(whole)
    fell = 0
    while fell < 2 and killed.state != "done":
        child = going_on(("finish", killed))
        told_before = len(killed.lines())
        while child.poll() is None and len(killed.lines()) == told_before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        child.kill()
        fell += child.wait() == -signal.SIGKILL
    assert fell
    if killed.state != "done":  # on a busy machine it may end before it is killed again
        assert going_on(("finish", killed)).wait() == 0
    assert killed.state == "done"
    assert_same(whole, killed)
