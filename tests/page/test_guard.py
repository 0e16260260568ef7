"""The page's server refuses every request under a foreign host name or from a foreign page, on every route."""

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from ui.page import guard
from ui.page.guard import Guard, is_loopback


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


def client(host: str, uploads: Path | None = None, names: tuple[str, ...] = ()) -> TestClient:
    routes = [Route("/{path:path}", echo, methods=["GET", "POST"]), WebSocketRoute("/ws", talk)]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, host=host, names=names, uploads=uploads)])
    return TestClient(app, base_url="http://127.0.0.1:7860")


HERE = {"host": "127.0.0.1:7860"}
CASES: list[tuple[str, dict[str, str], bool]] = [
    ("127.0.0.1", HERE, True),
    ("127.0.0.1", {"host": "localhost:7860"}, True),
    ("127.0.0.1", {"host": "[::1]:7860"}, True),
    ("127.0.0.1", {"host": "evil.example:7860"}, False),  # rebinding
    ("127.0.0.1", {"host": "192.168.1.7:7860"}, False),
    ("127.0.0.1", {"host": "127.0.0.1.evil.example"}, False),
    ("127.0.0.1", {"host": ""}, False),
    ("127.0.0.1", {**HERE, "origin": "http://127.0.0.1:7860"}, True),
    ("127.0.0.1", {**HERE, "origin": "http://127.0.0.1:8888"}, False),  # another program of this machine
    ("127.0.0.1", {**HERE, "origin": "https://evil.example"}, False),
    ("127.0.0.1", {**HERE, "origin": "null"}, False),
    ("127.0.0.1", {**HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),  # a picture on a foreign page
    ("127.0.0.1", {**HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),  # a link on it
    ("127.0.0.1", {**HERE, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, True),
    ("0.0.0.0", {"host": "192.168.1.7:7860"}, True),
    ("0.0.0.0", {"host": "evil.example"}, False),
    ("0.0.0.0", {"host": "scope.example"}, False),
    ("10.0.0.5", {"host": "10.0.0.5:7860", "origin": "http://10.0.0.5:7860"}, True),
]


@pytest.mark.parametrize(("host", "headers", "answered"), CASES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_foreign_names_and_origins_get_nothing(method: str, host: str, headers: dict[str, str], answered: bool) -> None:
    answer = client(host).request(method, "/gradio_api/anything", headers=headers)
    assert (answer.status_code, answer.text) == ((200, "0") if answered else (403, "refused\n"))


def test_a_name_that_was_given_is_the_machines_own() -> None:
    assert client("0.0.0.0", names=("scope.example",)).get("/", headers={"host": "scope.example"}).status_code == 200


def test_multipart_from_a_foreign_page_is_refused_though_no_browser_asks_first() -> None:
    answer = client("127.0.0.1").post("/gradio_api/upload", files={"files": b"x"}, headers={**HERE, "origin": "http://evil.example"})
    assert answer.status_code == 403


def test_websockets_are_guarded_too() -> None:
    with client("127.0.0.1").websocket_connect("/ws", headers=HERE):
        pass
    with (
        pytest.raises(WebSocketDisconnect),
        client("127.0.0.1").websocket_connect("/ws", headers={**HERE, "origin": "http://evil.example"}),
    ):
        pass


def test_uploads_are_bounded_one_and_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LARGEST", 100)
    monkeypatch.setattr(guard, "ALL", 150)
    asks = client("127.0.0.1", tmp_path)

    def sent(size: int, **headers: str) -> Any:
        return asks.post("/gradio_api/upload", content=b"x" * size, headers={**HERE, **headers}).status_code

    assert sent(100) == 200
    assert sent(101) == 413
    assert sent(1, **{"content-length": "x"}) == 413
    (tmp_path / "there").write_bytes(b"x" * 60)
    assert sent(90) == 200
    assert sent(91) == 507


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.9.1"])
def test_some_addresses_are_reached_from_this_machine_alone(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.2", "example.com", ""])
def test_all_others_are_reached_from_elsewhere(host: str) -> None:
    assert not is_loopback(host)
