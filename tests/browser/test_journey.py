"""A whole session, from opening a model to a verified export, and its error paths."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Page, expect
from transformers import AutoModelForCausalLM

from tests.browser.conftest import App
from tests.browser.hands import LONG, figure, open_tab, set_slider, wait_until_ready
from tests.families import save_tiny

DEPTH, LEFT = 12, 9  # of the model, and of the plans below
LINK = "I=1"  # names a setting, so that the page opens on the paper's others
JOBS = r"(Mapping every T|Measuring the cost of each step of T|Trying every fold) (\d+) %"  # in their order, and the alphabet's

# A model whose jobs are long enough to be met again after a reload.
SLOW_MODEL = {"num_hidden_layers": 24, "hidden_size": 256, "intermediate_size": 768}

# Draws a board of one chosen plan with writing samples twice, and counts charts in their place, charts out of it, passages.
BOARD_TWICE = """() => {
  const box = document.body.appendChild(document.createElement('div'));
  const made = {text: 'b', distinct_1: 1, distinct_2: 1, longest_repeat: 1, loops: false};
  const blocks = [0, 1].map((home) => ({home, mix: [[home, 1]]}));
  const entry = {name: 'x', label: 'x', depth: 2, parameters: 1e6, bytes: 1e6, plan: {method: 'm', settings: {}, blocks},
    samples: [{prompt: 'a', decoding: 'greedy', source: made, plan: made}]};
  const sheet = {columns: ['plan'], rows: [['x']], same: [], csv: ['', ''], markdown: {all: ['', ''], varying: ['', '']}};
  const words = window.layerscopeWords.en, data = {depth: 3, entries: [entry], sheet};
  for (let i = 0; i < 2; i++) {
    window.layerscope.views.board(box, {data, words, trigger() {}, local: {chosen: 'x'}, draw() {}, width: 600});
  }
  const found = ['.ls-charts > .ls-front', '.ls-details .ls-front', '.ls-passage'].map((what) => box.querySelectorAll(what).length);
  box.remove();
  return found;
}"""

# Every request of the page waits before it is sent.
SLOW = """() => {
  const ask = window.fetch;
  window.fetch = async (...all) => { await new Promise((go) => setTimeout(go, 700)); return ask(...all); };
}"""


@pytest.fixture(scope="module")
def app(shared: App, short: Path) -> App:
    """The shared app, whose links open a real model of 12 layers."""
    return replace(shared, model=short)


def enter(page: Page, app: App, query: str = LINK, tab: str = "", language: str = "") -> None:
    """Go to a view of the page, and wait until the model of its link is there instead of the one that the app was started with."""
    page.goto(app.link(query, tab, language))
    assert app.model
    expect(page.locator("#ls-spec .ls-name")).to_have_text(app.model.name, timeout=LONG)


def painted(page: Page, view: str, rows: int) -> list[list[float | None]]:
    """The values of a heatmap of so many rows that is on the screen as an image."""
    shown = f"document.querySelector('#ls-{view} .ls-map:has(.heatmaplayer image)')?.data[0].z"
    return page.wait_for_function(
        f"(rows) => {{ const z = {shown}; return z?.length === rows && z; }}", arg=rows, timeout=LONG
    ).json_value()


def test_a_visit_from_first_look_to_export(page: Page, app: App, browser: Browser) -> None:
    enter(page, app)

    # Explore: the similarity is painted, and the page says how to read it.
    z = painted(page, "similarity", DEPTH + 1)
    assert all(abs(z[i][i] - 1) < 1e-3 for i in range(DEPTH + 1))
    assert z[8][9] > 0.9 > z[0][DEPTH - 1]
    expect(page.get_by_text("bright means similar")).to_be_visible()
    bars = page.evaluate("document.querySelector('#ls-similarity .ls-bars').data[0].y")
    assert bars == [round(1 - z[i][i + 1], 6) for i in range(DEPTH)] or all(abs(b - (1 - z[i][i + 1])) < 1e-4 for i, b in enumerate(bars))

    # The keyboard selects a pair; the caption follows, and the bars of the layers between light up.
    page.locator("#ls-similarity .ls-map").focus()
    for key in ["ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight"]:
        page.keyboard.press(key)
    expect(page.locator("#ls-similarity .ls-says")).to_contain_text("layers 1–2")
    colors = page.evaluate("document.querySelector('#ls-similarity .ls-bars').data[0].marker.color")
    assert colors[1] == colors[2] != colors[0]

    open_tab(page, "fold")
    expect(page.locator("#ls-fold .ls-figure b").first).to_be_visible(timeout=LONG)
    left, source = figure(page)
    assert source == DEPTH
    assert page.locator("#ls-fold [data-layer]").count() == DEPTH
    assert page.locator("#ls-fold [data-block]").count() == left
    assert page.locator("#ls-fold .ls-says li").count() >= 1

    # T is answered in the page: the strip changes and not one request leaves it.
    page.wait_for_timeout(1000)
    wait_until_ready(page)
    asked = len(app.requests)
    seen = set()
    for T in (0.99, 0.9, 0.76, 0.7, 0.6, 0.52):
        set_slider(page, "T", T)
        page.wait_for_timeout(250)
        left, _ = figure(page)
        seen.add(left)
        assert page.locator("#ls-fold [data-block]").count() == left
        line = page.evaluate("Number(document.querySelector('#ls-fold .ls-now').dataset.t)")
        steps = page.evaluate("window.layerscope.map.steps.map((s) => [s.t_from, s.t_to, s.depth])")
        held = next(step for step in steps if line >= step[0])
        assert held[2] == left
        assert held[0] <= T < max(held[1], 1.0 + 1e-9)
    assert app.requests[asked:] == []
    assert len(seen) >= 2
    assert f"T={page.evaluate('window.layerscope.shown && document.querySelector(`#T input[type=number]`).value')}" in page.url

    # Target layers picks a T that leaves them; undo brings the last T back.
    # A change becomes a step of the history after a pause without further changes, which a busy machine draws out.
    drawn = "left => document.querySelector('#ls-fold .ls-figure b').innerText.startsWith(`${left} /`)"
    page.wait_for_timeout(2000)
    set_slider(page, "target", LEFT)
    page.wait_for_function(drawn, arg=LEFT, timeout=LONG)
    page.wait_for_timeout(2000)
    chosen = page.evaluate("document.querySelector('#T input[type=number]').value")
    set_slider(page, "T", 0.97)
    page.wait_for_function(drawn, arg=DEPTH, timeout=LONG)
    page.wait_for_timeout(2000)
    page.locator("#undo").click()
    page.wait_for_function("chosen => document.querySelector('#T input[type=number]').value === chosen", arg=chosen, timeout=LONG)
    page.wait_for_function(drawn, arg=LEFT, timeout=LONG)

    # A link reproduces the view, in a tab that has never been here.
    link = page.url
    other = browser.new_context().new_page()
    other.goto(link)
    expect(other.locator("#ls-fold .ls-figure b").first).to_have_text(f"{LEFT} / {DEPTH}", timeout=LONG)
    other.context.close()

    # The saved plan is a plan file.
    page.get_by_text("Save, load").click()
    with page.expect_download() as download:
        page.locator("#save-plan").click()
    plan = json.loads(Path(download.value.path()).read_text())
    assert plan["source_depth"] == DEPTH
    assert len(plan["blocks"]) == LEFT

    # A click on the landscape adds a fold to the hand-made plan.
    open_tab(page, "explore")
    values = painted(page, "landscape", 7)
    page.locator("#ls-landscape .ls-map").focus()
    for key in [*["ArrowUp"] * 7, *["ArrowDown"] * 2, *["ArrowRight"] * 8, "Enter"]:
        page.keyboard.press(key)
    open_tab(page, "fold")
    expect(page.locator("#ls-fold .ls-figure b").first).to_have_text(f"{LEFT} / {DEPTH}")
    expect(page.locator("#ls-fold .ls-says li")).to_contain_text("fold into 8")
    expect(page.locator("#ls-fold .ls-figure b").nth(3)).to_have_text(f"{values[2][8]:.3f}")

    # Export it, and let plain transformers have the last word.
    open_tab(page, "export")
    expect(page.locator("#ls-summary")).to_contain_text(f"{LEFT} of {DEPTH}")
    page.locator("#export-name input, #export-name textarea").fill("by-hand")
    page.locator("#export-button").click()
    expect(page.locator("#ls-report .ls-verdict")).to_contain_text("verified", timeout=LONG)
    assert page.locator("#ls-report .ls-checks .ls-pass").count() == 5
    assert page.locator("#ls-report .ls-checks .ls-fail").count() == 0
    network = AutoModelForCausalLM.from_pretrained(app.exports / "by-hand", local_files_only=True)
    assert network.config.num_hidden_layers == LEFT
    assert network.generate(torch.tensor([[1, 504, 2644]]), max_new_tokens=4, do_sample=False).shape == (1, 7)

    # Weights are written, never served.
    for path in ("by-hand/model.safetensors", "by-hand/config.json", "by-hand"):
        assert page.request.get(f"{app.url}/gradio_api/file={app.exports / path}").status in (403, 404)

    # The same name again is refused, in words.
    page.locator("#export-button").click()
    expect(page.locator("#ls-status .ls-problem")).to_contain_text("exists already")

    assert app.external() == []


def test_a_better_plan_is_found_judged_repaired_and_reported(page: Page, app: App, browser: Browser, tmp_path: Path) -> None:
    depth, left = 6, 4
    app = replace(app, model=save_tiny(tmp_path / "small", "llama", 5, num_hidden_layers=depth))
    enter(page, app)
    open_tab(page, "fold")
    expect(page.locator("#ls-fold .ls-figure b").first).to_be_visible(timeout=LONG)

    # A search shows its best plan so far, with its score and the time; Fold shows the same plan.
    open_tab(page, "search")
    page.locator("#search-amount input").fill(str(left))
    set_slider(page, "search-seconds", 6)
    page.locator("#search-button").click()
    expect(page.locator("#ls-search .ls-rule")).to_contain_text(f"Best plan of {left} layers", timeout=LONG)
    wait_until_ready(page)
    expect(page.locator("#ls-search [data-block]")).to_have_count(left)
    assert page.evaluate("document.querySelector('#ls-search .ls-score').data[0].y.length") >= 1
    assert "plan=found" in page.url
    open_tab(page, "fold")
    assert figure(page) == (left, depth)

    # Judged, it is on the board with its perplexity; a click on its row tells the protocol.
    open_tab(page, "compare")
    set_slider(page, "judge-tokens", 500)
    page.wait_for_timeout(500)
    for what in ("generated samples", "speed and memory"):
        page.locator("#also").get_by_label(what).uncheck()
    page.locator("#judge").click()
    row = page.locator("#ls-board tr[data-entry]")
    expect(row).to_have_count(1)
    expect(row.first).to_contain_text("×", timeout=LONG)
    wait_until_ready(page)
    row.first.click()
    expect(page.locator("#ls-board .ls-details")).to_contain_text("500 tokens")
    ratio = float(re.search(r"×([\d.]+)", row.first.inner_text())[1])
    assert 0 < ratio < 100

    # Repaired, it is better or worse on text that nothing was fitted to, and the page says which.
    open_tab(page, "recover")
    page.locator("#set-tokens input").fill("1100")
    page.locator("#repair-ridge").click()
    expect(page.locator("#ls-repaired")).to_contain_text("Repaired at", timeout=LONG)
    before, after = (float(value) for value in re.findall(r"×([\d.]+)", page.locator("#ls-repaired").inner_text()))
    assert before == ratio
    told = page.locator("#ls-repaired .ls-warning" if after > before else "#ls-repaired .ls-hint")
    expect(told).to_contain_text("got worse" if after > before else "did not increase")
    wait_until_ready(page)
    open_tab(page, "fold")
    expect(page.locator("#ls-fold .ls-repair").first).to_be_attached()

    # The report is one file that needs no network.
    open_tab(page, "compare")
    expect(row).to_have_count(2)
    page.locator("#also").get_by_label("speed and memory").check()  # the report measures what is ticked
    page.wait_for_timeout(500)
    with page.expect_download(timeout=LONG) as download:
        page.locator("#make-report").click()
    download.value.save_as(tmp_path / "report.html")
    context = browser.new_context()
    context.set_offline(True)
    offline = context.new_page()
    offline.goto((tmp_path / "report.html").as_uri())
    expect(offline.locator("body")).to_contain_text(f"{left}")
    expect(offline.locator("#gains")).to_contain_text("Writing (decoding), tokens per second")
    expect(offline.locator(".heatmaplayer image").first).to_be_attached(timeout=30_000)
    context.close()

    # What source and plan wrote stands with the plan that was chosen, all but the first folded away, and the charts below it.
    assert page.evaluate(BOARD_TWICE) == [1, 0, 2]

    # A new tab finds the board as it was left.
    other = browser.new_context().new_page()
    enter(other, app, tab="compare")
    expect(other.locator("#ls-board tr[data-entry]")).to_have_count(2, timeout=LONG)
    other.context.close()
    assert app.external() == []


def test_mistakes_are_answered_in_one_sentence(page: Page, app: App) -> None:
    page.goto(f"{app.url}/?T=banana&C=99&rule=nonsense&spans=[[5,2]]")
    painted(page, "similarity", 7)  # of the model that the app was started with
    for wrong, answer in (
        ("/no/such/folder", "/no/such/folder' does not exist"),
        ("<img src=x onerror=alert(1)>", "'<img src=x onerror=alert(1)>' does not exist"),
        ("hub:nobody/nothing", "HF_HUB_OFFLINE"),
    ):
        page.locator("#model input, #model textarea").fill(wrong)
        page.locator("#open").click()
        expect(page.locator("#ls-status .ls-problem")).to_contain_text(answer)
    assert page.locator("img[src=x]").count() == 0

    # Pressed again while an answer is slow to come, the last one is answered.
    page.evaluate(SLOW)
    for wrong in ("/first", "/second", "/third"):
        page.locator("#model input, #model textarea").fill(wrong)
        page.locator("#open").click()
    expect(page.locator("#ls-status .ls-problem")).to_contain_text("'/third' does not exist")


def running_job(page: Page) -> tuple[str, int]:
    """Wait until the page tells of a background job, and return it and the percentage, of the same moment."""
    told = "(jobs) => document.querySelector('#ls-status .ls-job')?.innerText.match(new RegExp(jobs))"
    _, name, percent = page.wait_for_function(told, arg=JOBS, timeout=LONG).json_value()
    return name, int(percent)


def test_a_reload_finds_the_job_still_running_and_what_is_cancelled_goes_on_when_asked_again(page: Page, app: App, tmp_path: Path) -> None:
    slow = save_tiny(tmp_path / "slow", "llama", 6, **SLOW_MODEL)
    enter(page, replace(app, model=slow), "C=2&I=1")
    job = page.locator("#ls-status .ls-job")
    before = running_job(page)
    page.reload()
    assert running_job(page) >= before
    page.locator("#cancel").click()
    expect(job).to_have_text("Ready")
    page.wait_for_timeout(1500)
    expect(job).to_have_text("Ready")
    page.locator("#open").click()
    running_job(page)
    open_tab(page, "fold")
    expect(page.locator("#ls-fold .ls-figure b").first).to_contain_text("/ 24", timeout=LONG)
    page.locator("#cancel").click()
    expect(job).to_have_text("Ready")


def test_dark_phone_and_korean(page: Page, app: App) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    enter(page, app, f"{LINK}&__theme=dark", language="ko")
    painted(page, "similarity", DEPTH + 1)
    expect(page.locator("#tab-explore")).to_have_text("분석")
    expect(page.locator("#tab-explore")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.body.classList.contains('dark')")
    layout = page.evaluate("document.querySelector('#ls-similarity .ls-map').layout")
    assert layout["paper_bgcolor"] == "transparent"
    open_tab(page, "fold")
    expect(page.locator("#ls-fold [data-layer]")).to_have_count(DEPTH, timeout=LONG)
    width = page.evaluate("document.querySelector('#ls-fold .ls-strip').getBoundingClientRect().right")
    assert width <= 390
    assert app.external() == []
