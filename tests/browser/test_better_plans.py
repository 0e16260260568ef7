"""From a search to a judged, repaired plan and a report that opens offline, in one visit; and the board after a restart."""

import re
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import App
from tests.browser.test_journey import LONG, figure, open_tab, set_slider, wait_until_ready


def test_a_better_plan_is_found_judged_repaired_and_reported(page: Page, app: App, browser: Browser, tmp_path: Path) -> None:
    page.goto(app.url)
    expect(page.locator("#ls-fold .ls-waiting, #ls-similarity .ls-map").first).to_be_attached(timeout=LONG)
    wait_until_ready(page)

    # A search shows its best plan so far, with its score and the time; Fold shows the same plan.
    open_tab(page, "search")
    page.locator("#search-amount input").fill("26")
    set_slider(page, "search-seconds", 20)
    page.locator("#search-button").click()
    expect(page.locator("#ls-search .ls-rule")).to_contain_text("Best plan of 26 layers", timeout=LONG)
    wait_until_ready(page)
    expect(page.locator("#ls-search [data-block]")).to_have_count(26)
    assert page.evaluate("document.querySelector('#ls-search .ls-score').data[0].y.length") >= 1
    assert "plan=found" in page.url
    open_tab(page, "fold")
    assert figure(page) == (26, 30)

    # Judged, it is on the board with its perplexity; a click on its row tells the protocol.
    open_tab(page, "compare")
    set_slider(page, "judge-tokens", 500)
    page.wait_for_timeout(500)
    page.locator("#judge").click()
    row = page.locator("#ls-board tr[data-entry]")
    expect(row).to_have_count(1, timeout=30_000)
    expect(row.first).to_contain_text("×", timeout=LONG)
    wait_until_ready(page)
    row.first.click()
    expect(page.locator("#ls-board .ls-details")).to_contain_text("500 tokens")
    ratio = float(re.search(r"×([\d.]+)", row.first.inner_text())[1])
    assert 1 < ratio < 5

    # Repaired, it is better on text that nothing was fitted to.
    open_tab(page, "fold")
    page.locator("#repair-ridge").click()
    expect(page.locator("#ls-repaired")).to_contain_text("Repaired at", timeout=LONG)
    before, after = (float(value) for value in re.findall(r"×([\d.]+)", page.locator("#ls-repaired").inner_text()))
    assert before == ratio
    assert after < before
    expect(page.locator("#ls-fold .ls-repair").first).to_be_attached()
    wait_until_ready(page)

    # The report is one file that needs no network.
    open_tab(page, "compare")
    expect(row).to_have_count(2)
    with page.expect_download(timeout=LONG) as download:
        page.locator("#make-report").click()
    download.value.save_as(tmp_path / "report.html")
    context = browser.new_context()
    context.set_offline(True)
    offline = context.new_page()
    offline.goto((tmp_path / "report.html").as_uri())
    expect(offline.locator("body")).to_contain_text("26")
    expect(offline.locator(".heatmaplayer image").first).to_be_attached(timeout=30_000)
    context.close()

    # A new tab finds the board as it was left.
    other = page.context.browser.new_context().new_page()
    other.goto(app.url)
    expect(other.locator("#ls-board tr[data-entry]")).to_have_count(2, timeout=LONG)
    other.context.close()
    assert app.external() == []
