import math
from collections.abc import Callable

import pytest
import torch

from engine.models.texts import calibration_of, packs_of
from engine.passes import logits
from engine.passes.forward import Capture, capture
from engine.passes.logits import SourceLogs, by_rows, divergence
from engine.types import Model
from tests.families import TEXTS, VOCABULARY

TEXT_BYTES = 24 * VOCABULARY * 4  # of the log-probabilities of the 24 tokens below


@pytest.fixture
def record(tiny: Callable[..., Model]) -> Capture:
    model = tiny("llama")
    return capture(model, packs_of(model.tokenizer, model.config, calibration_of(TEXTS))[0])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each pass through the head had."""
    counts: list[int] = []
    head = logits.logits_of
    monkeypatch.setattr(logits, "logits_of", lambda model, part: counts.append(len(part)) or head(model, part))
    return counts


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens at a time, so that short texts have several parts, the last of them not whole."""
    monkeypatch.setattr(logits, "CHUNK", 10)
    monkeypatch.setattr(logits, "ROWS", 5)


def test_rows_are_the_networks_own_log_probabilities(small: None, tiny: Callable[..., Model], record: Capture) -> None:
    _, start, stop = record.pack.spans[0]
    with torch.no_grad():
        whole = tiny("llama").network(record.pack.ids[:, start:stop]).logits[0].double().log_softmax(-1)
    rows = list(by_rows(tiny("llama"), record.final[0, start:stop]))
    assert max(map(len, rows)) == 5
    assert torch.allclose(torch.cat(rows).double(), whole, atol=1e-5)


def test_the_divergence_of_two_coins_is_worked_out_by_hand() -> None:
    fair, biased = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
    assert float(divergence(fair, biased)) == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    assert float(divergence(biased, fair)) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert float(divergence(fair, fair)) == 0


@pytest.mark.parametrize(("keep", "source_runs"), [(0, 24), (TEXT_BYTES // 2, 14), (TEXT_BYTES, 0)])
def test_what_is_kept_is_not_run_again_and_has_the_same_bits(
    keep: int, source_runs: int, small: None, runs: list[int], tiny: Callable[..., Model], record: Capture
) -> None:
    """Of 24 tokens in parts of 10, 10 and 4, half the memory holds the first, which leaves no room for the second."""
    model, source = tiny("llama"), record.final[0, :24]
    logs = SourceLogs(model, keep)
    plain = list(zip(by_rows(model, source), by_rows(model, 2 * source), strict=True))
    for _ in range(2):
        runs.clear()
        found = list(logs.paired("a text", source, 2 * source))
        assert all(torch.equal(a, b) for pair, other in zip(found, plain, strict=True) for a, b in zip(pair, other, strict=True))
    assert sum(runs) == 24 + source_runs


def test_other_tokens_are_another_key(tiny: Callable[..., Model], record: Capture) -> None:
    logs, states = SourceLogs(tiny("llama")), record.final[0]
    first, other = (next(iter(logs.paired(key, states[part], states[part])))[0] for key, part in ((0, slice(0, 4)), (1, slice(4, 8))))
    assert not torch.equal(first, other)
    assert torch.equal(next(iter(logs.paired(1, states[4:8], states[4:8])))[0], other)
