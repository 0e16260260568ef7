"""The real page in a real browser: the app in its own process, Chromium from the system."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from engine.jobs import drain
from engine.methods.depth.baselines import plan_of_kept
from engine.models.loading import resolve
from engine.models.sources import parse_source
from tests.browser.chromium import install
from tests.exporting import export_unverified
from tests.families import save_tiny

# The command, but that its long jobs do not wait for all else that runs on the machine: the other tests of this run.
APP = "import ui.page.bench.jobs as jobs; jobs._NICE = 0; from ui.terminal.cli import main; main()"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]


@dataclass
class App:
    """A running app: its address, its export folder, how it is started, every address any page asked for, and the model its links open."""

    url: str
    exports: Path
    start: Callable[[], subprocess.Popen[bytes]]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)  # each time
    requests: list[str] = field(default_factory=list)
    model: Path | None = None  # or the one that it was started with

    def link(self, query: str = "", tab: str = "", language: str = "") -> str:
        """Return the address of a view of the page."""
        opened = [f"model={quote(str(self.model))}"] if self.model else []
        asked = "&".join([*opened, *filter(None, [query])])
        return f"{self.url}/{language}{asked and '?' + asked}{tab and '#' + tab}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that runs."""
        return self.started[-1]

    def stop(self) -> None:
        """End it; a second time does nothing."""
        self.process.terminate()
        self.process.wait(20)

    def begin(self) -> None:
        """Start it, the first time or again, and wait until it answers."""
        self.started.append(self.start())
        for _ in range(1000):
            try:
                urllib.request.urlopen(self.url, timeout=2).close()
                break
            except OSError:
                assert self.process.poll() is None, (self.exports.parent / "app.log").read_text()
                time.sleep(0.25)

    def external(self) -> list[str]:
        """Requests that left this machine."""
        return [url for url in self.requests if not url.startswith((self.url, "data:", "blob:", self.url.replace("http", "ws")))]


def asks(url: str) -> bool:
    """False for what is in the page itself, and for its look at whether the server still answers."""
    return not url.startswith(("blob:", "data:")) and not url.endswith("/app_id")


@contextmanager
def running(folder: Path, *arguments: object) -> Iterator[App]:
    """Start the app with more arguments, at a free port; exports, log and cache (but for converted models) go below `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    exports, cache = folder / "exports", folder / "cache"  # in another file's cache its board and measurements would be found
    command = [sys.executable, "-c", APP, "app", "--no-browser", "--port", str(port), "--exports", str(exports), *map(str, arguments)]
    if not cache.exists():
        cache.mkdir()
        (cache / "converted").symlink_to(Path(os.environ["LAYERSCOPE_CACHE"]) / "converted")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "LAYERSCOPE_CACHE": str(cache)}

    def start() -> subprocess.Popen[bytes]:
        with (folder / "app.log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    app = App(f"http://127.0.0.1:{port}", exports, start)
    try:
        app.begin()
        yield app
    finally:
        app.stop()


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model that is quicker than the demo: its first 10 layers and its last 2, in bfloat16."""
    source = parse_source("demo")
    folder, _ = drain(resolve(source))
    plan = plan_of_kept(30, [*range(10), 28, 29], "short")
    return export_unverified(source, folder, plan, tmp_path_factory.mktemp("models") / "short", dtype="bfloat16")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app that the files with a MODEL share as far as one process runs them, on a model that none of them opens."""
    with running(tmp_path_factory.mktemp("app"), "--model", save_tiny(tmp_path_factory.mktemp("models") / "first", "llama", 99)) as started:
        yield started


@pytest.fixture(scope="module")
def app(request: pytest.FixtureRequest, shared: App, tmp_path_factory: pytest.TempPathFactory) -> App:
    """The shared app, whose links open the tiny model that a file's MODEL describes; its seed is the file's own, so that nobody else has
    measured or judged anything of it."""
    name, family, seed, changes = request.module.MODEL
    return replace(shared, model=save_tiny(tmp_path_factory.mktemp("models") / name, family, seed, **changes))


@pytest.fixture(scope="session")
def driver() -> Iterator[Playwright]:
    """What drives Chromium."""
    expect.set_options(timeout=180_000)  # no time is tested here, and the machine may be busy
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def browser(driver: Playwright) -> Iterator[Browser]:
    """Chromium, headless, for visitors who have nothing in common with the others: phones, new machines, no network."""
    chromium = driver.chromium.launch(executable_path=install(), args=ARGUMENTS)
    yield chromium
    chromium.close()


@pytest.fixture(scope="session")
def context(driver: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """Where pages are opened, with a profile on disk: there the browser keeps what it has compiled of the page's scripts, which takes a
    third of a page's time. A visitor is a tab (see assets/js/state.js), so that each of them is a new one nevertheless."""
    opened = driver.chromium.launch_persistent_context(
        tmp_path_factory.mktemp("profile"),
        executable_path=install(),
        args=ARGUMENTS,
        viewport={"width": 1440, "height": 900},
        locale="en-GB",
        accept_downloads=True,
    )
    opened.set_default_timeout(180_000)
    yield opened
    opened.close()


@contextmanager
def visit(context: BrowserContext, app: App) -> Iterator[Page]:
    """A new visitor's page; an error in its scripts fails the test. When it closes its jobs end, which would outlive it for minutes."""
    opened = context.new_page()
    errors: list[str] = []
    opened.on("request", lambda request: app.requests.append(request.url) if asks(request.url) else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if "js_on_load" in message.text else None)
    yield opened
    if (stop := opened.locator("#cancel")).is_visible() and stop.is_enabled():
        stop.dispatch_event("click")  # a dialog may lie over it
        opened.wait_for_timeout(300)
    opened.close()
    assert not errors, errors


@pytest.fixture
def page(context: BrowserContext, app: App) -> Iterator[Page]:
    """A visitor's page for one test."""
    with visit(context, app) as opened:
        yield opened


@pytest.fixture(scope="module")
def same_page(context: BrowserContext, app: App) -> Iterator[Page]:
    """One visitor's page for the tests of a file, which spares the seconds of a processor that opening it takes."""
    with visit(context, app) as opened:
        yield opened
