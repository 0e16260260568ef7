"""Fold in a real browser, on a small random model: the costs shown, and that the tab fits one screen."""

import json

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import App
from tests.browser.hands import LONG, figure, open_tab, set_slider, wait_until_ready

STEPS = """() => { const ls = window.layerscope;
  return ls.map.steps.map((s) => ({from: s.t_from, to: s.t_to, depth: s.depth, ratio: ls.costOf(s)?.ratio ?? null})); }"""
NEAR = """() => { const top = (name) => document.querySelector(name).getBoundingClientRect().y;
  const below = top("#ls-fold .ls-cost") - top("#T"); // at most one hand's breadth
  return document.documentElement.scrollWidth <= 390 && 0 < below && below < 400; }"""
MODEL = ("small", "llama", 10, {"num_hidden_layers": 10})
NAMED = ("#T", "#target", "#C", "#I", "#rule", "#ls-fold .ls-cost", "#ls-fold .ls-strip", "#ls-fold .ls-steps")


@pytest.fixture(scope="module")
def fold(same_page: Page, app: App) -> Page:
    """A page whose Fold tab is open and whose costs are all there; each test leaves it so, on the map of the same settings."""
    same_page.goto(app.link(tab="fold"))
    settled(same_page)
    return same_page


def settled(page: Page) -> None:
    expect(page.locator("#ls-fold .ls-steps .plot-container").first).to_be_attached(timeout=LONG)
    wait_until_ready(page)
    page.wait_for_timeout(1500)
    wait_until_ready(page)


def test_the_first_view_is_the_cheapest_step_of_the_balanced_depth_and_no_address_holds_it(fold: Page) -> None:
    steps = fold.evaluate(STEPS)
    assert all(step["ratio"] is not None for step in steps)
    balanced = next(step for step in steps if step["from"] <= 0.8)
    cheapest = min(step["ratio"] for step in steps if step["depth"] == balanced["depth"])
    T = fold.evaluate("window.layerscope.T")
    shown = next(step for step in steps if step["from"] <= T)
    assert (shown["depth"], shown["ratio"]) == (balanced["depth"], cheapest)
    assert "T=" not in fold.url
    assert fold.evaluate("document.querySelector('#C input').value") == "3"
    set_slider(fold, "T", 0.9)  # a hand: from now on the address holds what is shown, and nothing moves by itself
    expect(fold.locator("#ls-fold .ls-now")).to_be_attached()
    fold.wait_for_timeout(600)
    assert "T=" in fold.url
    assert fold.evaluate("window.layerscope.pursued") is None


