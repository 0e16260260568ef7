"""Present in a real browser, on a small random model: six steps by keys, the board's figures, and no measurement without a request."""

import re
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import App
from tests.browser.hands import LONG, open_tab, set_slider, wait_until_ready

READABLE = (Path(__file__).parent / "readable.js").read_text(encoding="utf-8").rstrip()
QUERY = "C=2&I=1&L=0&T=0.5&rule=reference"
ENTRY = "() => { const ls = window.layerscope; return ls.knows('board').data?.entries.find((one) => one.name === ls.shown.name) ?? null; }"
IDLE = """() => { const ls = window.layerscope;
  return ls.map && !ls.map.filling && ls.costOf(ls.shown) && !ls.knows('status').value.kind; }"""
STEPS = """() => { const ls = window.layerscope;
  return ls.map.steps.map((step) => ({from: step.t_from, depth: step.depth, cost: ls.costOf(step)})); }"""
BREAK = """() => { const ls = window.layerscope, broken = {ratio: null, low: null, high: null, kl: null, level: 4};
  const value = {of: Object.fromEntries(ls.map.steps.map((step) => [step.name, broken])), limits: [1.05, 1.25, 2, 10]};
  ls.views.costs.told({value, local: {}, props: {value: 'told'}}); }"""
MODEL = ("small", "llama", 2, {})
TITLES = (
    "Where layers repeat each other",
    "One fold, explained",
    "From gentle to too far",
    "The same prompt, before and after",
    "Gains",
    "Next steps",
)


def presenting(page: Page, address: str) -> Locator:
    """Open an address whose link presents, and wait until everything that comes by itself is there."""
    page.goto(address)
    show = page.locator(".ls-show")
    expect(show).to_be_visible(timeout=LONG)
    page.wait_for_function(IDLE, timeout=LONG)
    page.wait_for_timeout(1000)
    page.wait_for_function(IDLE, timeout=LONG)
    return show


def to_step(page: Page, step: int) -> None:
    page.keyboard.press("Home")
    for _ in range(step - 1):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".ls-show .ls-count")).to_have_text(f"{step} / 6")


def test_what_is_missing_is_offered_then_fills_and_equals_the_board(page: Page, app: App) -> None:
    page.goto(app.link(QUERY, "compare"))
    wait_until_ready(page)
    set_slider(page, "judge-tokens", 1000)
    page.locator(".ls-present-open").click()
    show = page.locator(".ls-show")
    expect(show.locator("h2")).to_be_focused()
    page.wait_for_function("window.layerscope.map && !window.layerscope.map.filling", timeout=LONG)
    assert page.evaluate(ENTRY) is None
    to_step(page, 5)
    expect(show.locator(".ls-offer")).to_contain_text("speed and memory")
    to_step(page, 4)
    expect(show.locator(".ls-offer")).to_contain_text("generated samples")
    to_step(page, 1)
    show.locator(".ls-offer button").click()  # both at once
    expect(show.locator(".ls-offer")).to_have_count(0, timeout=LONG)
    entry = page.evaluate(ENTRY)
    assert entry["evaluation"]["protocol"]["tokens"] <= 1000
    to_step(page, 4)
    sample = entry["samples"][0]
    expect(show.locator(".ls-stage > p").first).to_contain_text(sample["prompt"])
    for side, who in enumerate(("source", "plan")):
        shown = show.locator(".ls-passage p").nth(2 * side).inner_text()
        assert re.sub(r"\s", "", shown) == (re.sub(r"\s", "", sample[who]["text"]) or "–")
    show.locator(".ls-again").click()
    expect(show.locator(".ls-again")).to_contain_text("(2 / 16)")
    to_step(page, 5)
    said = show.locator(".ls-stage").inner_text()
    page.keyboard.press("Escape")
    expect(page.locator("#group-judge")).to_have_attribute("aria-selected", "true")  # where it was opened
    page.locator(f"#ls-board [data-entry='{entry['name']}']").first.click()
    told = page.locator("#ls-board .ls-details").inner_text()
    speed = re.search(r"Decoding speed is (\S+) of the source's, prefill speed (\S+);", told)
    peak = re.search(r"Peak memory .*?: ([\d.]+ \w+); source ([\d.]+ \w+)\.", told)
    cache = re.search(r"takes ([\d.]+ \w+) \(source ([\d.]+ \w+)\), the weights ([\d.]+ \w+) \(source ([\d.]+ \w+)\)", told)
    assert speed
    assert peak
    assert cache
    for figure in (*speed.groups(), *peak.groups(), *cache.groups()):
        assert figure in said
    ratio = entry["evaluation"]["perplexity"]["ratio"]
    assert f"perplexity ×{ratio:.2f}" in said
    assert app.external() == []


