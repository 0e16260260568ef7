"""Shapes for a budget in a browser, the size and speed of plans with masks, and a plan saved and loaded with its tensors."""

import re
import zipfile
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import App
from tests.browser.hands import LONG, open_tab, set_slider, wait_until_ready

MODEL = ("tiny llama", "llama", 4, {})


def test_a_shape_is_chosen_pruned_timed_saved_and_loaded(page: Page, app: App, tmp_path: Path) -> None:
    page.set_default_timeout(LONG)
    page.goto(app.link("C=2&I=1&L=0&T=1"))
    making = page.locator("#ls-making")
    expect(making).to_contain_text("6 of 6 layers", timeout=LONG)
    wait_until_ready(page)

    open_tab(page, "search")
    expect(page.locator("#ls-shapes .ls-waiting")).to_contain_text("No shape is measured yet")
    set_slider(page, "shapes-measured", 3)
    page.locator("#shapes-button").click()
    rows = page.locator("#ls-shapes tr[data-entry]")
    expect(rows).to_have_count(3, timeout=LONG)
    wait_until_ready(page)
    expect(page.locator("#ls-shapes .ls-rankings")).to_contain_text("Spearman, 3 shapes")
    for chart in ("front", "fast"):  # the front, the points, and the names of two of them or of one that is both
        expect(page.locator(f"#ls-shapes .ls-{chart} .scatterlayer .trace")).to_have_count(3)
        assert {"best by estimate", "largest"} == set(
            ", ".join(page.locator(f"#ls-shapes .ls-{chart} .textpoint").all_text_contents()).split(", ")
        )
    expect(rows.first.locator("td").last).to_have_text(re.compile(r"×\d"))
    layers = rows.nth(1).locator("th").inner_text().split(" ")[0]
    rows.nth(1).focus()
    page.keyboard.press("Enter")
    expect(making).to_contain_text(f"{layers} of 6 layers", timeout=LONG)
    expect(rows.nth(1)).to_have_class("ls-chosen")
    wait_until_ready(page)

    open_tab(page, "masks")
    expect(page.locator("#ls-zeros")).to_have_text("")
    page.locator("#masks-pattern input").click()
    page.get_by_role("option", name="2:4").click()
    page.locator("#prune-button").click()
    expect(page.locator("#ls-zeros")).to_contain_text("neither size nor speed changes", timeout=LONG)
    expect(page.locator("#ls-zeros")).to_contain_text(re.compile(r"decoding ×\d.*over 5 rounds.*weights \d.* kB, source"), timeout=LONG)
    wait_until_ready(page)
    open_tab(page, "search")
    expect(page.locator("#ls-search .ls-hint").first).to_contain_text("removes layers from the whole model")
    open_tab(page, "export")
    expect(page.locator("#ls-summary")).to_contain_text("50 % of the weights are zero (wanda, 2:4)")
    expect(page.locator("#ls-summary")).to_contain_text("Measured on this machine")

    open_tab(page, "recover")
    expect(page.locator("#repair-refused")).to_contain_text("repair the plan before you prune its weights")
    for kind in ("ridge", "scalar", "refit"):
        expect(page.locator(f"#repair-{kind}")).to_be_disabled()

    open_tab(page, "fold")
    page.get_by_text("Save, load").click()
    with page.expect_download() as saving:
        page.locator("#save-plan").click()
    file = tmp_path / saving.value.suggested_filename
    saving.value.save_as(file)
    with zipfile.ZipFile(file) as whole:
        assert [Path(name).suffix for name in whole.namelist()] == [".json", ".safetensors"]
    before = making.inner_text()
    page.locator("input[type=file]").first.set_input_files(file)
    expect(page.locator("#ls-fold .ls-named")).to_contain_text("From a file", timeout=LONG)
    wait_until_ready(page)
    expect(making).to_have_text(before, use_inner_text=True)