def test_the_cost_is_told_in_words_and_the_target_takes_the_cheapest_step(fold: Page) -> None:
    steps = fold.evaluate(STEPS)
    depth = steps[len(steps) // 2]["depth"]
    same = [step for step in steps if step["depth"] == depth]
    set_slider(fold, "target", depth)
    fold.wait_for_timeout(800)
    cheapest = min(step["ratio"] for step in same)
    assert figure(fold)[0] == depth
    T = fold.evaluate("window.layerscope.T")
    assert next(step for step in steps if step["from"] <= T)["ratio"] == cheapest
    level = sum(cheapest > limit for limit in (1.05, 1.25, 2, 10))  # engine/judge/cost.py
    words = ("very little cost", "a small but measurable cost", "a clear cost", "a heavy cost", "effectively broken")
    expect(fold.locator("#ls-fold .ls-cost b")).to_have_text(
        f"×{cheapest:.2f}, {words[level]}" if cheapest < 10 else f"×{cheapest:.0f}, {words[level]}"
    )
    expect(fold.locator("#ls-fold .ls-same")).to_contain_text(f"{depth} layers")
    expect(fold.locator("#ls-fold .ls-from")).to_contain_text("practice")
    priced = fold.evaluate("document.querySelector('#ls-fold .ls-steps').data.filter((d) => d.yaxis === 'y2' && d.mode === 'markers')[0].y")
    assert len(priced) == len(steps)  # every step carries its cost


def test_everything_named_stands_on_one_screen(fold: Page) -> None:
    assert fold.locator(".sidebar.open").count() == 1
    for name in NAMED:
        box = fold.locator(name).first.bounding_box()
        assert box, name
        assert box["y"] >= 0, name
        assert box["y"] + box["height"] <= 900, name
        assert box["x"] + box["width"] <= 1440, name
    assert fold.locator("#ls-fold .ls-steps").bounding_box()["x"] > fold.locator("#T").bounding_box()["x"] + 200  # beside, not below
    fold.set_viewport_size({"width": 390, "height": 844})
    fold.wait_for_function(NEAR)
    fold.set_viewport_size({"width": 1920, "height": 1080})
    fold.wait_for_function("document.querySelector('#ls-fold .ls-strip')?.getBoundingClientRect().right > 1860")
    fold.set_viewport_size({"width": 1440, "height": 900})


def test_moving_t_asks_nobody_while_all_costs_are_known(fold: Page, app: App) -> None:
    asked = len(app.requests)
    for T in (0.97, 0.8, 0.7, 0.6):
        set_slider(fold, "T", T)
        fold.wait_for_timeout(900)
        assert float(fold.evaluate("document.querySelector('#ls-fold .ls-now').dataset.t")) == fold.evaluate("window.layerscope.T")
    assert app.requests[asked:] == []
    assert json.loads(fold.evaluate("JSON.stringify(window.layerscope.costOf(window.layerscope.shown))"))["ratio"] > 0


def test_a_click_on_the_landscape_shows_there_what_it_made_and_the_sliders_say_that_it_is_not_theirs(fold: Page) -> None:
    open_tab(fold, "explore")
    fold.locator("#ls-landscape .ls-map .heatmaplayer image").first.wait_for(state="attached", timeout=LONG)
    fold.locator("#ls-landscape .ls-map").focus()
    for key in ["ArrowRight", "ArrowRight", "ArrowRight", "Enter"]:
        fold.keyboard.press(key)
    made = fold.locator("#ls-landscape .ls-hand")
    expect(made.locator("[data-block]")).to_have_count(9)
    expect(made.locator(".ls-cost b")).to_contain_text("×", timeout=LONG)
    for key in [*["ArrowRight"] * 4, "Enter"]:
        fold.keyboard.press(key)
    expect(made.locator("[data-block]")).to_have_count(8)
    expect(made.locator(".ls-alone li")).to_have_count(2)
    expect(made.locator(".ls-alone li").last).to_contain_text("×", timeout=LONG)
    open_tab(fold, "fold")
    expect(fold.locator("#ls-fold .ls-named")).to_contain_text("Hand-made")
    expect(fold.locator("#ls-described")).to_contain_text("not made with these sliders")
    expect(fold.locator("#ls-fold .ls-cost b")).to_contain_text("×", timeout=LONG)
    fold.locator("#plan").get_by_label("From the T map").check()
    expect(fold.locator("#ls-fold .ls-named")).to_be_hidden()
    expect(fold.locator("#ls-described")).not_to_contain_text("not made with these sliders")


def test_the_paper_is_one_click_and_a_link_that_names_a_setting_is_obeyed(fold: Page, app: App) -> None:
    fold.locator("#paper_preset").click()
    settled(fold)
    assert fold.evaluate("[window.layerscope.map.settings.C, window.layerscope.map.rule, window.layerscope.T]") == [4, "reference", 0.65]
    expect(fold.locator("#ls-fold .ls-cost b")).to_contain_text("×")
    fold.goto(app.link("C=5&T=0.7", "fold"))
    settled(fold)
    assert fold.evaluate("[window.layerscope.map.settings.C, window.layerscope.map.rule, window.layerscope.T]") == [5, "reference", 0.7]
