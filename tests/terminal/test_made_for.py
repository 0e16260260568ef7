"""A plan's file names the model that it was made for; reading it on another model gives a warning."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.answers import Answer
from tests.families import TEXTS, save_tiny

LINES = tuple(f"{text} {number} {TEXTS[number % 3][::-1]}" for number in range(14) for text in TEXTS)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of the same shape and other weights."""
    folder = tmp_path_factory.mktemp("models")
    return save_tiny(folder / "ours", "llama"), save_tiny(folder / "theirs", "llama", seed=1)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    file.write_text("\n".join(LINES), encoding="utf-8")
    return file


def plans_in(value: Any) -> list[dict[str, Any]]:
    """Every plan that a JSON value holds."""
    if isinstance(value, dict):
        return [value] if "source_depth" in value else [plan for item in value.values() for plan in plans_in(item)]
    return [plan for item in value for plan in plans_in(item)] if isinstance(value, list) else []


@pytest.fixture
def plan(models: tuple[Path, Path], texts: Path, inside: Callable[..., Answer], tmp_path: Path) -> Path:
    """A plan of the first model."""
    out = tmp_path / "plan.json"
    assert inside("baseline", "--method", "tail", "--keep", 4, "--model", models[0], "--text", texts, "--out", out).code == 0
    return out


WRITING: dict[str, tuple[tuple[object, ...], str]] = {
    "propose": (("-T", -1), "--calibration"),
    "map": (("-C", 3, "--t-min", -1), "--calibration"),
    "sweep": (("--lowest", 3), "--calibration"),
    "search": (("--keep", 4, "--seconds", 5, "--tokens", 200), "--text"),
    "ablate": (("C", "-C", 3, "-T", -1, "--tokens", 60), "--calibration"),
}


@pytest.mark.parametrize("verb", WRITING)
def test_every_plan_that_a_verb_writes_names_its_model(
    verb: str, models: tuple[Path, Path], texts: Path, inside: Callable[..., Answer], plan: Path
) -> None:
    options, read = WRITING[verb]
    found = plans_in(inside(verb, *options, "--model", models[0], read, texts).json)
    made_for = json.loads(plan.read_text())["model"]
    assert set(made_for) == {"name", "fingerprint"}
    assert made_for["name"] == "ours"
    assert found
    assert all(one["model"] == made_for for one in found)


READING: dict[str, tuple[str, ...]] = {
    "evaluate": ("--tokens", "60"),
    "repair": (),
    "tasks": ("--limit", "1"),
    "measure": ("--no-writing", "--no-speed"),
    "report": ("--tokens", "60", "--no-writing", "--no-speed"),
    "export": (),
}


def ask(verb: str, inside: Callable[..., Answer], plan: Path, model: Path, texts: Path, out: Path) -> list[str]:
    text = ("--text", texts) if verb in ("evaluate", "repair", "report") else ()
    answer = inside(verb, *READING[verb], "--plan", plan, "--model", model, *text, "--out", out)
    assert answer.code == 0, answer.err
    return [line for line in answer.err.splitlines() if "this plan was made for" in line]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("verb", READING)
def test_a_plan_of_another_model_says_so_when_it_is_read(
    verb: str, models: tuple[Path, Path], texts: Path, inside: Callable[..., Answer], plan: Path, tmp_path: Path
) -> None:
    made_for = json.loads(plan.read_text())["model"]
    told = f"plan.json: this plan was made for ours ({made_for['fingerprint'][:12]}), which is not the open model"
    assert ask(verb, inside, plan, models[1], texts, tmp_path / "theirs") == [f"layerscope: warning: {told}"]
    assert ask(verb, inside, plan, models[0], texts, tmp_path / "ours") == []


@pytest.mark.usefixtures("in_this_process")
def test_a_plan_that_names_no_model_is_read_as_before(
    models: tuple[Path, Path], texts: Path, inside: Callable[..., Answer], plan: Path, tmp_path: Path
) -> None:
    old = json.loads(plan.read_text())
    del old["model"]
    plan.write_text(json.dumps(old), encoding="utf-8")
    for verb in ("evaluate", "export"):
        assert ask(verb, inside, plan, models[1], texts, tmp_path / verb) == []


@pytest.mark.usefixtures("in_this_process")
def test_what_an_export_keeps_names_the_model_it_was_made_for(
    models: tuple[Path, Path], texts: Path, inside: Callable[..., Answer], plan: Path, tmp_path: Path
) -> None:
    ask("export", inside, plan, models[0], texts, tmp_path / "out")
    kept = tmp_path / "out" / "layerscope.json"
    assert ask("evaluate", inside, kept, models[0], texts, tmp_path / "same.json") == []
    (line,) = ask("evaluate", inside, kept, models[1], texts, tmp_path / "other.json")
    assert line.startswith("layerscope: warning: layerscope.json: this plan was made for ours (")
