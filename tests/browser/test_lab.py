"""Importance, Width and Weights in a browser: measured, cut, pruned, and exported as one plan."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, running
from tests.browser.hands import open_tab, set_slider, wait_until_ready
from tests.families import save_tiny

LONG = 60_000  # milliseconds


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app on a tiny random model, in the place of the demo."""
    folder = save_tiny(tmp_path_factory.mktemp("models") / "tiny qwen", "qwen3")
    with running(tmp_path_factory.mktemp("app"), "--model", folder) as started:
        yield started


def made(page: Page) -> str:
    return page.locator("#ls-making").inner_text()


def test_a_plan_of_three_parts_is_made_and_exported(page: Page, app: App) -> None:
    page.set_default_timeout(LONG)
    page.goto(f"{app.url}/?C=2&I=1&L=0&T=1")
    wait_until_ready(page)
    expect(page.locator("#ls-making")).to_contain_text("6 of 6 layers")
    assert re.findall("full width|no mask", made(page)) == ["full width", "no mask"]

    open_tab(page, "importance")
    expect(page.locator("#ls-importance .ls-hint")).to_contain_text("Nothing is measured yet")
    page.locator("#measure-score").click()
    heat = page.locator("#ls-importance .ls-map .heatmaplayer image")
    expect(heat).to_have_count(1, timeout=LONG)
    wait_until_ready(page)
    page.locator("#ls-importance .ls-map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#ls-importance .ls-one-head")).to_contain_text("With this head alone zeroed: perplexity ×", timeout=LONG)
    expect(page.locator("#ls-importance .ls-one-head")).to_contain_text(re.compile("Role: (mixed|diffuse|previous|first|induction)"))
    wait_until_ready(page)

    # Size follows the sliders without the server; an illegal shape cannot be trimmed.
    open_tab(page, "widths")
    trim = page.locator("#trim-button")
    expect(trim).to_be_disabled()
    before = page.locator("#ls-widths .ls-figure b").nth(1).inner_text()
    asked = len(app.requests)
    set_slider(page, "width-neurons", 24)
    set_slider(page, "width-heads", 2)
    expect(page.locator("#ls-widths .ls-figure b").nth(1)).not_to_have_text(before)
    expect(page.locator("#ls-widths .ls-picture")).to_contain_text("MLP, 24 of 48 neurons")
    assert len(app.requests) == asked
    expect(trim).to_be_enabled()
    trim.click()
    expect(page.locator("#ls-making")).to_contain_text("2 of 4 query heads, 24 of 48 neurons", timeout=LONG)
    wait_until_ready(page)

    open_tab(page, "masks")
    set_slider(page, "masks-sparsity", 0.5)
    page.locator("#prune-button").click()
    expect(page.locator("#ls-making")).to_contain_text("50 % of the weights are zero (wanda)", timeout=LONG)
    wait_until_ready(page)
    expect(page.locator("#ls-making")).to_contain_text("×")

    page.reload()  # the plan stays
    expect(page.locator("#ls-making")).to_contain_text("24 of 48 neurons", timeout=LONG)
    open_tab(page, "export")
    page.locator("#export-name input, #export-name textarea").fill("lab")
    page.locator("#export-button").click()
    expect(page.locator("#ls-report .ls-verdict")).to_contain_text("verified", timeout=LONG)
    expect(page.locator("#ls-report")).to_contain_text("Every tensor has the plan's shape")

    page.locator("#model input, #model textarea").fill(str(Path(app.exports) / "lab"))
    page.locator("#open").click()
    expect(page.locator("#ls-spec")).to_contain_text("lab", timeout=LONG)
    wait_until_ready(page)
    open_tab(page, "widths")
    expect(page.locator("#ls-widths .ls-picture")).to_contain_text("MLP, 24 of 24 neurons", timeout=LONG)
    expect(page.locator("#ls-making")).to_contain_text("full width")
