"""Domains weighted by cost in a recovery run: read in proportion to cost, recorded, and read the same after a pause."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.corpus.domains import mixture, reweighted
from engine.errors import SettingsError
from engine.jobs import drain
from engine.recover.run import learning
from engine.recover.run.recovery import _opened
from engine.recover.run.runs import Run
from engine.types import Model
from tests.recovering import DEEP, SENTENCES, STEPS, assert_same, begun, played, shortened, stopped

Open = Callable[[str], Model]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(monkeypatch.setattr)


@pytest.fixture
def text(tmp_path: Path) -> str:
    """Two domains: what the model has learned to write, and what it has not."""
    for name, sentences in (("known", SENTENCES), ("new", [" ".join(reversed(one.split())) for one in SENTENCES])):
        (tmp_path / "text" / name).mkdir(parents=True)
        (tmp_path / "text" / name / "a.txt").write_text("\n\n".join(sentences), encoding="utf-8")
    return str(tmp_path / "text")


def weighed(run: Run) -> list[dict[str, dict[str, float]]]:
    return [line["domains"] for line in run.lines() if "domains" in line]


@pytest.mark.parametrize("update", ["as printed", "as coded"])
def test_what_costs_more_than_its_reference_is_read_more(able: Open, text: str, update: str, tmp_path: Path) -> None:
    run = begun(able("llama"), DEEP, tmp_path / "run", texts=(text,), update=update, every=2, references={"new": 0.5})
    played(run)
    references = run.record.references
    assert references["new"] == 0.5
    assert 0 < references["known"] < 3  # the source's own
    mix = mixture(drain(_opened(run)).rows, (1, 1))
    assert len(weighed(run)) == STEPS // 2 - 1
    for line in weighed(run):
        assert [line[name]["proportion"] for name in mix.domains] == pytest.approx(mix.proportions, rel=1e-5)
        mix = reweighted(mix, [line[name]["cost"] for name in mix.domains], [references[name] for name in mix.domains], update)  # type: ignore[arg-type]
    assert dict(zip(mix.domains, mix.proportions, strict=True))["new"] > 0.6


def test_a_run_that_was_stopped_reads_the_same(able: Open, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "SAVE", 0.0)  # a checkpoint after every step
    names = ("whole", "early", "late")
    whole, *others = (begun(able("llama"), DEEP, tmp_path / name, texts=(text,), update="as coded", every=2) for name in names)
    played(whole)
    for parts, step in zip(others, (1, 4), strict=True):
        stopped(parts, lambda label, step=step: label == f"Training: step {step} of {STEPS}")
        played(parts)
        assert_same(whole, parts)


def test_what_cannot_be_weighed_is_refused(able: Open, text: str, tmp_path: Path) -> None:
    model = able("llama")
    with pytest.raises(SettingsError, match="unknown update 'often'"):
        begun(model, DEEP, tmp_path / "a", texts=(text,), update="often")
    with pytest.raises(SettingsError, match="cannot be stored while the proportions of domains change"):
        begun(model, DEEP, tmp_path / "b", texts=(text,), update="as coded", teacher="stored")
    with pytest.raises(SettingsError, match="the text has no domain 'old'; its domains are known, new"):
        played(begun(model, DEEP, tmp_path / "c", texts=(text,), update="as coded", references={"old": 1.0}))


def test_one_domain_is_read_as_ever(able: Open, tmp_path: Path) -> None:
    runs = [begun(able("llama"), DEEP, tmp_path / name, update=name) for name in ("none", "as coded")]
    for run in runs:
        played(run)
    assert_same(*runs)
