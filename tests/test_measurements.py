"""Measurements in the database: many writers, processes that are killed, files that are damaged or no files at all."""

import json
import logging
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest

from engine import cache, measurements
from engine.cache import Key
from engine.measurements import FILE, Measurements, obsolete_files
from tests.measured import counts

pytestmark = pytest.mark.usefixtures("fresh_cache")
KEY = Key("model", "cpu", "float32", "texts", "kind 1")
PARTS = ("", "-wal", "-shm")
# A process that adds values and tells of each after it is stored.
WRITER = """
import sys
from engine.cache import Key
from engine.measurements import Measurements
found = Measurements(Key("model", "cpu", "float32", "texts", "kind 1"))
for number in range(int(sys.argv[2])):
    found.add(f"{sys.argv[1]}-{number}", "x" * 300)
    print(number, flush=True)
"""


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_said", False)


def writer(name: str, many: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, name, str(many)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def remembered(name: str, key: Key = KEY) -> Any:
    """What is found on disk."""
    return Measurements(key).get(name)


def whole(file: Path) -> bool:
    with closing(sqlite3.connect(file)) as found:
        return found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_measurements_are_remembered_across_openings() -> None:
    found = Measurements(KEY)
    assert found.get("a") is None
    found.add("a", [[0.1, None]])
    found.add("b", 2)
    found.add("a", {"x": [3]})
    for again in (found, Measurements(KEY)):
        assert (again.get("a"), again.get("b"), again.get("c")) == ({"x": [3]}, 2, None)
    for other in ({"texts": "other"}, {"definition": "kind 2"}, {"schema": 1}):
        assert remembered("a", replace(KEY, **other)) is None  # type: ignore[arg-type]


def test_figures_come_back_as_they_were() -> None:
    figures = [0.1, 1 / 3, 1e-308, math.inf, -math.inf, math.nan, None, "안녕", "\ud800", True]
    Measurements(KEY).add("a", figures)
    assert repr(remembered("a")) == repr(figures)


def test_what_another_adds_meanwhile_is_found() -> None:
    one, other = Measurements(KEY), Measurements(KEY)
    assert (one.get("a"), other.get("a")) == (None, None)
    other.add("a", 1)
    assert one.get("a") == 1


# --- many at once ---


def test_threads_write_and_read_at_once() -> None:
    def work(number: int) -> None:
        found = Measurements(KEY)
        for step in range(50):
            found.add(f"{number}-{step}", "x" * 100)
            assert remembered(f"{number}-{step}")

    with ThreadPool(4) as pool:
        pool.map(work, range(4))
    found = Measurements(KEY)
    assert all(found.get(f"{number}-{step}") for number in range(4) for step in range(50))


def test_processes_create_the_database_and_write_at_once(fresh_cache: Path) -> None:
    writers = [writer(str(number), 100) for number in range(4)]
    assert [(child.communicate()[1], child.returncode) for child in writers] == [("", 0)] * 4
    assert counts(fresh_cache) == {"kind 1": 400}
    assert whole(fresh_cache / FILE)


def test_killed_processes_leave_what_they_stored(fresh_cache: Path) -> None:
    chance = random.Random(1)
    stored = list[str]()
    for number in range(4):
        pair = [writer(f"{number}{name}", 100_000) for name in "ab"]
        for child in pair:
            assert child.stdout is not None
            assert child.stdout.readline() == "0\n"
        time.sleep(chance.uniform(0, 0.1))
        for name, child in zip("ab", pair, strict=True):
            os.kill(child.pid, signal.SIGKILL)
            told = child.communicate()[0].split("\n")[:-1]  # the last line may be cut off
            stored += [f"{number}{name}-{step}" for step in (0, *map(int, told))]
    found = Measurements(KEY)
    assert [name for name in stored if found.get(name) is None] == []
    assert whole(fresh_cache / FILE)


def test_a_fork_leaves_its_parents_connection_alone() -> None:
    Measurements(KEY).add("a", 1)
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    else:
        Measurements(KEY).add("b", 2)
        os._exit(remembered("a") != 1)
    Measurements(KEY).add("c", 3)
    assert [remembered(name) for name in "abc"] == [1, 2, 3]


# --- what is damaged, and what is no database ---


def text(path: Path) -> None:
    path.write_text("no database" * 100)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE measurement (something)")


def older(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA application_id = {measurements._OURS}")
        other.execute("PRAGMA user_version = 1")


STRANGE: tuple[Callable[[Path], None], ...] = (
    text,
    foreign,
    older,
    Path.mkdir,
    os.mkfifo,
    lambda path: path.symlink_to(path.name),
    lambda path: path.symlink_to("/dev/zero"),
)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_no_database_is_set_aside_with_one_notice(
    strange: Callable[[Path], None], part: str, fresh_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fresh_cache.mkdir()
    strange(fresh_cache / f"{FILE}{part}")
    assert remembered("a") is None
    Measurements(KEY).add("a", 1)
    assert remembered("a") == 1
    said = [record.message for record in caplog.records if record.name == "layerscope"]
    log_of_nothing = part and strange in STRANGE[:3]  # sqlite3 itself passes over a log that belongs to nothing
    assert [f"{FILE}.damaged-" in line for line in said] == ([] if log_of_nothing else [True])
    assert log_of_nothing or obsolete_files()


def test_an_empty_file_becomes_a_database(fresh_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    fresh_cache.mkdir()
    (fresh_cache / FILE).touch()
    Measurements(KEY).add("a", 1)
    assert remembered("a") == 1
    assert not caplog.records


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_give_what_was_stored_or_nothing(seed: int, fresh_cache: Path) -> None:
    stored = {str(number): [number, "x" * number] for number in range(200)}
    found = Measurements(KEY)
    for name, value in stored.items():
        found.add(name, value)
    measurements._store.close()
    chance, file = random.Random(seed), fresh_cache / FILE
    content = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 20))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    file.write_bytes(content[: chance.choice((len(content), chance.randrange(len(content))))])
    again = Measurements(KEY)
    assert all(again.get(name) in (None, value) for name, value in stored.items())
    again.add("new", 1)
    assert again.get("new") == 1


def test_a_value_that_changed_is_none_and_is_replaced(fresh_cache: Path) -> None:
    Measurements(KEY).add("a", 1.25)
    with closing(sqlite3.connect(fresh_cache / FILE)) as other:
        other.execute("UPDATE measurement SET value = '1.75'")
        other.commit()
    assert remembered("a") is None
    Measurements(KEY).add("a", 1.25)
    assert remembered("a") == 1.25


def test_a_folder_that_is_removed_or_replaced_meanwhile_begins_anew(fresh_cache: Path) -> None:
    found = Measurements(KEY)
    found.add("a", 1)
    fresh_cache.rename(fresh_cache.with_name("before"))
    assert remembered("a") is None
    found.add("b", 2)
    assert remembered("b") == 2
    shutil.rmtree(fresh_cache)
    fresh_cache.with_name("before").rename(fresh_cache)
    assert (remembered("a"), remembered("b")) == (1, None)
    assert whole(fresh_cache / FILE)


# --- a cache that cannot be written ---


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "measurements are not stored" in record.message]


def test_a_cache_that_cannot_be_written_stops_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / "file"))
    found = Measurements(KEY)
    for number in range(3):
        found.add(str(number), number)
        assert found.get(str(number)) == number
    assert remembered("0") is None
    assert len(refusals(caplog)) == 1


def test_a_database_that_another_holds_stops_no_measurement(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(measurements, "_WAIT", 0.1)
    Measurements(KEY).add("a", 1)
    measurements._store.close()
    with closing(sqlite3.connect(fresh_cache / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = Measurements(KEY)
        found.add("b", 2)
        assert (found.get("a"), found.get("b"), remembered("b")) == (1, 2, None)
    assert "locked" in refusals(caplog)[0]
    Measurements(KEY).add("b", 2)
    assert remembered("b") == 2


# --- files of older versions ---


def test_files_of_older_versions_are_told_once_and_listed(fresh_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = [fresh_cache / "profiles" / f"{'0' * 64}.json", fresh_cache / "similarity" / f"{'a' * 64}.jsonl"]
    for file in (*old, fresh_cache / "weights" / "model.safetensors", fresh_cache / "boards" / f"{'0' * 64}.json"):
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(1))
    for name in "ab":
        Measurements(KEY).add(name, 1)
        measurements._store.close()
    assert obsolete_files() == old
    assert [record.levelno for record in caplog.records if "older version" in record.message] == [logging.WARNING]
