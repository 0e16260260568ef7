import socket
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from engine.jobs import Job, Progress
from tests.families import save_tiny
from tests.waiting import wait_for_jobs, wait_until
from ui.page import app, sessions
from ui.page.bench.jobs import Task
from ui.page.sessions import Sessions


@pytest.fixture
def visits(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "exports")


def test_a_tab_keeps_its_workbench_and_shares_it_with_nobody(visits: Sessions, tmp_path: Path) -> None:
    mine = visits.of("a" * 32)
    assert visits.of("a" * 32) is mine
    assert visits.of("b" * 32) is not mine
    assert mine.export_folder == tmp_path / "exports"


def test_what_was_opened_ahead_goes_to_the_first_visitor_only(visits: Sessions) -> None:
    ahead = visits.open_ahead()
    assert visits.of("a") is ahead
    assert visits.of("b") is not ahead
    assert visits.of("a") is ahead


def test_nothing_of_a_running_server_keeps_the_first_visitors_workbench_but_his_visit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ends, demos = list[Sessions](), threading.Event(), list[gr.Blocks]()

    def remembered(*arguments: Any) -> Sessions:
        made.append(Sessions(*arguments))
        return made[-1]

    def serving(demo: gr.Blocks) -> None:
        demos.append(demo)
        ends.wait(120)
        demo.close()

    monkeypatch.setattr(app, "Sessions", remembered)
    monkeypatch.setattr(gr.Blocks, "block_thread", serving)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))  # put back what the server sets
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = app.Server(port=probe.getsockname()[1])
    model = save_tiny(tmp_path / "tiny", "llama")
    thread = threading.Thread(target=app.serve, args=(str(model), server, tmp_path / "exports", False))
    thread.start()
    try:
        wait_until(lambda: demos)
        bench = weakref.ref(made[0].of("a" * 32))
        wait_for_jobs()
        assert bench() is not None
        monkeypatch.setattr(sessions, "_IDLE_FOR", 0.0)
        made[0].sweep()
        assert bench() is None
    finally:
        ends.set()
        thread.join(60)


def test_an_unused_workbench_is_forgotten_and_its_job_stopped(visits: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(sessions, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    log: list[str] = []

    def endless() -> Job[None]:
        try:
            while True:
                yield Progress("")
                time.sleep(0.001)
        finally:
            log.append("stopped")

    unused, used = visits.of("unused"), visits.of("used")
    unused.runner.submit(Task("endless", endless, log.append))
    for hours in range(1, 6):
        clock[0] = hours * 3600.0
        assert visits.of("used") is used
    assert log == []
    clock[0] = 6 * 3600.0 + 1
    assert visits.of("used") is used
    wait_for_jobs()
    assert log == ["stopped"]
    assert visits.of("unused") is not unused


def test_who_has_closed_the_last_page_is_forgotten_after_a_while_and_a_reload_is_no_leaving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[int] = []
    monkeypatch.setattr(sessions, "release", lambda in_use: released.append(len(in_use)))
    monkeypatch.setattr(sessions, "_GONE_FOR", 0.05)
    house = sessions.Sessions(tmp_path)
    staying, leaving, reloading = (house.of(key) for key in ("a" * 32, "b" * 32, "c" * 32))
    for key, page in (("a" * 32, "1"), ("b" * 32, "2"), ("c" * 32, "3")):
        house.arrived(key, page)
    for page in ("2", "3", "nobody"):
        house.left(page)
    house.arrived("c" * 32, "4")
    time.sleep(0.1)
    house.sweep()
    assert released == [0]
    assert house.of("a" * 32) is staying
    assert house.of("c" * 32) is reloading
    assert house.of("b" * 32) is not leaving


def test_whose_connection_broke_stays_as_long_as_he_asks_and_is_known_to_be_forgotten_after(
    visits: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(sessions, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    mine = visits.of("a")
    visits.arrived("a", "page")
    visits.left("page")
    for minute in range(1, 20):
        clock[0] = 60.0 * minute
        assert visits.of("a") is mine
    assert not visits.forgot("a")
    clock[0] += sessions._GONE_FOR + 1
    visits.sweep()
    assert visits.forgot("a")
    assert visits.of("a") is not mine
    assert not visits.forgot("a")
    assert not visits.forgot("b")
