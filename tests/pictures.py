"""The documentation's pictures, taken of the real page on the demo: `python -m tests.pictures` writes docs/pictures.

A picture is a row of PICTURES: its name, the tab it shows, and the actions before it is taken.
"""

import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from engine.cache import cache_folder
from tests.browser.chromium import install
from tests.browser.conftest import ARGUMENTS, running
from tests.browser.hands import open_tab, set_slider

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
LINK = "/?C=2&I=1&L=20&T=0.9"  # folds of the upper layers alone, so that the map is soon whole
LONGEST = 1800  # seconds that anything may take
# The folder of this run, in texts that are shown, becomes the one that a reader has.
SHORTEN = """(folder) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(`${folder}/`, "");
}"""
SIZE = {"width": 1440, "height": 900}


def settle(page: Page) -> None:
    """Wait until the page has been ready for four seconds."""
    calm = 0
    for _ in range(LONGEST):
        page.wait_for_timeout(1000)
        calm = calm + 1 if page.locator("#ls-status .ls-job").inner_text().startswith("Ready") else 0
        if calm == 4:
            return
    raise TimeoutError(page.locator("#ls-status").inner_text())


def trim(page: Page) -> None:
    """Move the neurons; size follows."""
    set_slider(page, "width-neurons", 1152)


def judge(page: Page) -> None:
    """Judge the plan shown, on few tokens, without writing and speed."""
    checked = page.locator("#also input:checked")
    while checked.count():
        checked.first.uncheck()
    set_slider(page, "judge-tokens", 1000)
    page.locator("#judge").click()


def export(page: Page) -> None:
    """Export the plan shown, and wait for its checks."""
    page.locator("#export-name textarea, #export-name input").first.fill("smaller")
    page.locator("#export-button").click()


PICTURES: tuple[tuple[str, str, Callable[[Page], None] | None], ...] = (
    ("explore", "explore", None),
    ("fold", "fold", None),
    ("width", "widths", trim),
    ("compare", "compare", judge),
    ("recover", "recover", None),
    ("export", "export", export),
)


def small(picture: bytes) -> Image.Image:
    """Return a picture in so few colours that it takes little room."""
    return Image.open(io.BytesIO(picture)).convert("RGB").quantize(96, dither=Image.Dither.NONE)


def main() -> None:
    """Take all pictures, or those that are named."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("LAYERSCOPE_CACHE", str(cache_folder()))
    with (
        tempfile.TemporaryDirectory(prefix="layerscope-") as folder,
        running(Path(folder), "--no-browser") as app,
        sync_playwright() as playwright,
    ):
        page = playwright.chromium.launch(executable_path=install(), args=ARGUMENTS).new_page(viewport=SIZE, locale="en-GB")
        page.goto(app.url + LINK)
        settle(page)
        for name, tab, act in PICTURES:
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            open_tab(page, tab)
            if act:
                act(page)
            settle(page)
            page.evaluate(SHORTEN, folder)
            page.evaluate("scrollTo(0, 0)")
            page.mouse.move(0, 0)
            small(page.screenshot()).save(FOLDER / f"{name}.png", optimize=True)
            print(f"{name}.png: {(FOLDER / f'{name}.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