def test_six_steps_by_keys_and_the_link_tells_whether_it_is_open(page: Page, app: App) -> None:
    show = presenting(page, app.link(f"{QUERY}&present=1", "search"))
    for step, title in enumerate(TITLES, 1):
        expect(show.locator("h2")).to_have_text(title)
        expect(show.locator(".ls-count")).to_have_text(f"{step} / 6")
        assert len(show.locator(".ls-stage").inner_text()) > 60
        page.keyboard.press(("ArrowRight", "PageDown", " ")[step % 3])
    expect(show.locator(".ls-count")).to_have_text("6 / 6")  # nothing after the last
    for key, step in (("ArrowLeft", 5), ("PageUp", 4), ("Home", 1), ("ArrowLeft", 1), ("End", 6)):
        page.keyboard.press(key)
        expect(show.locator(".ls-count")).to_have_text(f"{step} / 6")
    expect(show.locator("pre")).to_contain_text("-C 2 -I 1 --lowest 0", timeout=LONG)
    expect(show.locator("pre")).to_contain_text("-T 0.5 ")
    for _ in range(12):  # the focus stays inside
        page.keyboard.press("Tab")
        assert page.evaluate("!!document.activeElement.closest('.ls-show') || document.activeElement === document.body")
    assert "present=1" in page.url
    page.reload()
    expect(show).to_be_visible(timeout=LONG)
    page.keyboard.press("Escape")
    expect(show).to_be_hidden()
    page.wait_for_function("!location.search.includes('present')")  # a dialog tells that it was closed a moment later
    assert "T=0.5" in page.evaluate("location.search")
    page.reload()
    wait_until_ready(page)
    expect(show).to_be_hidden()
    assert app.external() == []


@pytest.fixture(scope="module")
def presented(same_page: Page, app: App) -> Page:
    """A page that presents, for several tests."""
    presenting(same_page, app.link(f"{QUERY}&present=1"))
    return same_page


def test_with_the_network_cut_every_step_still_stands(presented: Page) -> None:
    page, show = presented, presented.locator(".ls-show")
    page.context.set_offline(True)
    for step in (2, 3, 4, 5):
        to_step(page, step)
        assert len(show.locator(".ls-stage").inner_text()) > 60
    to_step(page, 2)
    expect(show.locator(".ls-foldpicture svg text").first).to_be_visible()
    page.context.set_offline(False)


def test_the_slider_of_guests_leaves_the_page_alone_until_it_is_asked(presented: Page) -> None:
    page, show = presented, presented.locator(".ls-show")
    to_step(page, 3)
    steps = page.evaluate(STEPS)
    assert len(steps) > 2
    slider = show.locator("input[type=range]")
    expect(show.locator(".ls-told b").first).to_have_text("0.5000")
    expect(show.locator(".ls-deeds")).to_contain_text("This is the plan shown.")
    slider.focus()
    for _ in steps:
        page.keyboard.press("ArrowLeft")
    expect(show.locator(".ls-count")).to_have_text("3 / 6")  # on the slider an arrow moves the slider
    expect(show.locator(".ls-told b").nth(1)).to_have_text(f"{steps[0]['depth']} / 6")
    page.keyboard.press("ArrowRight")
    expect(show.locator(".ls-told b").nth(1)).to_have_text(f"{steps[1]['depth']} / 6")
    expect(show.locator(".ls-cost b")).to_contain_text(f"×{steps[1]['cost']['ratio']:.2f}")
    assert f"{steps[1]['depth']} layers" in slider.get_attribute("aria-valuetext")
    assert page.evaluate("window.layerscope.T") == 0.5
    show.locator(".ls-play").click()
    expect(show.locator(".ls-told b").nth(1)).to_have_text(f"{steps[-1]['depth']} / 6")
    expect(show.locator(".ls-play")).to_contain_text("Play")
    assert page.evaluate("window.layerscope.T") == 0.5
    slider.focus()
    for _ in steps:
        page.keyboard.press("ArrowLeft")
    show.locator(".ls-take").click()
    expect(show.locator(".ls-deeds")).to_contain_text("This is the plan shown.")
    expect(show.locator("header b")).to_contain_text(f"{steps[0]['depth']} of 6")
    assert page.evaluate("window.layerscope.T") >= steps[0]["from"]


def test_on_a_phone_in_korean_nothing_is_cut_off_or_pale(browser: Browser, app: App) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    show = presenting(page, app.link(f"{QUERY}&present=1&__theme=light", language="ko"))
    for theme, step in product(("light", "dark"), range(1, 7)):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
        to_step(page, step)
        assert re.search("[가-힣]", show.locator("h2").inner_text())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("(() => { const s = document.querySelector('.ls-stage'); return s.scrollWidth - s.clientWidth; })()") <= 0
        for button in show.locator("footer button:enabled").all():
            assert button.bounding_box()["height"] >= 44
        assert page.evaluate(f"{READABLE}.faint()") == []
        assert page.evaluate(f"{READABLE}.nameless()") == []
    show.locator(".ls-back").tap()
    expect(show.locator(".ls-count")).to_have_text("5 / 6")
    context.close()


def test_plans_of_every_kind_present_well(page: Page, app: App) -> None:
    show = presenting(page, app.link(f"{QUERY.replace('T=0.5', 'T=1')}&present=1"))
    to_step(page, 2)
    expect(show.locator(".ls-stage")).to_contain_text("changes no layer")
    to_step(page, 6)
    expect(show.locator(".ls-stage")).to_contain_text("No layer is folded yet")
    page.evaluate(BREAK)
    to_step(page, 3)
    expect(show.locator(".ls-cost b")).to_have_text("broken: not a number")
    show = presenting(page, app.link(f"{QUERY}&plan=hand-made&spans=[[1,3]]&present=1"))
    to_step(page, 2)
    expect(show.locator(".ls-lead")).to_contain_text(
        "Layers 1–3 become one: layer 1 provides its position and its norms, layer 3 provides its"
    )
    to_step(page, 3)
    expect(show.locator(".ls-deeds")).to_contain_text("It has 4 layers and a cost of ×")
    page.keyboard.press("Escape")
    open_tab(page, "fold")
    expect(page.locator("#ls-fold .ls-named")).to_contain_text("Hand-made")
