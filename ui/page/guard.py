"""Access checks on every request, before any of Gradio's routes.

A foreign page in the same browser can send requests to this server: under its own host name that resolves to this machine (DNS rebinding),
or from its own origin. Both are refused. With a password set, requests without a login cookie reach the login page and its assets only,
because some of Gradio's routes do not check the login. Uploads are limited in size, each and in total.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

from starlette.requests import cookie_parser

from ui.text.words import LANGUAGES

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
# Served before login: the pages, which show the login form then, and their assets.
_WAY_IN = {*(path for path, _ in LANGUAGES.values()), "/login", "/login/", "/theme.css", "/favicon.ico", "/gradio_api/startup-events"}
_LOOKS = ("/assets/", "/static/")
LARGEST, ALL = 2 << 30, 8 << 30  # bytes of one upload, and of all uploads together


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a listening address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware. `host` is the listening address; `names` are further host names of this machine."""

    def __init__(self, app: Any, host: str, names: tuple[str, ...] = (), uploads: Path | None = None) -> None:
        self._app, self._uploads, self._local = app, uploads, is_loopback(host)
        own = () if self._local else (socket.gethostname(), socket.getfqdn())
        self._names = {name.lower() for name in (host.strip("[]"), *names, *own)} - {"", "0.0.0.0", "::"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status = 403 if not self._known(headers) else 401 if not _may_enter(scope, headers) else self._too_much(scope, headers)
        if not status:
            return await self._app(scope, _bounded(receive), send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        return await send({"type": "http.response.body", "body": b"refused\n"})

    def _known(self, headers: dict[str, str]) -> bool:
        """Return whether the request names this machine as its host and has no foreign origin."""
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if not self._is_here(_name_in(host)):
            return False
        if origin is not None:
            return origin.lower().partition("://")[2] == host
        elsewhere = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        return not elsewhere or headers.get("sec-fetch-mode") == "navigate"  # a followed link is allowed

    def _is_here(self, name: str) -> bool:
        try:
            address = ipaddress.ip_address(name)  # an IP address cannot be a DNS rebinding name
        except ValueError:
            return name in self._names or name == "localhost"
        return address.is_loopback or not self._local

    def _too_much(self, scope: Scope, headers: dict[str, str]) -> int:
        """Return the HTTP status that refuses a body above the limit (413) or an upload without room (507); 0 for other requests."""
        if scope.get("method") != "POST":
            return 0
        size = headers.get("content-length", "0")
        if not size.isdigit() or int(size) > LARGEST:
            return 413
        if self._uploads is None or not scope["path"].rstrip("/").endswith("/upload"):
            return 0
        there = sum(file.stat().st_size for file in self._uploads.rglob("*") if file.is_file())
        return 507 if there + int(size) > ALL else 0


def _may_enter(scope: Scope, headers: dict[str, str]) -> bool:
    """Return whether a request needs no login, belongs to the login page, or carries a valid login cookie."""
    app: Any = scope.get("app")
    path = scope["path"]
    if getattr(app, "auth", None) is None or path in _WAY_IN or path.startswith(_LOOKS):
        return True
    cookies = cookie_parser(headers.get("cookie", ""))
    return any(cookies.get(f"access-token{kind}-{app.cookie_id}") in app.tokens for kind in ("", "-unsecure"))


def _name_in(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _bounded(receive: Receive) -> Receive:
    """Return a receive function that disconnects once the body exceeds LARGEST bytes, even if the Content-Length header said less."""
    got = 0

    async def bounded() -> Any:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b"")) if message["type"] == "http.request" else 0
        return {"type": "http.disconnect"} if got > LARGEST else message

    return bounded
