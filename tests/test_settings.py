"""Methods register themselves, and the terminal's help lists all of them."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
import pytest

from engine.errors import SettingsError
from engine.jobs import Job, Progress, drain
from engine.judge.evaluation import Judge
from engine.judge.objectives import OBJECTIVES, Objective, Places
from engine.methods.depth.baselines import BASELINES, plan_of_kept
from engine.methods.depth.laco import LacoSettings
from engine.models.texts import calibration_of
from engine.plans.rules import RULES, untouched
from engine.recover.repair.seam_maps import REPAIRS
from engine.search.ablations import ABLATIONS
from engine.settings import Method, NoSettings, Registry, about, control
from engine.types import Model, Plan
from tests.answers import Answer, assert_refused
from tests.families import TEXTS, save_tiny
from ui.page.components.slider import Slider
from ui.page.tabs import search
from ui.text.commands import lines_of


def test_a_method_is_found_under_its_name_and_in_order() -> None:
    kind: Registry = Registry("kind")

    @kind.register("b", "the second letter")
    def second() -> str:
        return "b"

    kind.register("a", "the first letter")(lambda: "a")
    assert list(kind) == ["b", "a"]
    assert kind["b"].run is second
    assert (kind.require("a").run(), kind["a"].help, kind["a"].settings) == ("a", "the first letter", NoSettings)
    with pytest.raises(SettingsError, match="unknown kind 'c'; choose one of b, a"):
        kind.require("c")


def test_the_files_of_a_package_register_when_somebody_asks() -> None:
    """Whoever imports the registry alone sees every method, whatever else was imported before."""
    asked = "from engine.methods.depth.baselines import BASELINES; "
    for script in (f"{asked}import sys; assert 'torch' not in sys.modules; ", f"import engine.methods.depth.sleb; {asked}"):
        found = subprocess.run([sys.executable, "-c", f"{script}print(*BASELINES)"], capture_output=True, text=True, check=True)
        assert found.stdout.split() == ["angular", "bi", "sleb", "tail", "random"] == list(BASELINES)


@pytest.mark.parametrize(
    ("verb", "names"),
    [("propose", RULES), ("baseline", BASELINES), ("repair", REPAIRS), ("search", OBJECTIVES), ("ablate", ABLATIONS)],
)
def test_help_names_every_method(inside: Callable[..., Answer], verb: str, names: Iterable[str]) -> None:
    told = inside(verb, "--help").out
    assert [name for name in names if name not in told] == []


# --- a method that is only registered ---


@dataclass(frozen=True, slots=True)
class StripedSettings:
    """Of the method below."""

    stride: int = field(default=2, metadata=control("every so many layers one goes", 2, 9, 1))
    whole: bool = field(default=True, metadata=control("keep the ends"))
    side: str = field(default="top", metadata=control("where to begin", choices=("top", "bottom")))
    weight: float = field(default=0.5, metadata=control("of no use", 0.0))


@pytest.fixture
def striped(monkeypatch: pytest.MonkeyPatch) -> list[StripedSettings]:
    """A baseline that nobody wrote a word about, and what it was asked with."""
    asked: list[StripedSettings] = []

    def run(objective: Objective, keep: int, settings: StripedSettings) -> Job[Plan]:
        asked.append(settings)
        yield Progress("")
        return plan_of_kept(objective.model.spec.depth, range(keep), "striped", stride=settings.stride)

    monkeypatch.setitem(BASELINES._known(), "striped", Method("striped", "every so many layers", run, StripedSettings))
    return asked


def test_a_registered_method_has_its_options_in_the_terminal(
    striped: list[StripedSettings], inside: Callable[..., Answer], tmp_path: Path
) -> None:
    told = inside("baseline", "--help").out
    assert all(name in told for name in ("striped (every so many", "--stride", "every so many layers one goes", "2<=x<=9", "--no-whole"))
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    model = save_tiny(tmp_path / "tiny", "llama")
    asked = ("baseline", "--method", "striped", "--keep", 4, "--model", model, "--text", tmp_path / "texts.txt")
    assert inside(*asked, "--stride", 5, "--no-whole", "--side", "bottom").json["settings"] == {"stride": 5}
    assert inside(*asked).json["method"] == "striped"
    assert striped == [StripedSettings(5, False, "bottom"), StripedSettings()]
    assert_refused(inside(*asked, "--stride", 1), "--stride", "equal to 2")


def test_a_registered_method_has_its_controls_on_the_page(striped: list[StripedSettings], tmp_path: Path) -> None:
    with gr.Blocks() as page:
        tab = search.build("ko")
    assert ("every so many layers", "striped") in tab.method.choices
    drawn = dict(zip(BASELINES.controls(), tab.method_settings, strict=True))
    stride, whole, begin, weight = (drawn[StripedSettings, name] for name in ("stride", "whole", "side", "weight"))
    assert (type(stride), stride.minimum, stride.maximum, stride.step, stride.value) == (Slider, 2, 9, 1, 2)
    assert (type(whole), whole.value, whole.info) == (gr.Checkbox, True, "keep the ends")
    assert (type(begin), [value for _, value in begin.choices], begin.value) == (gr.Dropdown, ["top", "bottom"], "top")
    assert (type(weight), weight.minimum, weight.value) == (gr.Number, 0.0, 0.5)
    (shown,) = [event.fn for event in page.fns.values() if event.targets == [(tab.method._id, "change")]]
    rows = {method: [update["visible"] for update in shown(method)] for method in ("striped", "random", "bi")}
    assert sorted((rows["striped"], rows["random"])) == [[False, True], [True, False]]
    assert rows["bi"] == [False, False]


@pytest.mark.usefixtures("striped")
def test_a_registered_method_is_given_its_own_settings() -> None:
    values = {"seed": 7, "stride": 3, "whole": False, "side": "bottom", "weight": 0.25}
    given = [values[name] for _, name in BASELINES.controls()]
    assert BASELINES.given("striped", given) == {"stride": 3, "whole": False, "side": "bottom", "weight": 0.25}
    assert BASELINES.given("random", given) == {"seed": 7}
    assert BASELINES.given("bi", given) == {}
    line = lines_of("search", "en", None, 10, True, True, 4000, "layers", 5, 0, "kl", 1, [], False, False, "striped", *given)[1]
    assert " --stride 3 --no-whole --side bottom --weight 0.25 " in line


def test_a_fourth_objective_is_one_function(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    def disagreement(places: Places) -> float:
        pairs = places.paired()
        return sum(float((source.argmax(-1) != plan.argmax(-1)).sum()) for source, plan in pairs)

    monkeypatch.setitem(OBJECTIVES._known(), "disagreement", Method("disagreement", "other first choices", disagreement))
    model = tiny("llama")
    objective, plan = Objective(model, calibration_of(TEXTS), "disagreement"), plan_of_kept(6, (0, 4), "hand-made")
    assert objective.score(untouched(6)) == 0
    found = drain(Judge(model, calibration_of(TEXTS)).judge(plan))
    assert objective.score(plan) == pytest.approx(1 - found.top1_agreement)
    with gr.Blocks():
        assert ("other first choices", "disagreement") in search.build("en").asked["objective"].choices


def test_a_field_tells_its_type_and_default() -> None:
    known = {name: about(LacoSettings, name) for name in ("C", "highest", "rule")}
    assert (known["C"]["type"], known["C"]["default"], known["C"]["low"], known["C"]["high"]) == (int, 4, 2, 8)
    assert (known["highest"]["type"], known["highest"]["default"]) == (int | None, None)
    assert tuple(known["rule"]["choices"]) == tuple(RULES)
