import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.corpus.building import corpus
from engine.corpus.domains import Mixture, draw, mixed_batch, mixture, reweighted
from engine.corpus.rows import Rows
from engine.errors import SettingsError, TextError
from engine.jobs import drain
from engine.types import Model

HALVES = Mixture(("a", "b"), (0.5, 0.5), (0, 0))
SHARES = {"code": 10, "news": 20, "web": 30}


def wide(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.fixture
def rows(tiny: Callable[..., Model], tmp_path: Path) -> Rows:
    for name, count in SHARES.items():
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "a.txt").write_text("\n\n".join(f"{name} {number:03} " * 4 for number in range(count)))
    return drain(corpus(tiny("llama"), str(tmp_path / "in"), 16, tmp_path / "kept"))


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        # 0.2 e^0.5, 0.3 e^-0.3, 0.5 e^0 = 0.329744, 0.222245, 0.5 over 1.051990, smoothed by 0.9999 and 0.0001 / 3
        ("as coded", (0.313450, 0.211275, 0.475275)),
        # 0.2 e^0.5, 0.3, 0.5 = 0.329744, 0.3, 0.5 over 1.129744
        ("as printed", (0.291879, 0.265554, 0.442567)),
    ],
)
def test_a_domain_above_its_reference_gets_more(update: str, expected: tuple[float, ...]) -> None:
    before = Mixture(("a", "b", "c"), (0.2, 0.3, 0.5), (4, 5, 6))
    after = reweighted(before, (2.5, 1.7, 3.0), (2.0, 2.0, 3.0), update)  # type: ignore[arg-type]
    assert after.proportions == pytest.approx(expected, abs=1e-6)
    assert sum(after.proportions) == pytest.approx(1, abs=1e-15)
    assert (after.domains, after.read) == (before.domains, before.read)


@pytest.mark.parametrize("update", ["as coded", "as printed"])
def test_an_update_is_the_published_line_of_torch(update: str) -> None:
    """weights = exp(log w + eta * diff), normalised, (1 - c) * weights + c / n: the callback of LLM-Shearing."""
    before = Mixture(tuple("abcd"), (0.67, 0.045, 0.15, 0.135), (0,) * 4)
    losses, references = wide(2.1, 0.8, 1.9, 3.0), wide(1.9643, 0.7459, 2.1393, 1.6117)
    diff = losses - references
    weights = torch.log(wide(*before.proportions)) + (diff if update == "as coded" else diff.clamp(min=0))
    expected = (1 - 1e-4) * torch.softmax(weights, -1) + 1e-4 / 4
    found = reweighted(before, losses.tolist(), references.tolist(), update)  # type: ignore[arg-type]
    assert found.proportions == pytest.approx(expected.tolist(), rel=1e-12)


def test_a_domain_that_came_to_nothing_still_gets_a_little_and_large_losses_do_not_overflow() -> None:
    after = reweighted(Mixture(("a", "b"), (1.0, 0.0), (0, 0)), (5000.0, 1.0), (1.0, 1.0))
    assert after.proportions == pytest.approx((1 - 5e-5, 5e-5))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_told(loss: float) -> None:
    with pytest.raises(TextError, match="the domain 'b' has too little held-out text"):
        reweighted(HALVES, (1.0, loss), (1.0, 1.0))


def test_what_is_drawn_is_a_function_of_seed_and_row_and_comes_to_the_proportions() -> None:
    mix = Mixture(("a", "b", "c"), (0.2, 0.3, 0.5), (0, 0, 0))
    drawn = [place for step in range(500) for place in draw(mix, step, 8, 5)]
    assert drawn[80:96] == list(draw(mix, 5, 16, 5))  # the same rows in batches of another size
    assert drawn[:8] != list(draw(mix, 0, 8, 6))
    counts = Counter(drawn)
    for place, share in enumerate(mix.proportions):
        assert counts[place] / 4000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 4000))
    assert set(draw(Mixture(("a", "b"), (1.0, 0.0), (0, 0)), 0, 100, 0)) == {0}


def test_a_run_goes_on_exactly_from_its_state(rows: Rows) -> None:
    """Each domain gives its own rows in its own order, none twice before all were read; the state comes back from JSON."""
    mix = mixture(rows, (1, 1, 2))
    assert mix.proportions == (0.25, 0.25, 0.5)
    batches, states = [], [mix]
    for step in range(12):
        if step == 6:
            mix = reweighted(mix, (2.0, 1.0, 1.0), (1.0, 1.0, 1.0))
        batch, mix = mixed_batch(rows, mix, step, 3, 1)
        batches.append(batch)
        states.append(Mixture.from_json(json.loads(json.dumps(mix.to_json()))))
        assert states[-1] == mix
    again, _ = mixed_batch(rows, states[9], 9, 3, 1)
    assert torch.equal(again.ids, batches[9].ids)
    assert torch.equal(again.positions, batches[9].positions)
    assert sum(mix.read) == 36
    read, seen = [0, 0, 0], iter(row for batch in batches for row in batch.ids.tolist())
    for step in range(12):
        for place in draw(states[step] if step != 6 else reweighted(states[6], (2.0, 1.0, 1.0), (1.0, 1.0, 1.0)), step, 3, 1):
            assert next(seen) == rows.of(rows.domains[place]).row(read[place], 1)[0].tolist()
            read[place] += 1
    assert tuple(read) == mix.read


def test_left_out_proportions_are_those_of_the_rows(rows: Rows) -> None:
    mix = mixture(rows)
    assert mix.domains == ("code", "news", "web")
    assert mix.proportions == pytest.approx([len(rows.of(name)) / len(rows) for name in SHARES])


@pytest.mark.parametrize("proportions", [(1, 1), (0, 0, 0), (1, -1, 1), (1, math.nan, 1), (1, math.inf, 1)])
def test_proportions_that_are_none_are_refused(proportions: tuple[float, ...], rows: Rows) -> None:
    with pytest.raises(SettingsError, match="does not give 3 proportions"):
        mixture(rows, proportions)
