"""The report in a real browser, from disk, with the network cut."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from engine.types import Model
from tests.export.test_report import PLAN, bare, report_of
from tests.waiting import wait_until

SCHEMES: dict[Any, tuple[str, str]] = {  # paper and ink
    "light": ("rgb(255, 255, 255)", "rgb(29, 33, 39)"),
    "dark": ("rgb(21, 24, 29)", "rgb(232, 234, 238)"),
}
CHARTS = ("cost", "similarity", "influence", "texts", "depths")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Model]) -> dict[str, Path]:
    """A report with everything, one with nothing optional and a Korean one, on disk."""
    folder = tmp_path_factory.mktemp("report")
    made = {"full": report_of(tiny("llama")), "bare": bare(tiny("llama")), "korean": report_of(tiny("llama"), language="ko")}
    for name, page in made.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1200, **options: Any) -> Iterator[Page]:
    """The file's page, offline; a request for anything but the file and an error in a script fail the test."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    context.set_offline(True)
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []

    def guard(route: Route) -> None:
        if route.request.url == path.as_uri():
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    context.route("**/*", guard)
    page.on("request", lambda request: asked.append(request.url) if not request.url.startswith(("file:", "data:", "blob:")) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(path.as_uri())
    page.locator("#all > summary").click()
    page.locator("#similarity .heatmaplayer image").wait_for(state="attached")
    yield page
    context.close()
    assert asked == []
    assert errors == []


@pytest.fixture(scope="module")
def full(browser: Browser, reports: dict[str, Path]) -> Iterator[Page]:
    """The report with everything, opened once; each test leaves all its figures shown."""
    with opened(browser, reports["full"]) as page:
        yield page


def test_it_opens_offline_and_paints_every_chart(full: Page, tmp_path: Path) -> None:
    painted = full.evaluate("document.querySelector('#similarity .heatmaplayer image').href.baseVal")
    assert painted.startswith("data:image/png")
    assert full.locator("#influence .barlayer .point").count() == 6
    assert full.locator("#cost .scatterlayer .point").count() == 2
    assert full.locator("#texts .scatterlayer .point").count() == 4
    assert full.locator("#depths .scatterlayer .js-line").count() == 1
    assert full.locator("#depths .scatterlayer .point").count() == 1
    assert full.locator(".modebar, .modebar-btn, [data-title*='cloud'], [data-title*='Share']").count() == 0
    shown = full.locator("svg.strip:visible")
    assert shown.count() == 1
    assert shown.locator("[data-layer]").count() == PLAN.source_depth
    assert shown.locator("[data-block]").count() == PLAN.depth
    full.screenshot(path=tmp_path / "wide.png", full_page=True)


def test_what_was_not_measured_leaves_no_empty_chart(browser: Browser, reports: dict[str, Path]) -> None:
    with opened(browser, reports["bare"]) as page:
        assert [name for name in CHARTS if page.locator(f"#{name}").count()] == ["similarity", "influence"]
        assert page.locator("#influence .barlayer .point").count() == 6


def test_it_fits_a_phone_in_light_and_dark(browser: Browser, reports: dict[str, Path]) -> None:
    with opened(browser, reports["full"], 390, color_scheme="light") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        for scheme in ("light", "dark", "light"):
            paper, ink = SCHEMES[scheme]
            page.emulate_media(color_scheme=scheme)
            expect(page.locator("#influence .xtitle")).to_have_css("fill", ink)
            expect(page.locator("body")).to_have_css("background-color", paper)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            shown = page.locator("svg.strip:visible")
            assert shown.locator("[data-layer]").count() == PLAN.source_depth


def test_charts_follow_the_width(full: Page) -> None:
    full.set_viewport_size({"width": 500, "height": 800})
    width = full.locator("#depths svg").first
    wait_until(lambda: width.evaluate("(svg) => svg.clientWidth") <= 500)
    assert full.evaluate("document.documentElement.scrollWidth") <= 500
    full.set_viewport_size({"width": 1200, "height": 900})


def pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))


@pytest.mark.parametrize("name", ["full", "korean"])
def test_paper_is_light_and_two_pages_unless_all_figures_are_open(browser: Browser, reports: dict[str, Path], name: str) -> None:
    with opened(browser, reports[name], color_scheme="dark") as page:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator("details:not([open])").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 29)"
        assert page.locator("details[open]").count() == 1
        assert pages(page.pdf(prefer_css_page_size=True, format="A4")) > 4
        page.locator("#all > summary").click()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details[open]").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        for paper in ("A4", "Letter"):
            assert pages(page.pdf(prefer_css_page_size=True, format=paper)) == 2


def test_the_first_view_is_the_verdict_and_the_rest_is_folded_away(full: Page) -> None:
    full.locator("#all > summary").click()
    assert full.locator("#all").get_attribute("open") is None
    assert [part.get_attribute("id") for part in full.locator("section:visible").all()] == ["verdict", "size", "pair", "gains"]
    assert full.locator("#verdict").bounding_box()["y"] < 450
    assert full.locator("#cost .scatterlayer .point").count() == 2
    full.locator("#all > summary").click()
