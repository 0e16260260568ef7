"""Importance, Width and Weights in a browser: measured, cut, pruned, and exported as one plan."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Page, expect

from engine.methods.width.settings import TrimSettings
from engine.methods.width.widths import kept_for_parameters
from engine.plans.rules import untouched
from engine.types import Model
from tests.browser.conftest import App
from tests.browser.hands import LONG, open_tab, set_slider, wait_until_quiet, wait_until_ready
from tests.families import save_tiny

MODEL = ("tiny qwen3", "qwen3", 1, {})


def made(page: Page) -> str:
    return page.locator("#ls-making").inner_text()


def test_a_plan_of_three_parts_is_made_and_exported(page: Page, app: App) -> None:
    page.set_default_timeout(LONG)
    page.goto(app.link("C=2&I=1&L=0&T=1"))
    wait_until_ready(page)
    expect(page.locator("#ls-making")).to_contain_text("6 of 6 layers", timeout=LONG)
    assert re.findall("full width|no mask", made(page)) == ["full width", "no mask"]

    open_tab(page, "importance")
    expect(page.locator("#ls-importance .ls-hint")).to_contain_text("Nothing is measured yet")
    page.locator("#measure-score").click()
    heat = page.locator("#ls-importance .ls-map .heatmaplayer image")
    expect(heat).to_have_count(1, timeout=LONG)
    wait_until_ready(page)
    page.locator("#ls-importance .ls-map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#ls-importance .ls-one-unit")).to_contain_text("With only this head zeroed: perplexity ×", timeout=LONG)
    expect(page.locator("#ls-importance .ls-one-unit")).to_contain_text(re.compile("Role: (mixed|diffuse|previous|first|induction)"))
    wait_until_ready(page)

    # Size follows the sliders without the server; an illegal shape cannot be trimmed.
    open_tab(page, "widths")
    trim = page.locator("#trim-button")
    expect(trim).to_be_disabled()
    before = page.locator("#ls-widths .ls-figure b").nth(1).inner_text()
    expect(page.locator("#ls-trim-times")).to_contain_text("Trim: ", timeout=LONG)  # asked for once
    wait_until_quiet(page, app)
    asked = len(app.requests)
    set_slider(page, "width-neurons", 24)
    set_slider(page, "width-heads", 2)
    expect(page.locator("#ls-widths .ls-figure b").nth(1)).not_to_have_text(before)
    expect(page.locator("#ls-widths .ls-picture")).to_contain_text("MLP, 24 of 48 neurons")
    assert app.requests[asked:] == []
    expect(trim).to_be_enabled()
    trim.click()
    expect(page.locator("#ls-making")).to_contain_text("2 of 4 query heads, 24 of 48 neurons", timeout=LONG)
    wait_until_ready(page)

    open_tab(page, "masks")
    set_slider(page, "masks-sparsity", 0.5)
    page.locator("#prune-button").click()
    expect(page.locator("#ls-making")).to_contain_text("50 % of the weights are zero (wanda)", timeout=LONG)
    wait_until_ready(page)
    expect(page.locator("#ls-making")).to_contain_text("×")

    page.reload()  # the plan stays
    expect(page.locator("#ls-making")).to_contain_text("24 of 48 neurons", timeout=LONG)
    open_tab(page, "export")
    page.locator("#export-name input, #export-name textarea").fill("lab")
    page.locator("#export-button").click()
    expect(page.locator("#ls-report .ls-verdict")).to_contain_text("verified", timeout=LONG)
    expect(page.locator("#ls-report")).to_contain_text("Every tensor has the plan's shape")

    page.locator("#model input, #model textarea").fill(str(Path(app.exports) / "lab"))
    page.locator("#open").click()
    expect(page.locator("#ls-spec")).to_contain_text("lab", timeout=LONG)
    wait_until_ready(page)
    open_tab(page, "widths")
    expect(page.locator("#ls-widths .ls-picture")).to_contain_text("MLP, 24 of 24 neurons", timeout=LONG)
    expect(page.locator("#ls-making")).to_contain_text("full width")


def axis(page: Page, name: str) -> None:
    page.locator("#axis input").click()
    page.get_by_role("option", name=name).click()
    expect(page.locator("#ls-importance .ls-says")).to_have_text("")  # of this axis nothing is measured yet


def measure(page: Page) -> None:
    page.locator("#measure-score").click()
    expect(page.locator("#ls-importance .ls-says")).to_contain_text("Scores from 50", timeout=LONG)
    wait_until_ready(page)


def keys(page: Page, *names: str) -> None:
    page.locator("#ls-importance .ls-map").focus()
    for name in names:
        page.keyboard.press(name)


def test_what_is_opened_on_importance(page: Page, app: App) -> None:
    """A neuron by keyboard and by a click on the curve, a layer's heads, a projection's scores, the stream's directions."""
    page.set_default_timeout(LONG)
    page.goto(app.link("C=2&I=1&L=0&T=1"))
    wait_until_ready(page)
    open_tab(page, "importance")
    set_slider(page, "lab-tokens", 500)
    expect(page.locator("#ls-importance-times")).to_contain_text(
        re.compile(r"for 50\d practice tokens: Measure this score: \d"), timeout=LONG
    )
    lab, unit = page.locator("#ls-importance"), page.locator("#ls-importance .ls-one-unit")

    axis(page, "Neurons of the MLP")
    measure(page)
    keys(page, "ArrowDown", "ArrowDown", "ArrowRight", "PageDown", "Enter")
    expect(lab.locator(".ls-says")).to_contain_text("Rank 7: neuron ")  # the second, and a tenth of 48 more
    chosen = re.search(r"Rank 7: neuron (\d+)", lab.locator(".ls-says").inner_text())
    assert chosen
    expect(unit.locator("h4")).to_have_text(f"Layer 2, neuron {chosen[1]}", timeout=LONG)
    expect(unit).to_contain_text("With only this neuron zeroed: perplexity ×", timeout=LONG)
    expect(unit.locator(".ls-excited li")).to_have_count(8)
    expect(unit.locator(".ls-excited li").first).to_have_text(re.compile(r"^[+−]\d+\.\d\d"))
    wait_until_ready(page)
    drawn = lab.locator(".ls-map .nsewdrag").first.bounding_box()
    assert drawn
    page.mouse.click(drawn["x"] + drawn["width"] / 2, drawn["y"] + drawn["height"] / 2)
    expect(lab.locator(".ls-says")).to_contain_text(re.compile("Rank 2[3-6]: neuron "))
    expect(unit.locator("h4")).not_to_have_text(f"Layer 2, neuron {chosen[1]}", timeout=LONG)
    expect(unit).to_contain_text("With only this neuron zeroed: perplexity ×", timeout=LONG)
    wait_until_ready(page)

    axis(page, "Query heads")
    measure(page)
    keys(page, "ArrowRight", "Enter")
    expect(unit.locator("h4")).to_have_text("Layer 1, head 0", timeout=LONG)
    expect(unit).to_contain_text("With only this head zeroed", timeout=LONG)
    expect(lab.locator(".ls-agree")).to_be_hidden()  # one head is no ranking
    unit.get_by_role("button", name="Measure every head of layer 1").click()
    expect(lab.locator(".ls-agreement")).to_contain_text("weighted · measured loss (4 measured)", timeout=LONG)
    expect(unit.locator(".ls-losses .scatterlayer .point")).to_have_count(4)
    wait_until_ready(page)

    axis(page, "Weights")
    measure(page)
    expect(unit).to_be_hidden()
    keys(page, "ArrowDown", "ArrowRight")
    opened = lab.locator(".ls-one-projection")
    expect(opened.locator("h4")).to_have_text("self_attn.k_proj of layer 1")
    expect(opened).to_contain_text("50 % of this projection's weights score below")
    expect(opened.locator(".barlayer .point")).to_have_count(48)

    open_tab(page, "widths")
    set_slider(page, "width-channels", 24)
    open_tab(page, "importance")
    axis(page, "Channels of the residual stream")
    measure(page)
    expect(lab.locator(".ls-one-stream")).to_contain_text(re.compile(r"24 of 32 principal directions keep (9\d|100) %"), timeout=LONG)
    expect(lab.locator(".ls-one-stream")).to_contain_text("needs custom code")


