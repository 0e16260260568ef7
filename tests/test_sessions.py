import time
from pathlib import Path

import pytest

from ui import sessions
from ui.sessions import Sessions


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


def test_an_unused_workbench_is_forgotten_and_a_used_one_is_not(visits: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_IDLE_FOR", 0.2)
    unused, used = visits.of("unused"), visits.of("used")
    for _ in range(10):
        time.sleep(0.05)
        assert visits.of("used") is used
    assert visits.of("unused") is not unused
