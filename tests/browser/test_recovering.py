"""Recovery in a browser: a run is measured, outlives a reload, goes on, ends early, and its checkpoint opens like any model."""

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import App
from tests.browser.hands import LONG, open_tab, wait_until_ready

MODEL = ("tiny llama", "llama", 3, {})


def fill(page: Page, name: str, value: str) -> None:
    page.locator(f"#learn-{name} :is(input, textarea)").last.fill(value)


def test_a_plan_learns_again_outlives_a_reload_and_becomes_a_model(page: Page, app: App) -> None:
    page.set_default_timeout(LONG)
    page.goto(app.link("C=2&I=1&L=0&plan=hand-made&spans=[[1,3]]", "recover"))
    wait_until_ready(page)
    runs, state = page.locator("#ls-recovery tr[data-entry]"), page.locator("#ls-recovery tr[data-entry] td").first
    expect(page.locator("#ls-recovery")).to_contain_text("No run yet")

    for text in ("text that the source writes", "the bundled practice texts"):
        page.locator("#learn-texts").get_by_text(text).click()
    page.locator("#learn-budget input").click()
    page.get_by_role("option", name="tokens").click()
    fill(page, "amount", "20000000")
    fill(page, "name", "wiser")
    page.locator("#panel-recover").get_by_text("More settings").click()
    page.locator("#learn-length input").wait_for()
    page.wait_for_timeout(300)  # what an accordion holds comes with its first opening
    fill(page, "length", "32")
    page.locator("#learn-measure").click()
    expect(runs).to_have_count(1)
    expect(state).to_have_text("paused", timeout=LONG)
    expect(page.locator("#ls-recovery .ls-where")).to_contain_text(re.compile(r"0 of 20.0 M tokens · .* tokens per second · about .* left"))
    page.reload()
    wait_until_ready(page)
    expect(state).to_have_text("paused")
    assert page.locator("#learn-amount input").input_value() == "20000000"  # what was typed is there too
    page.locator("[data-deed=resume]").click()
    expect(page.locator("#ls-recovery .ls-asked")).to_contain_text("4 of 6 layers of tiny llama, from the bundled practice texts")
    expect(page.locator("#ls-recovery .ls-where")).to_contain_text(
        re.compile(r"Training: step \d+ .* tokens per second · about .* left · peak memory"), timeout=LONG
    )
    expect(page.locator("#ls-status .ls-detail")).to_have_text("wiser is training")
    for chart, curves in (("loss", 1), ("ratios", 2)):
        expect(page.locator(f"#ls-recovery .ls-{chart} .scatterlayer .trace")).to_have_count(curves)
    expect(page.locator("#ls-recovery .ls-spoken li")).to_have_count(1)

    expect(page.locator("[data-deed=pause]")).to_be_enabled()  # pressed in tests/page/test_recovering.py
    page.locator("[data-deed=finish]").click()
    expect(state).to_have_text("done", timeout=LONG)
    expect(page.locator("#ls-recovery .ls-spoken li")).to_have_count(2)

    page.locator("[data-deed=delete]").click()
    expect(page.locator("#ls-recovery [role=alert]")).to_contain_text("Delete the model wiser and all its files?")
    expect(page.locator("[data-deed=keep]")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("[data-deed=open]").click()
    expect(page.locator("#ls-spec .ls-name")).to_have_text("wiser", timeout=LONG)
    wait_until_ready(page)
    open_tab(page, "compare")
    expect(page.locator("#ls-lineage li")).to_have_text(
        [re.compile("^sourcetiny llama6 layers"), re.compile("^plan4 of 6"), re.compile("^retrained"), re.compile("^plan shown")]
    )


def test_a_model_is_sheared_and_its_plan_is_shown(page: Page, app: App) -> None:
    page.set_default_timeout(LONG)
    page.goto(app.link(tab="recover"))
    wait_until_ready(page)
    for text in ("text that the source writes", "the bundled practice texts"):
        page.locator("#learn-texts").get_by_text(text).click()
    page.locator("#shear").get_by_text("Learn what to prune").first.click()
    page.locator("#shear-length input").last.wait_for()
    page.wait_for_timeout(300)  # as above
    for name, value in {"layers": 5, "neurons": 24, "tokens": 2000, "rows": 2, "length": 32}.items():
        page.locator(f"#shear-{name} :is(input, textarea)").last.fill(str(value))
    page.locator("#shear-button").click()
    row = page.locator("#ls-recovery tr[data-entry]", has_text="sheared")
    expect(row.locator("td").first).to_have_text("done", timeout=LONG)
    expect(page.locator("#ls-recovery .ls-asked")).to_contain_text("masks and weights, down to Layers 5, Neurons of each layer 24")
    for chart, curves in (("loss", 1), ("shape", 4), ("undecided", 2), ("multipliers", 4)):
        expect(page.locator(f"#ls-recovery .ls-{chart} .scatterlayer .trace")).to_have_count(curves)
    page.locator("[data-deed=plan]").click()
    expect(page.locator("#ls-making")).to_contain_text("5 of 6 layers", timeout=LONG)
