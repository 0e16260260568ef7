"""Regressions seen in a browser: two models on one page, unreadable text, a dead server shown as ready."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import App
from tests.browser.hands import LONG, open_tab, set_slider, wait_until_ready
from tests.families import save_tiny

MODEL = ("deep", "llama", 12, {"num_hidden_layers": 12})
READABLE = (Path(__file__).parent / "readable.js").read_text(encoding="utf-8")

MAPPED = "(C) => window.layerscope?.map?.settings.C === C && !window.layerscope.map.filling"

# The next answer to the timer is kept back until it is let go.
HOLD = """() => {
  const ask = window.fetch, go = new Promise((resolve) => { window.letGo = resolve; });
  window.fetch = async (...all) => {
    const answer = await ask(...all);
    if (window.held || !String(all[0]).includes("/run/")) return answer;
    const {data} = await answer.clone().json();
    if (data.length < 10) return answer; // the timer's has the status and every chart
    window.held = data[0];
    await go;
    return answer;
  };
}"""


def test_the_last_open_wins_and_every_part_of_the_page_shows_that_model(page: Page, app: App, tmp_path: Path) -> None:
    failed: list[str] = []
    page.on("response", lambda answer: failed.append(f"{answer.status} {answer.url}") if answer.status >= 500 else None)
    page.goto(app.link("H=99&C=8&L=9", "fold"))
    page.locator("#model input, #model textarea").first.fill(str(save_tiny(tmp_path / "shallow", "llama")))
    page.locator("#open").click()  # as soon as it can be pressed, while the other one may still be opening
    expect(page.locator("#ls-spec .ls-name")).to_have_text("shallow", timeout=LONG)
    expect(page.locator("#ls-fold .ls-figure b").first).to_contain_text("/ 6", timeout=LONG)
    wait_until_ready(page)
    expect(page.locator("#ls-status .ls-notice")).to_contain_text("this model has 6 layers", timeout=LONG)
    ends = page.locator("#target input[type=range]").evaluate("(range) => [range.min, range.max, range.value].map(Number)")
    assert ends[0] <= ends[2] <= ends[1] == 6
    assert page.locator("#C input[type=range]").evaluate("(range) => [range.max, range.value].map(Number)") == [6, 6]
    open_tab(page, "export")
    expect(page.locator("#ls-summary")).to_contain_text("of 6")
    expect(page.locator("#export-name :is(input, textarea)")).to_have_attribute(
        "placeholder", re.compile(r"^shallow-\d-layers-[0-9a-f]{6}$")
    )
    expect(page.locator("#search-amount input")).to_have_value("5")  # of the model of 12 layers it would be 10
    trackers = "[...document.querySelectorAll('[data-testid=status-tracker]')].filter((node) => node.checkVisibility()).length"
    assert page.evaluate(trackers) == 0
    assert failed == []
    assert page.locator(".toast-body.error").count() == 0


def test_who_lands_on_export_is_told_what_will_be_written_and_what_was_typed_survives_a_reload(page: Page, app: App) -> None:
    page.goto(app.link("C=5", "export"))
    expect(page.locator("#ls-summary")).to_contain_text("of 12", timeout=LONG)
    open_tab(page, "search")
    wait_until_ready(page)
    expect(page.locator("#search-amount input")).to_have_value("10")
    page.locator("#search-amount input").fill("7")
    page.locator("#shapes-budget input").fill("0.07")
    open_tab(page, "compare")
    page.locator("#also").get_by_label("generated samples").uncheck()
    open_tab(page, "export")
    page.locator("#export-name input, #export-name textarea").fill("mine")
    page.locator("#search-amount input").evaluate("(field) => field.blur()")
    page.wait_for_timeout(500)
    page.reload()
    expect(page.locator("#export-name input, #export-name textarea")).to_have_value("mine", timeout=LONG)
    page.wait_for_timeout(1500)  # the timer has asked, and was told all that there is
    expect(page.locator("#search-amount input")).to_have_value("7")
    expect(page.locator("#shapes-budget input")).to_have_value("0.07")
    expect(page.locator("#also").get_by_label("generated samples")).not_to_be_checked()


@pytest.mark.parametrize(("theme", "language"), [("dark", ""), ("light", "ko")])  # of a theme the colours do not depend on the language
def test_every_text_can_be_read_and_every_control_has_a_name(theme: str, language: str, page: Page, app: App) -> None:
    page.goto(app.link(f"__theme={theme}", language=language))
    wait_until_ready(page)
    planted = "<p style='color:#999;background:#fff'>pale</p><input>"
    page.evaluate(f"document.querySelector('.gradio-container').insertAdjacentHTML('beforeend', `<div id=planted>{planted}</div>`)")
    for what, seen in (("faint", "pale"), ("nameless", "<input>")):
        assert seen in "".join(page.evaluate(f"{READABLE.rstrip()}.{what}()"))  # it sees what it looks for
    page.evaluate("document.getElementById('planted').remove()")
    page.wait_for_timeout(500)  # a button that has just been enabled fades in
    for tab in ("explore", "fold", "search", "compare", "export"):
        open_tab(page, tab)
        page.wait_for_timeout(300)
        for what in ("faint", "nameless"):
            assert page.evaluate(f"{READABLE.rstrip()}.{what}()") == [], (tab, what)
        page.evaluate("document.querySelectorAll('.ls-view').forEach((view) => view.classList.add('ls-stale'))")
        page.wait_for_timeout(300)
        assert page.evaluate(f"{READABLE.rstrip()}.faint()") == [], (tab, "of settings that have moved since")


@pytest.fixture(scope="module")
def mapped_page(same_page: Page, app: App) -> Page:
    """A page of the map at C = 2, where nothing is left to do."""
    same_page.goto(app.link("C=2&I=1&T=0.7", "fold"))
    same_page.wait_for_function(MAPPED, arg=2, timeout=LONG)
    wait_until_ready(same_page)
    return same_page


def test_an_answer_that_was_overtaken_is_dropped_and_the_page_goes_on_asking(mapped_page: Page, app: App) -> None:
    page = mapped_page
    page.wait_for_timeout(1500)
    asked = len(app.requests)
    shown = """(values) => { const box = document.createElement("div"), local = {}, asked = [];
      const {words, views} = window.layerscope, trigger = (name) => asked.push(name);
      const draw = (value) => views.status(box, {value, words, local, trigger});
      values.forEach(draw);
      const line = box.querySelector(".ls-job").innerText;
      document.body.classList.add("ls-away"); // the server is gone: told also while the last answer is an old one
      draw(values.at(-1));
      document.body.classList.remove("ls-away");
      return [line, asked.join(), box.innerText]; }"""
    older, later = {"at": 1, "kind": "map"}, {"at": 2}
    line, asked_for, away = page.evaluate(shown, [older, later])
    assert (line, asked_for) == ("Ready", "")
    assert page.evaluate(shown, [later, older]) == ["Ready", "wake", away]
    assert "does not respond" in away
    page.evaluate("window.layerscope.knows('status').trigger('wake', {})")
    page.wait_for_timeout(2000)
    assert len(app.requests) > asked + 1  # the event's own, and the timer's


def test_an_answer_that_comes_after_a_later_one_leaves_nothing_old_on_the_page(mapped_page: Page) -> None:
    page = mapped_page
    page.evaluate(HOLD)
    set_slider(page, "C", 3)
    page.wait_for_function("window.held", timeout=LONG)
    set_slider(page, "C", 5)
    page.wait_for_function("(held) => window.layerscope.knows('status').value.at > JSON.parse(held).at", arg=page.evaluate("window.held"))
    page.wait_for_timeout(3000)  # the map is ready long since, and the page has not been told
    assert page.evaluate(MAPPED, 2)
    page.evaluate("window.letGo()")
    page.wait_for_function(MAPPED, arg=5, timeout=LONG)
    wait_until_ready(page)


def test_a_server_that_is_gone_is_told_of_and_found_again(page: Page, app: App) -> None:
    page.goto(app.link("T=0.9", "fold"))
    wait_until_ready(page)
    page.wait_for_timeout(1000)  # it has looked at least once
    app.stop()
    try:
        expect(page.locator("#ls-status .ls-problem")).to_contain_text("does not respond")
    finally:
        app.begin()
    expect(page.locator("#ls-status .ls-problem")).to_have_count(0, timeout=LONG)
    expect(page.locator("#ls-fold .ls-figure b").first).to_contain_text("/ 12", timeout=LONG)
    wait_until_ready(page)
    assert "T=0.9" in page.url
