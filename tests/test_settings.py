"""Methods register themselves, and the terminal's help names all that have."""

import subprocess
import sys
from collections.abc import Callable, Iterable

import pytest

from engine.errors import SettingsError
from engine.judge.objectives import OBJECTIVES
from engine.methods.baselines import BASELINES
from engine.plans.rules import RULES
from engine.recover.repair import REPAIRS
from engine.search.ablations import ABLATIONS
from engine.settings import NoSettings, Registry
from tests.answers import Answer


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
    script = "from engine.methods.baselines import BASELINES; import sys; assert 'torch' not in sys.modules; print(*BASELINES)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) == {"bi", "angular", "sleb", "tail", "random"} == set(BASELINES)


@pytest.mark.parametrize(
    ("verb", "names"),
    [("propose", RULES), ("baseline", BASELINES), ("repair", REPAIRS), ("search", OBJECTIVES), ("ablate", ABLATIONS)],
)
def test_help_names_every_method(inside: Callable[..., Answer], verb: str, names: Iterable[str]) -> None:
    told = inside(verb, "--help").out
    assert [name for name in names if name not in told] == []
