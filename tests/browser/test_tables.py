"""Exports from the page: charts as pictures and data, the board as Markdown and CSV, commands for a terminal."""

import csv
import io
import re
import shlex
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import typer
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App
from tests.browser.hands import LONG, open_tab, set_slider, wait_until_quiet
from ui.terminal.cli import app as terminal

MODEL = ("tiny llama", "llama", 0, {})

TINY = "L=0&C=2&I=1&T=0.5"
MENUS = """[...document.querySelectorAll(".js-plotly-plot, .ls-stripbox:has(svg)")].map((box) => box.querySelectorAll(".ls-save").length)"""


@pytest.fixture(scope="module")
def page(same_page: Page, app: App) -> Page:
    """One page for all of the tests, dark and with everything there that comes by itself."""
    same_page.set_default_timeout(LONG)  # no time is tested here, and the machine may be busy
    same_page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    same_page.goto(app.link(f"{TINY}&__theme=dark"))
    expect(same_page.locator("#ls-similarity .ls-save").first).to_be_visible(timeout=LONG)
    wait_until_quiet(same_page, app)
    return same_page


def saved(page: Page, chart: Locator, what: str) -> tuple[str, bytes]:
    """Save a chart through its menu; return the file's name and what is in it."""
    chart.locator("> .ls-save").click()
    with page.expect_download() as download:
        page.locator(f".ls-menu [data-save={what}]").click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


def test_a_chart_is_saved_as_pictures_and_data_and_nobody_is_asked(page: Page, app: App) -> None:
    bars = page.locator("#ls-similarity .ls-bars")
    expect(bars.locator(".ls-save")).to_be_visible(timeout=LONG)
    asked = len(app.requests)

    name, svg = saved(page, bars, "save_svg")
    assert name == "tiny-llama-similarity-bars.svg"
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"block influence" in svg
    assert b"inherit" not in svg  # a font that only the page knows
    first = page.evaluate("svg => { const i = new Image(); i.src = 'data:image/svg+xml,' + encodeURIComponent(svg); return i.decode()"
        ".then(() => { const c = document.createElement('canvas'); c.width = c.height = 9; const p = c.getContext('2d');"
        " p.drawImage(i, 0, 0); return [...p.getImageData(1, 1, 1, 1).data]; }); }", svg.decode())  # fmt: skip
    assert first == [255, 255, 255, 255]  # paper, though the page is dark
    assert page.evaluate("window.layerscope.theme().text").encode() not in svg

    name, slide = saved(page, bars, "save_slide")
    assert (name, size_of(slide)) == ("tiny-llama-similarity-bars-slide.png", (3200, 1800))
    name, column = saved(page, bars, "save_column")
    assert (name, size_of(column)[0]) == ("tiny-llama-similarity-bars-column.png", 1005)

    name, text = saved(page, bars, "save_csv")
    rows = list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"))))
    assert name == "tiny-llama-similarity-bars.csv"
    assert [int(row["layer"]) for row in rows] == list(range(6))
    assert [float(row["block influence"]) for row in rows] == page.evaluate("document.querySelector('#ls-similarity .ls-bars').data[0].y")

    name, text = saved(page, page.locator("#ls-similarity .ls-map"), "save_csv")
    rows = list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"))))
    assert name == "tiny-llama-similarity.csv"
    z = page.evaluate("document.querySelector('#ls-similarity .ls-map').data[0].z")
    assert [float(row["cosine similarity"]) for row in rows] == [value for row in z for value in row]
    assert app.requests[asked:] == []
    assert app.external() == []


def test_every_chart_has_one_menu_and_the_strip_too(page: Page, app: App) -> None:
    open_tab(page, "fold")  # a tab's charts are painted while it is open
    strip = page.locator("#ls-fold .ls-stripbox")
    expect(strip.locator("> .ls-save")).to_be_visible(timeout=LONG)
    wait_until_quiet(page, app)
    for theme in ("light", "dark"):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
        page.wait_for_timeout(300)
        menus = page.evaluate(MENUS)
        assert len(menus) > 5
        assert set(menus) == {1}
    name, svg = saved(page, strip, "save_svg")
    assert name == "tiny-llama-fold-strip.svg"
    root = ET.fromstring(svg)
    assert len(root.findall(".//*[@data-layer]")) == 6
    name, column = saved(page, strip, "save_column")
    assert (name, size_of(column)[0]) == ("tiny-llama-fold-strip-column.png", 1005)
    _, text = saved(page, strip, "save_csv")
    rows = list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"))))
    blocks = page.evaluate("window.layerscope.shown.blocks")
    assert [int(row["norms_of"]) for row in rows] == [block["home"] for block in blocks]
    assert [row["projections_of"] for row in rows] == [f"{block['mix'][0][0]}" for block in blocks]


def test_the_menu_is_used_by_keys_alone(page: Page) -> None:
    open_tab(page, "explore")
    button = page.locator("#ls-norms .ls-save")
    expect(button).to_be_visible(timeout=LONG)
    assert button.get_attribute("aria-label") == "Save this chart"
    button.scroll_into_view_if_needed()  # a menu closes when the page scrolls
    page.wait_for_timeout(500)
    button.focus()
    page.keyboard.press("Enter")
    items = page.locator(".ls-menu [role=menuitem]")
    expect(items.first).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(items.last).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".ls-menu")).to_be_hidden()
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(items.first).to_be_focused()
    page.keyboard.press("End")
    expect(items.last).to_be_focused()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8-sig"))))
    assert {row["series"] for row in rows} == {"first token", "largest of the others", "median of the others"}
    assert len(rows) == 3 * 7


