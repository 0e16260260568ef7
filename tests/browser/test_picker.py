"""The Model box and what is below it, by hand: mouse, keyboard, touch, in both languages, on a tiny model and a laid-out cache."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from engine.models.devices import device_names
from tests.browser.conftest import App, running
from tests.browser.hands import LONG
from tests.families import save_tiny
from tests.models.test_library import Hub

LINK = "/?C=2&I=1"  # settings that fold these models
GONE = "mps" if "mps" not in device_names() else "cuda:99"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app on a tiny model, beside a Hugging Face cache with one model that opens and one that does not, and one export."""
    folder = tmp_path_factory.mktemp("app")
    hub = Hub(folder / "home")
    hub.add("org/small", {path.name: path.read_bytes() for path in save_tiny(folder / "small", "qwen2").iterdir()})
    hub.add("org/<img src=x onerror=alert(1)>", {"config.json": {"model_type": "bert"}, "model.safetensors": b"x"})
    made = save_tiny(folder / "exports" / "made", "llama", seed=1)
    (made / "layerscope.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(folder / "home"))
        patch.setenv("LAYERSCOPE_CACHE", str(folder / "cache"))
        with running(folder, "--model", save_tiny(folder / "tiny", "llama")) as started:
            yield started


def box(page: Page) -> Locator:
    return page.locator("#model input, #model textarea")


def option(page: Page, name: str) -> Locator:
    return page.locator(".ls-option").filter(has=page.locator("b", has_text=name))


def opened(page: Page, name: str) -> None:
    expect(page.locator("#ls-spec .ls-name")).to_have_text(name, timeout=LONG)


def test_models_are_picked_by_mouse_and_by_keys_and_what_is_typed_still_opens(page: Page, app: App) -> None:
    page.goto(app.url + LINK)
    opened(page, "tiny")
    button, shown = page.get_by_role("button", name="Models on this machine"), page.locator(".ls-options")

    # The list: groups, sizes, what cannot be opened with its reason. It lies over what is below it, and nothing moves.
    before = page.locator("#open").bounding_box()
    button.click()
    expect(shown).to_be_visible()
    expect(option(page, "tiny")).to_be_visible()
    assert page.locator("#open").bounding_box() == before
    assert shown.locator(".ls-group").all_inner_texts() == ["Demo", "Recently opened", "Exported here", "In the Hugging Face cache"]
    bert = option(page, "img src")
    expect(bert).to_have_attribute("aria-disabled", "true")
    expect(bert).to_contain_text("models of type 'bert' are not supported; supported types:")
    assert page.locator("img[src=x]").count() == 0
    bert.click(force=True)  # playwright, too, sees that it is disabled
    expect(shown).to_be_visible()  # it cannot be picked
    assert box(page).input_value() == str(app.exports.parent / "tiny")

    # By mouse: it stands in the box, and Enter opens it.
    option(page, "made").click()
    expect(shown).to_be_hidden()
    expect(box(page)).to_have_value(str(app.exports / "made"))
    opened(page, "tiny")
    page.keyboard.press("Enter")
    opened(page, "made")

    # By keys alone, narrowed by what is typed; one that is greyed is not taken.
    box(page).focus()
    page.keyboard.press("ArrowDown")
    expect(shown).to_be_visible()
    expect(box(page)).to_have_attribute("aria-expanded", "true")
    expect(shown.locator(".ls-option b").nth(1)).to_have_text("made")  # the last one opened comes first
    box(page).fill("org/")
    expect(shown.locator(".ls-option")).to_have_count(2)
    for _ in range(2):
        page.keyboard.press("ArrowDown")
        active = box(page).get_attribute("aria-activedescendant")
        if "org/small" in page.locator(f"#{active}").inner_text():
            break
    expect(page.locator(f"#{active}")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(box(page)).to_have_value("hub:org/small")
    expect(shown).to_be_hidden()
    page.keyboard.press("Enter")
    opened(page, "org/small")
    assert "model=hub" in page.url

    # Typed, as ever, once the new model's sliders have come to rest: with the list closed or open, Enter and Open take what is in the box.
    expect(page.locator("#ls-status .ls-job")).to_have_text("Ready", timeout=LONG)
    page.wait_for_timeout(1000)
    for wrong in ("/no/such/folder", "/no/other/folder"):
        box(page).fill(wrong)
        page.keyboard.press("Enter")
        expect(page.locator("#ls-status .ls-problem")).to_contain_text(f"'{wrong}' does not exist")
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    expect(shown).to_be_hidden()
    box(page).fill(str(app.exports.parent / "tiny"))
    page.locator("#open").click()
    opened(page, "tiny")
    assert app.external() == []


def test_the_device_is_in_the_link_and_one_that_is_gone_opens_nothing(page: Page, app: App) -> None:
    page.goto(app.url + LINK)
    opened(page, "tiny")
    assert "GB free" in page.locator("#device input").input_value()
    page.locator("#open").click()
    expect(page).to_have_url(re.compile("device=cpu"))
    page.goto(f"{app.url}/?device={GONE}")
    expect(page.locator("#ls-status .ls-problem")).to_contain_text(f"there is no device '{GONE}' on this machine")
    assert page.locator("#device input").input_value().startswith("cpu")


def test_the_list_on_a_phone_in_korean(browser: Browser, app: App) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{app.url}/ko{LINK[1:]}&__theme=dark")
    painted = page.locator("#ls-similarity .ls-map .heatmaplayer image").first
    expect(painted).to_be_attached(timeout=LONG)
    page.locator(".sidebar .toggle-button").click()
    page.get_by_role("button", name="이 컴퓨터의 모델").tap()
    expect(option(page, "made")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".ls-options").bounding_box()["x"] >= 0
    expect(option(page, "img src")).to_contain_text("지원하지 않습니다")
    option(page, "made").tap()
    expect(box(page)).to_have_value(str(app.exports / "made"))
    page.locator("#open").tap()
    opened(page, "made")
    context.close()
