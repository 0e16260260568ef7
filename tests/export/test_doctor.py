"""The doctor finds problems of a machine, says how to fix them, and clears what is safe to remove."""

import os
import time
from pathlib import Path

import pytest

from engine.cache import save_result
from engine.export.doctor import clear, examine

pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture(autouse=True)
def _sound(monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> None:
    fresh_cache.mkdir()
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("engine.export.doctor._SCARCE", 0)


def left(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "half").write_text("x")
    os.utime(folder, (time.time() - 3600,) * 2)
    return folder


def test_a_sound_machine_has_nothing_to_say_of_itself(tmp_path: Path) -> None:
    save_result("digests", "a", "x")
    health = examine(tmp_path / "exports")
    assert not health.findings
    assert health.cache.files == 1
    assert {"python", "torch", "transformers"} <= set(health.versions)


def test_what_killed_processes_left_and_what_is_broken_is_cleared_and_boards_are_not(tmp_path: Path, fresh_cache: Path) -> None:
    exports = tmp_path / "exports"
    gone = [left(exports / ".layerscope-x"), left(fresh_cache / "converted" / ".partial-x"), left(fresh_cache / "for-now-x")]
    for kind in ("digests", "boards"):
        save_result(kind, "a", {"x": 1})
        (fresh_cache / kind / "a.json").write_text('{"mark": "0", "value": {"x": 2}}')
    health = examine(exports)
    assert [finding.what.split()[0] for finding in health.findings] == ["3", "1"]
    assert set(clear(health)) == {*gone, fresh_cache / "digests" / "a.json"}
    assert not examine(exports).findings
    assert (fresh_cache / "boards" / "a.json").exists()


def test_measurements_that_are_read_no_more_are_cleared(tmp_path: Path, fresh_cache: Path) -> None:
    gone = [fresh_cache / "evaluation" / f"{'a' * 64}.jsonl", fresh_cache / "measurements.sqlite.damaged-0"]
    for file in (*gone, fresh_cache / "measurements.sqlite", fresh_cache / "evaluation" / "mine.jsonl"):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert [str(finding.what) for finding in examine(tmp_path).findings] == [
        "2 files of measurements, by older versions or damaged, are read no more"
    ]
    assert clear(examine(tmp_path)) == gone
    assert not examine(tmp_path).findings


def test_what_a_person_has_to_mend_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = tmp_path / "exports"
    (exports / "smaller.failed").mkdir(parents=True)
    monkeypatch.setenv("GRADIO_SHARE", "True")
    monkeypatch.setattr("engine.export.doctor._SCARCE", 1 << 60)
    told = " / ".join(f"{finding.what}: {finding.mend}" for finding in examine(exports).findings)
    for words in ("smaller.failed failed a check", "GRADIO_SHARE is set", "are free for", "free some disk space"):
        assert words in told
    assert not clear(examine(exports))


def test_a_cache_that_is_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / "file"))
    assert [finding.mend for finding in examine(tmp_path / "exports").findings] == ["set LAYERSCOPE_CACHE to another folder"]
