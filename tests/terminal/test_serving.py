"""Serving the page to other machines: never by accident. Also the command `doctor`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ui.page.app
from engine.cache import save_result
from tests.answers import Answer, assert_refused
from ui.page.app import Server

Inside = Callable[..., Answer]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """The servers that would have been started."""
    started: list[Server] = []
    monkeypatch.setattr(ui.page.app, "serve", lambda model, server, *_: started.append(server))
    return started


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "box.example"])
def test_other_machines_need_a_password_or_a_word(host: str, inside: Inside, served: list[Server], tmp_path: Path) -> None:
    assert_refused(inside("app", "--host", host), host, "--auth USER:FILE", "--insecure")
    (tmp_path / "password").write_text("secret\n")
    for words, warned in ((("--insecure",), "without a password"), (("--auth", f"me:{tmp_path / 'password'}"), "unencrypted")):
        answer = inside("app", "--host", host, *words, "--models", tmp_path, "--exports", tmp_path / "out", "--name", "x.example")
        assert answer.code == 0
        assert warned in answer.err
    open_to_all, guarded = served
    assert (open_to_all.auth, guarded.auth) == (None, ("me", "secret"))
    assert guarded.names == ("x.example",)
    assert guarded.reach.roots == (tmp_path.resolve(), (tmp_path / "out").resolve())
    assert not open_to_all.reach.holds("/etc")


def test_this_machine_alone_needs_neither_and_may_name_anything(inside: Inside, served: list[Server]) -> None:
    answer = inside("app")
    assert (answer.code, answer.err) == (0, "")
    assert served[0].reach.roots is None


@pytest.mark.parametrize(
    ("auth", "words"), [("me", "USER:FILE"), (":x", "USER:FILE"), ("me:/nowhere", "cannot be read"), ("me:.", "it is a folder")]
)
def test_a_password_that_is_none_is_refused(auth: str, words: str, inside: Inside, served: list[Server], tmp_path: Path) -> None:
    assert_refused(inside("app", "--auth", auth), words)
    (tmp_path / "empty").write_text("\n")
    assert_refused(inside("app", "--auth", f"me:{tmp_path / 'empty'}"), "contains no password")
    assert not served


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRADIO_SHARE", "True"),
        ("GRADIO_ALLOWED_PATHS", "/"),
        ("GRADIO_SERVER_NAME", "0.0.0.0"),
        ("GRADIO_ROOT_PATH", "http://evil.example"),
        ("GRADIO_VIBE_MODE", "1"),
        ("GRADIO_MCP_SERVER", "True"),
        ("GRADIO_DEBUG", "1"),
        ("GRADIO_WATCH_DIRS", "/"),
        ("GRADIO_SHARE_SERVER_ADDRESS", "evil.example:7000"),
        ("GRADIO_WHAT_COMES_NEXT", "1"),
    ],
)
def test_no_switch_of_gradios_opens_the_page_to_others(name: str, value: str, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in [other for other in os.environ if other.startswith("GRADIO_") and other != "GRADIO_ANALYTICS_ENABLED"]:
        monkeypatch.delenv(other)
    monkeypatch.setenv(name, value)
    assert_refused(inside("app", "--port", 0), f"{name} is set", "unset it")


def test_the_doctor_tells_and_clears(inside: Inside, fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.export.doctor._SCARCE", 0)
    for other in [other for other in os.environ if other.startswith("GRADIO_")]:
        monkeypatch.delenv(other)

    def asked(*words: str) -> tuple[int, Any]:
        answer = inside("doctor", "--exports", tmp_path / "exports", *words, "--out", tmp_path / "told.json")
        return answer.code, answer.err

    assert asked() == (0, "")
    save_result("digests", "a", 1)
    (fresh_cache / "digests" / "a.json").write_text("{}")
    assert asked() == (1, "1 results in the cache have changed since they were written: run layerscope doctor --clear\n")
    assert asked("--clear") == (0, "")
    assert not (fresh_cache / "digests" / "a.json").exists()
