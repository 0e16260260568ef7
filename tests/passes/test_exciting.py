"""The tokens that excite neurons, against every activation of a model that runs one text at a time."""

from collections.abc import Callable

import pytest
import torch

from engine.jobs import drain
from engine.judge.practice import practice_packs
from engine.models.families import architecture_of, blocks_of
from engine.models.texts import Pack, calibration_of, characters_at
from engine.passes.exciting import TOKENS, exciting
from engine.types import Model
from tests.families import TEXTS

LONGER = calibration_of(tuple(f"{text} {number}" for number in range(12) for text in TEXTS))


def activations(model: Model, packs: tuple[Pack, ...], layer: int) -> list[tuple[list[int], torch.Tensor]]:
    """Each text's token ids, and what the MLP's consumer reads over it: [tokens, neurons]."""
    found: list[torch.Tensor] = []
    consumer = blocks_of(model.network)[layer].get_submodule(architecture_of(model.config).reader_of("neuron"))
    hook = consumer.register_forward_pre_hook(lambda _m, args: found.append(args[0][0]))
    texts = [pack.ids[:, start:stop] for pack in packs for _, start, stop in pack.spans]
    with torch.no_grad():
        for ids in texts:
            model.network(input_ids=ids, use_cache=False)
    hook.remove()
    return [(ids[0].tolist(), x) for ids, x in zip(texts, found, strict=True)]


@pytest.mark.parametrize(("family", "layer"), [("llama", 0), ("qwen3", 3), ("gemma3_text", 5), ("phi3", 2), ("gpt2", 4)])
def test_they_are_the_largest_of_all(family: str, layer: int, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    packs = practice_packs(model, LONGER, 900)
    assert len(packs) > 1
    peaks, texts = drain(exciting(model, packs, layer)), activations(model, packs, layer)
    for neuron in (0, 17, texts[0][1].shape[1] - 1):
        every = [(float(x[place, neuron]), ids, place) for ids, x in texts for place in range(1, len(ids))]  # no text's first
        every.sort(key=lambda one: -abs(one[0]))
        found = peaks.of(neuron)
        assert len(found) == TOKENS
        assert [one.value for one in found] == pytest.approx([value for value, *_ in every[:TOKENS]], rel=1e-3, abs=1e-5)
        for one, (value, ids, place) in zip(found, every, strict=False):
            if sum(abs(abs(value) - abs(other)) < 1e-4 for other, *_ in every) == 1:  # no tie that rounding could turn
                assert one.token == model.tokenizer.decode([ids[place]])
                assert one.before == model.tokenizer.decode(ids[max(0, place - 8) : place])
                assert one.after == model.tokenizer.decode(ids[place + 1 : place + 5])


def test_few_tokens_are_all_of_them(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    found = drain(exciting(model, practice_packs(model, calibration_of(("Rivers.",)), 4), 1)).of(3)
    assert sorted(one.token for one in found) == sorted("iver")
    assert sorted(map(len, (one.before + one.token + one.after for one in found))) == [5] * 4


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_character_of_several_tokens_is_shown_whole_with_what_stands_around_it(family: str, tiny: Callable[..., Model]) -> None:
    text = "강이 바다로 흐른다."
    model = tiny(family)  # whose tokens are single bytes: Hangul takes three
    found = drain(exciting(model, practice_packs(model, calibration_of((text,)), 26), 2)).of(5)
    assert len(found) == TOKENS
    for one in found:
        assert len(one.token) == 1
        assert one.before + one.token + one.after in text


def test_what_no_neighbour_makes_whole_stands_alone() -> None:
    ids = torch.tensor([0xEA, 0xB0, 0x95, 0x80, 0x41, 0xC3])  # 강, a byte that follows nothing, A, a beginning without an end

    def decode(some: torch.Tensor) -> str:
        return bytes(some.tolist()).decode(errors="replace")

    assert [characters_at(decode, ids, place) for place in range(6)] == [(0, 3), (0, 3), (0, 3), (3, 4), (4, 5), (5, 6)]
