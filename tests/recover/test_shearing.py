"""A shearing from text to plan: better than chance, the same after a pause, domains weighted by cost."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.corpus.building import corpus
from engine.corpus.domains import mixture, reweighted
from engine.errors import SettingsError, TrainingError
from engine.jobs import drain
from engine.judge.objectives import Objective
from engine.methods.depth.baselines import plan_of_kept
from engine.models.texts import calibration_of
from engine.plans.rules import untouched
from engine.recover.run.runs import Run
from engine.recover.run.settings import ShearSettings
from engine.recover.shear.shearing import begin_shearing, shear
from engine.types import Model, Part, Plan, Trim

SMALL = ShearSettings(tokens=24 * 64, rows=2, length=32, loss="kl", rate=3e-3, every=8)
TARGET = {"layers": 5, "heads": 2, "neurons": 24}
WORDS = ("rain", "river", "stone", "cat", "hill", "boat", "tide", "mat", "sea", "wind")


def prose(seed: int, sentences: int) -> str:
    chance = random.Random(seed)
    return "\n\n".join(f"{seed} " + " ".join(chance.choices(WORDS, k=12)) for _ in range(sentences))


@pytest.fixture
def text(tmp_path: Path) -> str:
    """Two domains, a folder each."""
    for seed, name in enumerate(("code", "news")):
        (tmp_path / "text" / name).mkdir(parents=True)
        (tmp_path / "text" / name / "a.txt").write_text(prose(seed, 60))
    return str(tmp_path / "text")


def begun(model: Model, text: str, folder: Path, target: dict[str, int] = TARGET, settings: ShearSettings = SMALL) -> Run:
    return begin_shearing(model, target, [text], settings, folder)


def by_chance(seed: int) -> Plan:
    """A plan of the same shape, chosen by lot."""
    chance = random.Random(seed)
    plan = plan_of_kept(6, chance.sample(range(6), 5), "random")
    trims = [
        Trim(heads=(chance.randrange(2), 2 + chance.randrange(2)), neurons=tuple(sorted(chance.sample(range(48), 24)))) for _ in plan.blocks
    ]
    return replace(
        plan, blocks=tuple(replace(block, trim=one) for block, one in zip(plan.blocks, trims, strict=True)), width=Part("random")
    )


def test_a_short_shearing_is_better_than_a_choice_by_chance(text: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny("llama", tie_word_embeddings=False)  # its head is large enough for a choice to matter
    settings = replace(SMALL, tokens=60 * 64, pull=0.3, settle=0.2, every=100)
    plan = drain(shear(model, begun(model, text, tmp_path / "run", settings=settings)))
    assert plan is not None
    judge = Objective(model, calibration_of(tuple(prose(9, 20).split("\n\n"))), "kl", 400)
    assert judge.score(plan) < min(judge.score(by_chance(seed)) for seed in range(4))
    assert (plan.depth, plan.width and plan.width.method) == (5, "sheared")
    for block in plan.blocks:
        assert block.trim is not None
        assert len(block.trim.neurons or ()) == 24
        assert [head // 2 for head in block.trim.heads or ()] == [0, 1]  # one of each KV group
    told = dict(plan.settings)
    assert (told["heads"], told["tokens"], told["texts"]) == (2, 60 * 64, text)


def test_what_is_told_on_the_way(text: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny("llama")
    run = begun(model, text, tmp_path / "run")
    drain(shear(model, run))
    steps = [line for line in run.lines() if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 25))
    first, last = steps[0]["masks"], steps[-1]["masks"]
    assert {name: one["masks"] for name, one in first.items()} == {"layers": 6, "heads": 24, "neurons": 288}
    assert {name: one["wanted"] for name, one in first.items()} == {"layers": 6, "heads": 4, "neurons": 48}
    assert {name: one["wanted"] for name, one in last.items()} == pytest.approx(TARGET)
    for name, one in last.items():
        assert one["expected"] < first[name]["expected"]
        assert len(one["multipliers"]) == 2
        assert 0 <= one["undecided"] <= one["masks"]
    assert steps[-2]["masks"] == last  # settled: only weights learn
    assert steps[-1]["text"] == steps[-1]["loss"]
    looks = [line for line in run.lines() if "domains" in line]
    assert [line["step"] for line in looks] == [8, 16, 24]


def test_a_shearing_that_is_stopped_ends_as_one_that_is_not(text: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny("qwen3")
    settings = replace(SMALL, every=2)

    def made(name: str) -> Run:
        run = begun(model, text, tmp_path / name, settings=settings)
        run.note(autocast="")  # which of two formats is quicker may be told otherwise the second time
        return run

    whole = made("whole")
    expected = drain(shear(model, whole))
    for stop in (3, 8, 22):
        parted = made(f"parted {stop}")
        for progress in shear(model, parted):
            if progress.label == f"Shearing: step {stop} of 24":
                parted.ask_to_pause()
        again = begun(model, text, parted.folder, settings=settings)
        torch.rand(5)
        assert drain(shear(model, again)) == expected
        told = [[{key: value for key, value in line.items() if key != "seconds"} for line in run.lines()] for run in (whole, again)]
        assert told[0] == told[1]


def test_a_domain_that_costs_more_than_its_reference_is_read_more(text: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny("llama")
    given = replace(SMALL, references={"code": 1.0}, update="as coded")
    run = begun(model, text, tmp_path / "run", settings=given)
    drain(shear(model, run))
    references = run.shearing.references
    assert references["code"] == 1.0
    assert references["news"] > 3  # the source's own
    rows = drain(corpus(model, [text], 32, tmp_path / "again"))
    mix = mixture(rows)
    for line in [line["domains"] for line in run.lines() if "domains" in line]:
        assert [line[name]["proportion"] for name in mix.domains] == pytest.approx(mix.proportions, rel=1e-5)
        mix = reweighted(mix, [line[name]["cost"] for name in mix.domains], [references[name] for name in mix.domains], "as coded")
    assert mix.proportions[0] > 0.9


def test_a_target_that_is_the_whole_model_changes_nothing(text: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny("llama")
    run = begun(model, text, tmp_path / "run", {"layers": 6, "neurons": 48})
    assert drain(shear(model, run)) == untouched(6)
    assert run.lines() == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"loss": "kl+cosine"}, "compares hidden states"),
        ({"loss": "love"}, "is not a loss"),
        ({"pull": 0.0}, "pull is 0"),
        ({"ramp": 0.7, "settle": 0.4}, "together below 1"),
        ({"update": "by feeling"}, "unknown update 'by feeling'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    changes: dict[str, Any], why: str, text: str, tiny: Callable[..., Model], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=why):
        begun(tiny("llama"), text, tmp_path / "run", settings=replace(SMALL, **changes))
    assert not (tmp_path / "run").exists()


def test_another_shearing_in_the_same_folder_is_refused_once_something_has_learned(
    text: str, tiny: Callable[..., Model], tmp_path: Path
) -> None:
    model = tiny("llama")
    begun(model, text, tmp_path / "run", {"neurons": 20})
    run = begun(model, text, tmp_path / "run")
    assert run.shearing.target == TARGET
    for _ in shear(model, run):
        run.ask_to_pause()
    assert drain(shear(model, begun(model, text, tmp_path / "run"))) is not None
    with pytest.raises(TrainingError, match="a shearing run with other settings"):
        begun(model, text, tmp_path / "run", {"neurons": 20})
    with pytest.raises(TrainingError, match="a shearing run with other settings"):
        begun(tiny("qwen3"), text, tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(TrainingError, match="is not empty"):
        begun(model, text, tmp_path / "full")


def test_a_reference_of_a_domain_that_is_not_there_is_refused(text: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny("llama")
    run = begun(model, text, tmp_path / "run", settings=replace(SMALL, references={"poems": 2.0}))
    with pytest.raises(SettingsError, match="no domain 'poems'; its domains are code, news"):
        drain(shear(model, run))
    assert "poems" in run.error
