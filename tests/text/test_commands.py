"""The terminal runs the commands that the page shows, on a tiny model."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.models.texts import calibration_of
from engine.recover.run.settings import RecoverySettings, ShearSettings
from engine.settings import about, controls
from engine.types import ModelSource
from tests.answers import Answer
from tests.families import TEXTS, save_tiny
from ui.page.components.terminal import terminal
from ui.text.commands import facts_of, lines_of

SHAPES = (0.045, 600, 2, True, False)  # what shapes are looked for with


def values(record: type, **given: Any) -> list[Any]:
    """The values of a record's controls: those given, and the defaults of the others."""
    return [given.get(name, about(record, name)["default"]) for name in controls(record)]


LEARN = (["practice"], "calibration.txt", "tokens", 128, *values(RecoverySettings, until=1.0, loss="kl", rate=0, rows=2, length=32))
SHEAR = [5, 0, 24, 0, *values(ShearSettings, loss="kl", tokens=128, rows=2, length=32)]
LACO = (2, 1, 0, 6, "mean", "per-token")
OWN = calibration_of(TEXTS, "own texts")


def filled(tab: str, facts: dict[str, Any], *values: Any, language: str = "en") -> list[str]:
    known = {**facts, "T": -0.25}
    return [re.sub(r"\{(\w+)\}", lambda found: str(known[found[1]]), line) for line in lines_of(tab, language, *values)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A folder with what the lines say to bring, and what is known of a model in a folder with a space in its name."""
    folder = save_tiny(tmp_path / "a tiny model", "llama")
    for name in ("calibration.txt", "evaluation.txt"):
        text = TEXTS if name == "calibration.txt" else ("The rain fell on the hills all day.", "A boat came in with the tide.")
        (tmp_path / name).write_text("\n".join(text), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return facts_of(ModelSource("folder", str(folder)), OWN)


@pytest.mark.usefixtures("in_this_process")
def test_every_line_of_every_tab_runs(here: dict[str, Any], inside: Callable[..., Answer]) -> None:
    lines = [
        *filled("explore", here),
        *filled("importance", here, "neurons", "minitron", 600),
        *filled("fold", here, "map", *LACO),
        *filled("recover", here, *LEARN, "", 600, *SHEAR),
        *filled("widths", here, 2000, 4, 24, 32, "obs", "bias", True, True),
        *filled("masks", here, 600, "gblm", 0.6, "", "layer", True, False, 50.0, "l1", *[None] * 11),
        *filled("search", here, *SHAPES, "layers", 5, 0, "kl", 1, ["keep-first"], False, False, "tail", 0),
        *filled("compare", here, "own", 60, ["samples", "tasks"], "bundled", 1, 64, 2, "C", *LACO),
        *filled("export", here, "smaller", "safetensors", "bfloat16", "1MB"),
    ]
    verbs = [shlex.split(line)[1] for line in lines if not line.startswith("#")]
    first, then = (
        ["profile", "importance", "propose", "map", "repair", "recover", "shear", "trim", "prune", "search", "baseline", "shapes"],
        ["evaluate", "measure", "tasks", "report", "ablate", "export"],
    )
    assert verbs == first + then
    for line in lines:
        if not line.startswith("#"):
            answer = inside(*shlex.split(line)[1:])
            assert answer.code == 0, (line, answer.err)
    assert json.loads(Path("plan.json").read_text())["settings"]["rule"] == "mean"
    assert json.loads(Path("plan.json").read_text())["settings"]["T"] == -0.25
    assert sum(one["cost"] is not None for one in json.loads(Path("shapes.json").read_text())["shapes"]) == 2
    assert json.loads(Path("found.json").read_text())["depth"] == 5
    gains = json.loads(Path("gains.json").read_text())
    assert (gains["speed"], gains["memory"]["context"], gains["memory"]["batch"]) == (None, 64, 2)
    assert json.loads(Path("judged.json").read_text())["protocol"]["tokens"] <= 60
    assert json.loads(Path("smaller/config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("parameters", 0.05, 0, "kl", 1, ["mean"], False, False, "bi", 0), "--parameters 50000 "),
        (("memory", 2, 256, "kl", 1, ["mean"], False, False, "bi", 0), "--gigabytes 0.002 --context 256 "),
        (
            ("layers", 5, 0, "perplexity", 10.0, ["mean", "reference"], True, True, "bi", 0),
            "--survivors mean,reference --repair --exhaustive ",
        ),
    ],
)
def test_a_search_is_told_its_target(values: tuple[Any, ...], expected: str, here: dict[str, Any]) -> None:
    line = filled("search", here, *SHAPES, *values)[0]
    assert expected in line
    assert f"--objective {values[3]} --seconds {values[4]:g} --survivors " in line


def test_what_cannot_be_asked_has_no_line(here: dict[str, Any]) -> None:
    asked = (0, "kl", 1, [], False, False, "bi", 0)
    assert filled("search", here, *SHAPES, "layers", None, *asked) == []
    assert not [line for line in filled("search", here, *SHAPES, "memory", 2, *asked) if " baseline " in line]
    assert not [line for line in filled("search", here, None, *SHAPES[1:], "layers", 5, *asked) if " shapes " in line]
    assert not [line for line in filled("fold", here, "hand-made", *LACO) if " propose " in line]  # no rule makes that plan again
    assert filled("fold", here, "file", *LACO)[0].startswith("# ")


def test_a_run_is_told_what_differs_from_the_usual(here: dict[str, Any]) -> None:
    said = values(RecoverySettings, train="lora", until=1.2, loss="ce", rate=1e-3, recompute=True, language="korean")
    line = filled("recover", here, ["self"], "a b.txt\n\n hub:x/y ", "minutes", 2.5, *said, "mine", 600, *SHEAR)[2]
    told = " --text self --text 'a b.txt' --text hub:x/y --minutes 2.5 --train lora --loss ce --until 1.2 --rate 0.001"
    assert line.endswith(f"{told} --recompute --language korean --out mine")
    assert not [line for line in filled("recover", here, ["self"], "", "minutes", None, *LEARN[4:], "", 600, *SHEAR) if " recover " in line]


def test_a_baseline_is_told_its_own_settings(here: dict[str, Any]) -> None:
    asked = ("layers", 5, 0, "kl", 1, ["mean"], False, False)
    assert " --seed 7 --out random.json" in filled("search", here, *SHAPES, *asked, "random", 7)[1]
    assert " --seed" not in filled("search", here, *SHAPES, *asked, "bi", 7)[1]


def test_the_model_and_the_texts_are_quoted_and_own_texts_are_owned_up_to() -> None:
    facts = facts_of(ModelSource("hub", "org/it's", "v1", "float16", "cuda:0"), calibration_of(("a",), "korean"))
    assert shlex.split(facts["opened"]) == ["--model", "hub:org/it's@v1", "--dtype", "float16", "--device", "cuda:0"]
    assert (facts["calibration"], facts["practice"], facts["own"]) == ("korean", "korean", False)
    own = facts_of(ModelSource("folder", "/x"), OWN)
    assert (own["calibration"], own["practice"], own["own"]) == ("calibration.txt", "english", True)


def test_remarks_are_in_the_pages_language(here: dict[str, Any]) -> None:
    assert filled("export", here, "", "safetensors", "auto", "5GB", language="ko")[0].endswith("저장한 파일")
    assert (
        filled("export", here, "", "safetensors", "auto", "5GB", language="ko")[1]
        == filled("export", here, "", "safetensors", "auto", "5GB")[1]
    )


def test_a_tab_begins_with_the_lines_of_its_first_values() -> None:
    import gradio as gr

    with gr.Blocks():
        shown = terminal("export", "en", gr.Textbox(""), *(gr.Textbox(value) for value in ("safetensors", "auto", "5GB")))
    assert json.loads(shown.value)["lines"] == lines_of("export", "en", "", "safetensors", "auto", "5GB")
