"""Eight sessions on one server, in real pages, while one of them searches. Measures how soon the other seven see cached results, whether
a session sees another one's map, whether a waiting page shows the reason, and the memory left six minutes after all sessions closed."""

import os
import statistics
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.bench.lab import Row
from tests.browser.chromium import install
from tests.browser.conftest import ARGUMENTS, App, running
from tests.browser.hands import LONG, open_tab, set_slider, wait_until_ready

SECONDS, GONE = 120, 360
OTHERS, WIDTHS = 7, (6, 7, 8)  # C of the maps that are looked at
VIEW = f"?C={WIDTHS[0]}&I=6#fold"  # folds far apart, whose maps take seconds
QUICK, NEVER, LOOK = 2.0, 60.0, 2.0  # seconds
SHOWN = (
    "() => window.layerscope?.map && document.querySelector('#ls-fold .ls-steps .plot-container') ? window.layerscope.map.settings.C : 0"
)
# For some seconds set C again and again, having looked at what is shown for some more; return after how many seconds each map was
# shown as it was to who looked alone, a minute for never.
VISIT = """([maps, place, seconds, look]) => { window.visited = (async () => {
  const later = (seconds) => new Promise((then) => setTimeout(then, 1000 * seconds)), widths = Object.keys(maps).map(Number);
  const range = document.querySelector('#C input[type=range]'), end = performance.now() + 1000 * seconds, took = [];
  const shown = (C) => window.layerscope.map?.settings.C === C && JSON.stringify(window.layerscope.map.steps) === maps[C];
  for (let turn = place; performance.now() < end; turn += 1) {
    await later(look * (.5 + (7 * turn % 11) / 10)); // from a half to one and a half
    const C = widths[turn % widths.length], began = performance.now();
    range.value = C; range.dispatchEvent(new Event('input', {bubbles: true}));
    while (!shown(C) && performance.now() - began < 60000) await later(.01);
    took.push((performance.now() - began) / 1000);
  }
  return took; })(); }"""
STEPS = "() => JSON.stringify(window.layerscope.map.steps)"


def server(row: Row, folder: Path) -> None:
    """Measure it on the demo; about fifteen minutes."""
    with running(folder, "--no-browser") as app, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=install(), args=ARGUMENTS)
        faults: list[str] = []
        maps = _alone(chromium, app)
        before = _memory(app)
        pages = [_visitor(chromium, faults) for _ in range(1 + OTHERS)]
        loads = _in(pages, app)
        rushed, _ = _together(pages, maps, 0.0)
        seen, told = _together(pages, maps, LOOK)
        during = _memory(app)
        for page in pages:
            page.close()
        chromium.close()
        print(f"     memory {before / 1e9:.2f} GB before, {during / 1e9:.2f} GB with eight visitors")
        row("a page that comes in, median of eight at once", f"{statistics.median(loads):.1f} s", "report", True)
        late = _late(seen)
        row(
            f"a cached map while one searches, p95 of {len(seen)} by seven who look {LOOK} s",
            f"{late:.2f} s",
            f"<= {QUICK} s",
            late <= QUICK,
        )
        row(f"the same, p95 of {len(rushed)} by seven who never look", f"{_late(rushed):.2f} s", "report", True)
        mixed = sum(seconds >= NEVER for seconds in (*seen, *rushed))
        row("maps of somebody else", str(mixed), "0", not mixed)
        row("who waits for the search is told so", str(told), "1", bool(told))
        faults += [line for line in (folder / "app.log").read_text(encoding="utf-8").splitlines() if "Error" in line or "Traceback" in line]
        row("errors in pages, answers and the log", f"{len(faults)} {faults[:2] or ''}", "0", not faults)
        time.sleep(GONE)
        after = _memory(app)
        row(f"memory {GONE} s after they left / before", f"{after / before:.2f}", "<= 1.10", after <= 1.1 * before)


def _alone(chromium: Browser, app: App) -> dict[int, str]:
    """Visit alone, so that every map is cached; return the maps."""
    page, maps = _visitor(chromium, []), {}
    page.goto(f"{app.url}/{VIEW}")
    expect(page.locator("#ls-fold .ls-steps .plot-container").first).to_be_attached(timeout=LONG)
    for width in WIDTHS:
        set_slider(page, "C", width)
        page.wait_for_function(f"window.layerscope.map?.settings.C === {width}", timeout=LONG)
        page.wait_for_timeout(1000)
        wait_until_ready(page)
        maps[width] = page.evaluate(STEPS)
    page.close()
    return maps


def _visitor(chromium: Browser, faults: list[str]) -> Page:
    """Return the page of a browser of its own: one browser opens six connections to a server, and a page keeps one."""
    page = chromium.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB").new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("response", lambda answer: faults.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    return page


def _in(pages: list[Page], app: App) -> list[float]:
    """Let all come in at once; return the seconds until each is shown a map."""
    began, waiting, loads = time.monotonic(), list(pages), []
    for page in pages:
        page.goto(f"{app.url}/{VIEW}", wait_until="commit")
    while waiting:
        for page in [page for page in waiting if page.evaluate(SHOWN)]:
            waiting.remove(page)
            loads.append(time.monotonic() - began)
    return loads


def _together(pages: list[Page], maps: dict[int, str], look: float) -> tuple[list[float], int]:
    """Let the first search and the second judge, and the seven ask for map after map for two minutes, each looking at what he got for so
    many seconds; return how many seconds each map took, and how often somebody was told that he waits for the search."""
    first, *others = pages
    wait_until_ready(first)
    open_tab(first, "search")
    set_slider(first, "search-seconds", 4 * SECONDS)
    first.locator("#search-button").click()
    expect(first.locator("#ls-status .ls-job")).to_contain_text("Search", timeout=LONG)
    open_tab(others[0], "compare")
    others[0].locator("#judge").click()
    for place, page in enumerate(others):
        page.evaluate(VISIT, [{str(width): shown for width, shown in maps.items()}, place, SECONDS, look])
    told, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        told += "Waiting for another tab" in others[0].locator("#ls-status .ls-detail").inner_text()
        others[0].wait_for_timeout(5000)
    seen = [seconds for page in others for seconds in page.evaluate("window.visited")]
    assert "Search" in first.locator("#ls-status .ls-job").inner_text(), "the search was over before the others had looked"
    first.locator("#cancel").click()
    wait_until_ready(first)
    return seen, told


def _late(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.95 * len(seconds))]


def _memory(app: App) -> int:
    """Return what the server's process holds, in bytes."""
    pages = int(Path(f"/proc/{app.process.pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
