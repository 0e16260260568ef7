import random
from collections.abc import Callable

import pytest
import torch

from engine.models.texts import calibration_of, packs_of
from engine.passes.forward import Capture, capture, resume
from engine.passes.trails import FoldTrails
from engine.plans.rules import fold, untouched
from engine.plans.surgery import Mixer
from engine.types import Block, Model
from tests.families import TEXTS


@pytest.fixture(scope="module")
def model(tiny: Callable[..., Model]) -> Model:
    return tiny("llama", num_hidden_layers=12)


@pytest.fixture(scope="module")
def records(model: Model) -> list[Capture]:
    return [capture(model, packs_of(model.tokenizer, model.config, calibration_of(texts))[0]) for texts in (TEXTS, ("A short text.",))]


def runs_of(model: Model, record: Capture, candidates: list[tuple[tuple[Block, ...], int]], trails: FoldTrails) -> int:
    """Run candidates, each held against a run of its own, and return how many layers the trails left to be run."""
    runs = [0]
    mixer = Mixer(model.network)
    for blocks, pointer in candidates:
        alone = resume(model, mixer, record, blocks, pointer)

        def counted(*_: object) -> None:
            runs[0] += 1

        hooks = [layer.register_forward_hook(counted) for layer in model.network.model.layers]
        try:
            assert torch.equal(resume(model, mixer, record, blocks, pointer, trails), alone)
        finally:
            for hook in hooks:
                hook.remove()
    return runs[0]


def passes(accepted: list[set[int]]) -> list[tuple[tuple[Block, ...], int]]:
    """The candidates of Algorithm 1 (C = 2, I = 1) on 12 layers, run again and again with these pointers accepted."""
    found = []
    for pointers in accepted:
        blocks = untouched(12).blocks
        for pointer in range(10, 0, -1):
            candidate = fold(blocks, pointer, 2, "reference")
            found.append((candidate, pointer))
            blocks = candidate if pointer in pointers else blocks
    return found


def test_a_candidate_runs_only_from_where_it_parts_from_those_before(model: Model, records: list[Capture]) -> None:
    first = passes([set()])
    everything = sum(len(blocks) - pointer for blocks, pointer in first)
    trails = FoldTrails(1 << 30)
    assert runs_of(model, records[0], first, trails) == everything
    assert runs_of(model, records[0], first, trails) == 0
    again = passes([{8}])
    new = [(blocks, pointer) for blocks, pointer in again if pointer < 8]
    assert runs_of(model, records[0], new, trails) == 3 * len(new)  # the fold of 8 and 9, then 10 and 11


def test_what_is_held_is_sparser_where_there_is_less_room(model: Model, records: list[Capture]) -> None:
    chance, size = random.Random(0), records[0].states[0].nbytes
    candidates = passes([{pointer for pointer in range(1, 11) if chance.random() < share} for share in (0, 0.2, 0.3)])
    runs = [runs_of(model, records[0], candidates, FoldTrails(int(room * size))) for room in (1000, 20, 0)]
    assert runs == sorted(runs)
    assert runs[0] < runs[1] < runs[-1]


@pytest.mark.parametrize("room", [0.0, 0.5, 1.0, 4.25, 20.0, 200.0])
def test_trails_keep_to_their_budget_and_change_no_bit(room: float, model: Model, records: list[Capture]) -> None:
    chance, trails = random.Random(1), FoldTrails(int(room * records[0].states[0].nbytes))
    candidates = passes([{pointer for pointer in range(1, 11) if chance.random() < 0.3} for _ in range(4)])
    for one in candidates:
        runs_of(model, chance.choice(records), [one], trails)
        states = {id(state): state for paths in trails._paths.values() for path in paths for state in path.states.values()}
        assert trails._bytes == sum(state.nbytes for state in states.values()) <= room * records[0].states[0].nbytes
        assert sum(trails._held.values()) == sum(len(path.states) for paths in trails._paths.values() for path in paths)
