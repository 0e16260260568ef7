import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.jobs import Job, Progress
from tests.waiting import wait_for_jobs
from ui.page import sessions
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
