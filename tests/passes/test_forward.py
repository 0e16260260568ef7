import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.errors import SourceError
from engine.jobs import drain
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.models.texts import Pack, calibration_of, packs_of
from engine.passes.forward import Capture, Trails, capture, resume
from engine.plans.rules import fold, untouched
from engine.plans.surgery import Mixer
from engine.types import Model
from tests.families import TEXTS, tiny_network, tiny_tokenizer


def pack_for(model: Model) -> Pack:
    return packs_of(model.tokenizer, model.config, calibration_of(TEXTS))[0]


@pytest.fixture
def record(tiny: Callable[..., Model]) -> Capture:
    return capture(tiny("llama"), pack_for(tiny("llama")))


def test_a_capture_holds_the_state_that_enters_and_leaves_each_layer(tiny: Callable[..., Model], record: Capture) -> None:
    network = tiny("llama").network
    with torch.no_grad():
        output = network(input_ids=record.pack.ids, position_ids=record.pack.positions, use_cache=False, output_hidden_states=True)
    states = output.hidden_states
    assert len(record.states) == 7
    assert len(record.calls) == 6
    assert all(torch.equal(a, b) for a, b in zip(record.states[:6], states[:6], strict=True))
    assert torch.equal(record.final, states[6])
    assert torch.equal(network.model.norm(record.states[6]), states[6])  # Hugging Face's last state has passed the norm, ours has not


def test_a_capture_leaves_no_hook_behind_even_after_an_error(tiny: Callable[..., Model], record: Capture) -> None:
    model = tiny("llama")

    def hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.network.modules())

    before = hooks()
    with pytest.raises(IndexError):
        capture(model, Pack(torch.tensor([[10**6]]), torch.tensor([[0]]), ((0, 0, 1),)))
    assert hooks() == before


def test_a_model_that_overflows_by_itself_is_refused(tmp_path: Path) -> None:
    network = tiny_network("llama").half()
    with torch.no_grad():
        for name in ("gate_proj", "up_proj", "down_proj"):
            network.model.layers[3].mlp.get_submodule(name).weight.fill_(1e3)
    network.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = drain(open_model(parse_source(str(tmp_path))))
    with pytest.raises(SourceError, match="not finite in float16"):
        capture(model, pack_for(model))


def test_resuming_higher_up_changes_no_bit(tiny: Callable[..., Model], record: Capture) -> None:
    model = tiny("llama")
    blocks, mixer = fold(untouched(6).blocks, 3, 2, "mean"), Mixer(model.network)
    assert torch.equal(resume(model, mixer, record, blocks, 3), resume(model, mixer, record, blocks, 0))


def test_a_plan_without_blocks_leaves_the_embeddings(tiny: Callable[..., Model], record: Capture) -> None:
    model = tiny("llama")
    assert torch.equal(resume(model, Mixer(model.network), record, (), 0), record.states[0])


# --- Trails ---


def test_a_trail_spares_the_blocks_that_two_plans_share(tiny: Callable[..., Model], record: Capture) -> None:
    model, trails = tiny("llama"), Trails(1 << 30)
    mixer, runs = Mixer(model.network), []
    layers = model.network.model.layers
    hooks = [layer.register_forward_hook(lambda layer, *_: runs.append(layer.self_attn.layer_idx)) for layer in layers]
    try:
        blocks = fold(untouched(6).blocks, 1, 2, "mean")
        resume(model, mixer, record, blocks, 1, trails)
        assert runs == [1, 3, 4, 5]
        runs.clear()
        resume(model, mixer, record, fold(blocks, 3, 2, "mean"), 1, trails)
        assert runs == [4]  # the mixed block at 1 and layer 3 are on the trail
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("budget", [0.0, 0.5, 1.0, 2.5, 4.25, 6.5])
@pytest.mark.parametrize("from_below", [False, True])
def test_trails_keep_to_their_budget(budget: float, from_below: bool, tiny: Callable[..., Model]) -> None:
    """The oldest states are given up first; where that leaves a gap in a trail, later ones come in again and must not count twice."""
    model, chance = tiny("llama"), random.Random(0)
    records = [capture(model, packs_of(model.tokenizer, model.config, calibration_of(texts))[0]) for texts in (TEXTS, ("A short text.",))]
    largest = records[0].states[0].nbytes
    trails, mixer = Trails(int(budget * largest)), Mixer(model.network)
    for _ in range(60):
        base, record = chance.randrange(5), chance.choice(records)
        blocks = fold(untouched(6).blocks, base, 2, "mean")
        prefix = 0 if from_below and chance.random() < 0.5 else base
        assert torch.equal(resume(model, mixer, record, blocks, prefix, trails), resume(model, mixer, record, blocks, 0))
        assert trails._bytes == sum(state.nbytes for state in trails._states.values()) <= budget * largest
