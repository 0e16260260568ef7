"""An action's settings are declared once: the page's controls, the terminal's options and the shown commands follow the record."""

import re
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import typer
from typer.testing import CliRunner

from engine.corpus.settings import WRITE
from engine.export.settings import EXPORT
from engine.judge.settings import EVALUATE, MEASURE, TASKS
from engine.methods.depth.laco import PROPOSE
from engine.methods.masks.settings import PRUNE
from engine.methods.width.settings import TRIM, TrimSettings
from engine.recover.run.settings import RECOVER, SHEAR
from engine.search.settings import SEARCH, SHAPES, SWEEP
from engine.settings import Action, about, changed, control, controls, options, record_from_controls, split
from ui.page.app import lay_out
from ui.page.components.field import form
from ui.terminal.cli import app
from ui.terminal.derived_options import command
from ui.text.commands import options_of
from ui.text.words import words

ACTIONS = (EVALUATE, EXPORT, MEASURE, PROPOSE, PRUNE, RECOVER, SEARCH, SHAPES, SHEAR, SWEEP, TASKS, TRIM, WRITE)
CONTRIBUTING = (Path(__file__).parents[1] / "docs" / "CONTRIBUTING.md").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Sample:
    """One setting of each kind."""

    number: int | None = field(default=None, metadata=control("a number"))
    share: float = field(default=0.5, metadata=control("a share", 0, 1, 0.1))
    name: str | None = field(default=None, metadata=control("a name"))
    several: tuple[str, ...] = field(default=("a", "b"), metadata=control("several", choices=("a", "b", "c")))
    on: bool = field(default=True, metadata=control("on or off"))
    hidden: dict[str, float] | None = field(default=None, metadata=control("in the terminal only", page=False))
    inner: int = 3


def test_a_record_is_read_from_its_controls() -> None:
    assert options(Sample) == ("number", "share", "name", "several", "on", "hidden")
    assert controls(Sample) == ("number", "share", "name", "several", "on")
    assert record_from_controls(Sample, [4.0, 0.25, " x ", ["c"], False]) == Sample(4, 0.25, "x", ("c",), False)
    assert record_from_controls(Sample, [0, 0, "", None, None]) == Sample(share=0)  # 0 is a share, and no number
    assert record_from_controls(Sample, [None] * 5, hidden={"a": 1.0}).hidden == {"a": 1.0}
    assert split(Sample, [1, None, None, [], True, "more"]) == (Sample(1, several=()), ["more"])
    assert changed(Sample(share=0.1, on=False)) == {"share": 0.1, "on": False}
    with pytest.raises(ValueError, match="zip"):
        record_from_controls(Sample, [1])


def asked(*arguments: str) -> Any:
    """The record that a command of Sample receives, or its output where it is refused."""
    program, received = typer.Typer(), list[Sample]()

    @command(program, Action("sample", "Take a sample.", Sample))
    def sample(settings: Sample) -> None:
        received.append(settings)

    answer = CliRunner().invoke(program, arguments)
    return received[0] if received else f"{answer.output}{answer.exception}"


def test_a_record_is_read_from_its_options() -> None:
    assert asked() == Sample()
    given = asked("--number", "4", "--share", "0.25", "--name", "x", "--several", "c,a", "--no-on", "--hidden", '{"a": 1}')
    assert given == Sample(4, 0.25, "x", ("c", "a"), False, {"a": 1})
    assert "JSON object" in asked("--hidden", "[1]")
    assert "Take a sample." in asked("--help")


def test_a_record_is_shown_as_options() -> None:
    assert options_of(Sample()) == ""
    shown = options_of(Sample(4, 0.1, "two words", ("c",), False), without=("share",))
    assert shown == " --number 4 --name 'two words' --several c --no-on"
    assert options_of(Sample(), "share", "several") == " --share 0.5 --several a,b"
    assert asked(*options_of(Sample(4, 0.1, "x", ("c",), False)).split()) == Sample(4, 0.1, "x", ("c",), False)


def test_the_recipe_of_an_option_reaches_page_terminal_and_command() -> None:
    (recipe,) = re.findall(r"```python recipe=option\n(.*?)```", CONTRIBUTING, re.S)
    known: dict[str, Any] = {"field": field, "control": control}
    exec(recipe.replace("gentle: bool = ", "gentle = "), known)
    wider: Any = make_dataclass("TrimSettings", [("gentle", bool, known["gentle"])], bases=(TrimSettings,), frozen=True)
    with gr.Blocks():
        drawn = form(wider, words("en"), "width")
    assert (drawn["gentle"].label, drawn["gentle"].info) == ("Trim gently", "cut at most half of a layer")
    values = [{"gentle": True, "heads": 4}.get(name) for name in controls(wider)]
    assert record_from_controls(wider, values) == wider(heads=4, gentle=True)
    assert options_of(record_from_controls(wider, values)) == " --heads 4 --gentle"
    program = typer.Typer()

    @command(program, Action("trim", "Trim.", wider))
    def trim(settings: wider) -> None:
        typer.echo(settings.gentle)

    assert CliRunner().invoke(program, ["--gentle"]).output == "True\n"


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.verb)
def test_the_terminal_has_every_option_of_an_action(action: Action) -> None:
    group: Any = typer.main.get_command(app)
    verb = group.commands[action.verb]
    flags = {flag for parameter in verb.params for flag in parameter.opts}
    wanted = {about(action.settings, name)["flag"] for name in options(action.settings)}
    assert wanted - flags == set()
    assert " ".join(verb.help.split()) == action.help


def test_the_page_has_every_control_of_an_action() -> None:
    with gr.Blocks():
        tabs = lay_out("en", Path("exports"))
    drawn = {
        TRIM: tabs["width"].asked,
        PRUNE: tabs["masks"].asked,
        SEARCH: tabs["search"].asked,
        SHAPES: tabs["search"].shapes_asked,
        SWEEP: tabs["search"].sweep_asked,
        RECOVER: tabs["recover"].asked,
        SHEAR: tabs["recover"].shear_asked,
        EXPORT: tabs["export"].asked,
    }
    for action, shown in drawn.items():
        assert tuple(shown) == controls(action.settings), action.verb
        assert all(component.value == about(action.settings, name)["default"] for name, component in shown.items() if name == "seed")
