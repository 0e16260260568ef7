"""User actions on the page, and reading its content."""

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import App

GROUPS = {
    "explore": "look",
    "importance": "look",
    "fold": "cut",
    "widths": "cut",
    "masks": "cut",
    "search": "cut",
    "compare": "judge",
    "recover": "recover",
    "export": "export",
}
LONG = 900_000  # milliseconds: what is awaited is a state, which comes late where other work has the processors


def figure(page: Page) -> tuple[int, int]:
    """Layers left and layers of the source, as the page states them."""
    left, source = page.locator("#ls-fold .ls-figure b").first.inner_text().split(" / ")
    return int(left), int(source)


def set_slider(page: Page, name: str, value: float) -> None:
    """Move a slider as a hand does: the range input's own event."""
    page.evaluate(
        """([name, value]) => { const range = document.querySelector(`#${name} input[type=range]`); range.value = value;
        range.dispatchEvent(new Event('input', {bubbles: true})); }""",
        [name, value],
    )


def open_tab(page: Page, name: str) -> None:
    tab = page.locator(f"#tab-{name}")
    if not tab.is_visible():  # its group is not the open one, or has no other tab
        page.locator(f"#group-{GROUPS[name]}").click()
    if tab.is_visible():
        tab.click()


def wait_until_ready(page: Page) -> None:
    expect(page.locator("#ls-status .ls-job")).to_have_text(re.compile("^(Ready|준비됨)$"), timeout=LONG)


def wait_until_quiet(page: Page, app: App) -> None:
    """Wait until nothing runs and the page has stopped asking."""
    wait_until_ready(page)
    seen = -1
    while seen != len(app.requests):
        seen = len(app.requests)
        page.wait_for_timeout(1500)
