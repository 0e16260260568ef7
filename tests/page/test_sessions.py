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