def test_the_board_sorts_hides_and_is_copied(page: Page, app: App) -> None:
    open_tab(page, "compare")
    wait_until_quiet(page, app)
    page.locator("#judge-map").click()
    rows = page.locator("#ls-board tr[data-entry]")
    expect(rows.nth(2)).to_contain_text("×", timeout=LONG)
    wait_until_quiet(page, app)

    def column(place: int) -> list[str]:
        return rows.locator(f":nth-child({place})").all_inner_texts()

    # Nobody has measured speed or writing, and all were judged alike: three columns that say nothing, named below the table.
    heads = page.locator("#ls-board th[aria-sort]")
    shown = [head.strip(" ▲▼") for head in heads.all_inner_texts()]
    assert not {"decode speed", "generation", "evaluated on"} & set(shown)
    hint = page.locator("#ls-board .ls-grid .ls-hint")
    expect(hint).to_contain_text("evaluated on evaluation-english, ")
    expect(hint).to_contain_text("decode speed –")

    layers = shown.index("layers") + 1
    page.locator("#ls-board [data-sort=layers]").focus()
    page.keyboard.press("Enter")
    expect(heads.nth(layers - 1)).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("#ls-board [data-sort=layers]")).to_be_focused()
    depths = [int(text) for text in column(layers)]
    assert depths == sorted(depths)
    page.keyboard.press("Enter")
    expect(heads.nth(layers - 1)).to_have_attribute("aria-sort", "descending")
    assert [int(text) for text in column(layers)] == sorted(depths, reverse=True)
    page.locator("#ls-board [data-sort=kl]").click()
    kl = [float(text) for text in column(shown.index("KL") + 1)]
    assert kl == sorted(kl)
    labels = column(1)

    # What is copied stands in the order that is shown.
    page.get_by_role("button", name="Copy as CSV").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = list(csv.DictReader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
    assert [row["plan"] for row in copied] == labels
    assert [round(float(row["kl"]), 3) for row in copied] == kl
    assert {row["judged_texts"] for row in copied} == {"evaluation-english"}
    page.get_by_role("button", name="Copy as Markdown").click()
    page.wait_for_timeout(300)
    head, _, *lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == labels
    assert "judged_texts" not in head

    page.get_by_role("button", name="Show all columns").click()
    assert heads.count() == 10
    page.get_by_role("button", name="Copy as Markdown").click()
    page.wait_for_timeout(300)
    assert "judged_texts" in page.evaluate("navigator.clipboard.readText()").splitlines()[0]

    # Judged by another protocol, a row is told from the others.
    page.get_by_role("button", name="Hide columns that are the same").click()
    page.evaluate("document.querySelector('#judge-tokens input[type=range]').value = 1000")
    page.evaluate("document.querySelector('#judge-tokens input[type=range]').dispatchEvent(new Event('input', {bubbles: true}))")
    page.wait_for_timeout(500)
    for what in ("generated samples", "speed and memory"):
        page.locator("#also").get_by_label(what).uncheck()
    page.locator("#judge").click()
    expect(page.locator("#ls-board [data-sort=judged_texts]")).to_be_visible(timeout=LONG)
    assert len(set(column(heads.count()))) == 2


def parsed(line: str) -> None:
    """Let the terminal read a line's options without running it; a mistake in them raises."""
    words = shlex.split(line)
    assert words[0] == "layerscope"
    group = typer.main.get_command(terminal)
    group.commands[words[1]].make_context(words[1], words[2:])


def test_the_commands_follow_the_controls_and_the_terminal_reads_them(page: Page, app: App) -> None:
    seen: dict[str, list[str]] = {}
    for tab in ("explore", "fold", "search", "compare", "export"):
        open_tab(page, tab)
        page.locator(f"#ls-terminal-{tab} summary").click()
        pre = page.locator(f"#ls-terminal-{tab} pre")
        expect(pre).to_contain_text(" -C 2 -I 1 --lowest 0 --highest 6 " if tab in ("fold", "compare") else "layerscope")
        seen[tab] = pre.inner_text().splitlines()
    for line in (line for lines in seen.values() for line in lines if not line.startswith("#")):
        parsed(line)
        if "repair" not in line:
            assert re.search(r"--model '/\S* ?\S*tiny llama'", line), line
    assert " -C 2 -I 1 --lowest 0 --highest 6 " in seen["fold"][0]
    assert seen["fold"][0].endswith(" -T 0.5 --out plan.json")

    # T is followed without a question to the server; the others by one.
    open_tab(page, "fold")
    fold = page.locator("#ls-terminal-fold pre")
    wait_until_quiet(page, app)
    asked = len(app.requests)
    set_slider(page, "T", 0.9)
    expect(fold).not_to_contain_text("-T 0.5 ")
    t = page.evaluate("document.querySelector('#T input[type=number]').value")
    expect(fold).to_contain_text(f"-T {t} ")
    assert app.requests[asked:] == []
    set_slider(page, "C", 3)
    expect(fold).to_contain_text(" -C 3 ")
    page.locator("#ls-terminal-fold .ls-button").click()
    page.wait_for_timeout(300)
    assert page.evaluate("navigator.clipboard.readText()") == fold.inner_text()
