"""Functions of the page's scripts in a browser, against the engine's or by hand."""

from collections.abc import Callable
from itertools import product

import pytest
from playwright.sync_api import Page

from engine.errors import SettingsError
from engine.methods.depth.baselines import plan_of_kept
from engine.methods.width.scores import AXES
from engine.methods.width.settings import TrimSettings
from engine.methods.width.widths import kept_for_parameters
from engine.models.shapes import facts_of
from engine.types import Model
from tests.browser.conftest import App

MODEL = ("scripts", "llama", 7, {"num_hidden_layers": 3})
GROUPS = (  # the blocks of a plan of 5 layers as (home, donor), the rule that made it, and where its layers went
    ([[0, 0], [1, 3], [4, 4]], "reference", [[1, 3, "donor", [2]]]),
    ([[0, 0], [3, 3], [4, 4]], "keep-last", [[1, 3, "one", [1, 2]]]),
    ([[0, 0], [1, 1], [4, 4]], "keep-first", [[1, 3, "one", [2, 3]]]),
    ([[0, 0], [1, 1], [4, 4]], None, [[2, 3, "dropped", [2, 3]]]),
    ([[0, 0], [1, 1]], "tail", [[2, 4, "dropped", [2, 3, 4]]]),
    ([[layer, layer] for layer in range(5)], "reference", []),
)


@pytest.fixture(scope="module")
def scripts(same_page: Page, app: App) -> Page:
    """A page whose scripts are there."""
    same_page.goto(app.link())
    same_page.wait_for_function("['size', 'groups', 'runs', 'neuronsFor'].every((name) => window.layerscope?.[name])")
    return same_page


def test_the_places_where_layers_go_are_found_in_any_plan(scripts: Page) -> None:
    for blocks, rule, found in GROUPS:
        as_blocks = [{"home": home, "mix": [[donor, 1.0]]} for home, donor in blocks]
        groups = scripts.evaluate(
            "([blocks, rule]) => window.layerscope.groups(5, blocks, rule).map((g) => [g.first, g.last, g.kind, g.lost])", [as_blocks, rule]
        )
        assert groups == found, (blocks, rule)


def test_the_page_and_the_terminal_meet_a_target_alike(scripts: Page, tiny: Callable[..., Model]) -> None:
    for family in ("llama", "qwen3", "gemma3_text", "gpt2"):
        model = tiny(family)
        facts, whole = facts_of(model.config, model.spec), model.spec.parameters
        heads, channels = (None, None) if family == "gpt2" else (2, 28)
        for depth, share in product((6, 4), (0.3, 0.5, 0.61, 0.8, 1.0)):
            for kept in (TrimSettings(), TrimSettings(heads=heads, channels=channels)):
                plan = plan_of_kept(6, range(depth), "short")
                asked = {axis: n for axis in AXES if (n := getattr(kept, axis))}
                try:
                    found = kept_for_parameters(model, plan, kept, share * whole).neurons or facts["shape"]["neurons"]
                except SettingsError:
                    found = 0
                arguments = [facts, asked, depth, "parameters", share * whole / 1e6]
                assert scripts.evaluate("(given) => window.layerscope.neuronsFor(...given)", arguments) == found, (family, share, kept)


def test_sizes_are_told_in_units_that_say_something(scripts: Page) -> None:
    sizes = [0, 812, 3_500, 2_104_556, 269_060_552, 1_500_000_000]
    assert scripts.evaluate(f"{sizes}.map(window.layerscope.size)") == ["0 B", "812 B", "3.5 kB", "2.1 MB", "269 MB", "1.50 GB"]
