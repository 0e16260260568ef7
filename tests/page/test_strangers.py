"""Attacks on the real server: every route and event without the password, under foreign host names, from foreign pages, and for files
outside the allowed folders."""

import http.client
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.families import save_tiny
from ui.page.allowed_paths import AllowedPaths
from ui.page.app import Server, serve

NOTHING = {401, 403, 404, 405}
# What is answered before the password: that a page wants one, and how it looks. Not one holds a word of the page itself.
OPEN = {"/", "/ko", "/theme.css", "/favicon.ico", "/login", "/login/", "/gradio_api/startup-events"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
SECRET = "wrong horse battery staple"
UP = ("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "....//", "/", "%2f", "file:///", "")
FILES = ("etc/passwd", "proc/self/environ", "secret.txt")
READERS = (
    *("/gradio_api/file=", "/file=", "/file/", "/gradio_api/file/", "/gradio_api/download/"),
    *("/static/", "/assets/", "/svelte/", "/custom_component/"),
)


@dataclass(frozen=True)
class House:
    """A server with a password, and what Gradio says it answers: pairs of a method and a path, and its events."""

    port: int
    routes: tuple[tuple[str, str], ...]
    events: tuple[dict[str, Any], ...]
    cookie: str

    def ask(self, method: str, path: str, headers: dict[str, str], body: str = "") -> tuple[int, bytes]:
        """Return the status and the body that a request is answered with; of an answer that does not end, its beginning."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            line.putrequest(method, path, skip_host=True)
            for name, value in {"host": f"127.0.0.1:{self.port}", "content-length": str(len(body)), **headers}.items():
                line.putheader(name, value)
            line.endheaders(body.encode())
            answer = line.getresponse()
            return answer.status, answer.read1(100_000)
        finally:
            line.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "secret.txt").write_text(SECRET, encoding="utf-8")
    model = save_tiny(folder / "models" / "tiny", "llama")
    with socket.socket() as probe, pytest.MonkeyPatch.context() as patch:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        patch.setenv("GRADIO_TEMP_DIR", str(folder))  # put back what the server sets
        probe.close()
        server = Server(port=port, auth=("me", "pass"), reach=AllowedPaths((folder / "models",)))
        demo = serve(str(model), server, folder / "exports", browser=False, block=False)
        routes = [(method, _filled(route.path)) for route in _all(demo.app) for method in getattr(route, "methods", None) or {"GET"}]
        empty = House(port, tuple(sorted(set(routes))), tuple(demo.config["dependencies"]), "")
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        line.request(
            "POST", "/login", urlencode({"username": "me", "password": "pass"}), {"content-type": "application/x-www-form-urlencoded"}
        )
        answer = line.getresponse()
        assert answer.status == 200
        cookies = "; ".join(value.partition(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie")
        yield House(port, empty.routes, empty.events, cookies)
        demo.close()


def _all(router: Any) -> Iterator[Any]:
    """Yield a router's routes, and those of the routers in it."""
    for route in router.routes:
        if hasattr(route, "path"):
            yield route
        else:
            yield from _all(route.original_router)


def _filled(path: str) -> str:
    return re.sub(r"\{\w+(:path)?\}", lambda found: "etc/passwd" if found[1] else "x", path)


def test_nobody_is_answered_without_the_password(house: House) -> None:
    assert len(house.routes) > 60
    told = {(method, path): house.ask(method, path, {}) for method, path in house.routes}
    assert {asked for asked, (status, _) in told.items() if status not in NOTHING} <= {
        (method, path) for method, path in told if path in OPEN
    }
    for (method, path), (status, body) in told.items():
        assert b"ls-fold" not in body, (method, path, status)
        assert b'"dependencies":[{' not in body, (method, path, status)


def test_no_event_is_heard_without_the_password(house: House) -> None:
    assert len(house.events) > 80
    for event in house.events:
        asked = json.dumps({"fn_index": event["id"], "data": [], "session_hash": "x", "event_id": "x"})
        for path in ("queue/join", "run/predict", "api/predict", f"call/{event['api_name']}", f"run/{event['api_name']}"):
            for before in ("/gradio_api/", "/"):
                status, body = house.ask("POST", before + path, {"content-type": "application/json"}, asked)
                assert status in NOTHING, (event["id"], path, status, body[:200])


@pytest.mark.parametrize(
    "foreign",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:7860"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ],
)
def test_a_foreign_name_or_page_gets_nothing_even_with_the_password(foreign: dict[str, str], house: House) -> None:
    forms = ("application/json", "multipart/form-data; boundary=x", "text/plain")
    for method, path in house.routes:
        for form in forms if method == "POST" else forms[:1]:
            status, body = house.ask(method, path, {"cookie": house.cookie, "content-type": form, **foreign})
            assert (status, body) in {(403, b"refused\n"), (403, b"")}, (method, path, status)


def test_who_has_the_password_reads_no_file_of_the_machine(house: House, tmp_path: Path) -> None:
    assert house.ask("GET", "/config", {"cookie": house.cookie})[0] == 200
    for reader in READERS:
        for up in UP:
            for file in FILES:
                for times in (1, 8):
                    status, body = house.ask("GET", f"{reader}{up * times}{file}", {"cookie": house.cookie})
                    assert SECRET.encode() not in body
                    assert b"root:" not in body, (reader, up, file)
                    assert b"GRADIO" not in body or status >= 400 or b"<html" in body, (reader, up, file, status)


def test_a_password_that_is_wrong_lets_nobody_in(house: House) -> None:
    for asked in ({"username": "me", "password": "no"}, {"username": "", "password": ""}, {"username": "me"}, {"password": "pass"}):
        assert house.ask("POST", "/login", FORM, urlencode(asked))[0] >= 400
    for cookie in ("access-token=x", "access-token-unsecure=x", "access-token=; access-token-unsecure="):
        assert house.ask("GET", "/config", {"cookie": cookie})[0] == 401
