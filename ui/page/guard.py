"""Who may ask the page's server for anything: seen before any of Gradio's routes, of every request alike.

A page of somebody else, open in the same browser, can send requests to this machine: under a name of its own that it lets point here (DNS
rebinding), or from its own origin. Neither gets an answer. Where there is a password, who has not said it is answered on the way to it
alone: some of Gradio's routes would not ask. What is uploaded is bounded, one and all.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.requests import cookie_parser

from ui.text.words import LANGUAGES

Scope, Receive, Send = MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]
# What is answered before the password: the pages, which ask for it then, and how they look.
_WAY_IN = {*(path for path, _ in LANGUAGES.values()), "/login", "/login/", "/theme.css", "/favicon.ico", "/gradio_api/startup-events"}
_LOOKS = ("/assets/", "/static/")
LARGEST, ALL = 2 << 30, 8 << 30  # bytes of one upload, and of all that are there


def is_loopback(host: str) -> bool:
    """Return whether an address to listen at is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware. `host` is the address that is listened at; `names` are those that the machine is also known by."""

    def __init__(self, app: Any, host: str, names: tuple[str, ...] = (), uploads: Path | None = None) -> None:
        self._app, self._uploads, self._local = app, uploads, is_loopback(host)
        own = () if self._local else (socket.gethostname(), socket.getfqdn())
        self._names = {name.lower() for name in (host.strip("[]"), *names, *own)} - {"", "0.0.0.0", "::"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that it is refused."""
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
        """Return whether a request names this machine, and comes from a page of this server or from no page at all."""
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if not self._is_here(_name_in(host)):
            return False
        if origin is not None:
            return origin.lower().partition("://")[2] == host
        elsewhere = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        return not elsewhere or headers.get("sec-fetch-mode") == "navigate"  # a link that somebody followed

    def _is_here(self, name: str) -> bool:
        try:
            address = ipaddress.ip_address(name)  # a number is no name that could be let point here
        except ValueError:
            return name in self._names or name == "localhost"
        return address.is_loopback or not self._local

    def _too_much(self, scope: Scope, headers: dict[str, str]) -> int:
        """Return the status that refuses an upload which is too large, or finds no room; 0 for all else."""
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
    """Return whether a request is on the way to the password, brings the cookie that it was answered with, or needs none."""
    app, path = scope.get("app"), scope["path"]
    if getattr(app, "auth", None) is None or path in _WAY_IN or path.startswith(_LOOKS):
        return True
    cookies = cookie_parser(headers.get("cookie", ""))
    return any(cookies.get(f"access-token{kind}-{app.cookie_id}") in app.tokens for kind in ("", "-unsecure"))


def _name_in(host: str) -> str:
    """Return the name in a Host header, without a port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _bounded(receive: Receive) -> Receive:
    """Return a way to receive a body that ends where it grows beyond all bounds, whatever its header said."""
    got = 0

    async def bounded() -> Any:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b"")) if message["type"] == "http.request" else 0
        return {"type": "http.disconnect"} if got > LARGEST else message

    return bounded