def test_the_neurons_follow_a_target_and_widths_get_their_costs(page: Page, app: App, tiny: Callable[..., Model], tmp_path: Path) -> None:
    shallow = {"num_hidden_layers": 3}
    model, whole = tiny("llama", **shallow), untouched(3)
    most = [kept_for_parameters(model, whole, kept, 25_000).neurons for kept in (TrimSettings(), TrimSettings(heads=2))]
    page.set_default_timeout(LONG)
    page.goto(replace(app, model=save_tiny(tmp_path / "narrow", "llama", **shallow)).link("C=2&I=1&L=0&T=1"))
    expect(page.locator("#ls-spec")).to_contain_text("narrow", timeout=LONG)
    wait_until_ready(page)
    open_tab(page, "widths")
    target(page, "maximum million parameters")
    amount, neurons = (page.locator(f"#width-{name} input[type=number]") for name in ("amount", "neurons"))
    expect(amount).to_have_value("0.03287")  # what there is, rounded up
    expect(neurons).to_have_value("48")
    expect(page.locator("#ls-trim-times")).to_contain_text("Trim: ", timeout=LONG)  # asked for once
    wait_until_quiet(page, app)
    asked = len(app.requests)
    amount.fill("0.025")
    said = page.locator("#ls-widths .ls-says")
    expect(said).to_contain_text(f"0.025 M parameters allows at most {most[0]} of 48 neurons per layer")
    expect(neurons).to_have_value(str(most[0]))
    expect(page.locator("#trim-button")).to_be_enabled()
    set_slider(page, "width-heads", 2)  # what else is cut leaves room for more neurons
    expect(neurons).to_have_value(str(most[1]))
    amount.fill("0.01")
    expect(said).to_contain_text("Pruning neurons alone cannot reach 0.01 M parameters: one neuron per layer still leaves")
    expect(page.locator("#trim-button")).to_be_disabled()
    assert app.requests[asked:] == []
    set_slider(page, "width-neurons", 24)  # a hand takes the slider back
    expect(page.locator("#width-by input")).to_have_value("by sliders")
    expect(amount).to_be_hidden()
    expect(page.locator("#trim-button")).to_be_enabled()

    page.locator("#width-curves").click()
    expect(page.locator("#ls-widthcosts .ls-width-neurons .legendtext")).to_have_count(4, timeout=LONG)
    wait_until_ready(page)
    for axis, scores in (("heads", 3), ("channels", 2)):
        expect(page.locator(f"#ls-widthcosts .ls-width-{axis} .legendtext")).to_have_count(scores)


def target(page: Page, name: str) -> None:
    page.locator("#width-by input").click()
    page.get_by_role("option", name=name, exact=True).click()
