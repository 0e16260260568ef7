"""A job's progress, cancel, abandonment and time estimate."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

import ui.page.bench.jobs
from engine.jobs import Job, Progress
from engine.model_lock import check_cancelled
from engine.types import Model
from tests.page.conftest import NICE
from tests.page.runners import Bench, a_bench, whole
from tests.waiting import wait_for_jobs, wait_until
from ui.page.bench.jobs import Runner, Task


@pytest.fixture
def bench() -> Iterator[Bench]:
    with a_bench() as bench:
        yield bench


# --- looking and stopping ---


def test_state_tells_what_runs_and_how_far_it_is(bench: Bench) -> None:
    assert bench.runner.state() is None
    bench.runner.submit(bench.task("map", waits=True))
    wait_until(lambda: bench.runner.state() == ("map", Progress("map", 0.5)))
    bench.gates["map"].set()
    wait_for_jobs()
    assert bench.runner.state() is None


def test_cancel_stops_what_runs_and_forgets_what_waits(bench: Bench) -> None:
    bench.runner.submit(bench.task("running", waits=True))
    bench.runner.submit(bench.task("waiting"))
    bench.started("running")
    bench.runner.cancel()
    wait_for_jobs()
    assert bench.log == ["running starts", "running closes"]
    assert bench.runner.problem is None
    bench.runner.submit(bench.task("next"))
    wait_for_jobs()
    assert bench.log[2:] == whole("next")


def test_cancel_of_a_kind_leaves_the_others(bench: Bench) -> None:
    bench.runner.submit(bench.task("running", waits=True))
    bench.runner.submit(bench.task("waiting"))
    bench.runner.submit(bench.task("last"))
    bench.started("running")
    bench.runner.cancel("waiting")
    bench.gates["running"].set()
    wait_for_jobs()
    assert bench.log == whole("running", "last")


def test_cancel_of_the_running_kind_goes_on_with_the_next(bench: Bench) -> None:
    bench.runner.submit(bench.task("running", waits=True))
    bench.runner.submit(bench.task("waiting"))
    bench.started("running")
    bench.runner.cancel("running")
    wait_for_jobs()
    assert bench.log == ["running starts", "running closes", *whole("waiting")]


def test_a_yielding_task_that_was_cancelled_does_not_come_back_after_an_urgent_one(bench: Bench) -> None:
    bench.runner.submit(bench.task("survey", yielding=True, waits=True))
    bench.started("survey")
    bench.runner.cancel()
    bench.runner.submit(bench.task("urgent"), urgent=True)
    wait_for_jobs()
    assert bench.log == ["survey starts", "survey closes", *whole("urgent")]


def test_a_result_that_comes_after_cancel_is_not_used(bench: Bench) -> None:
    reached, go = threading.Event(), threading.Event()

    def job() -> Job[str]:
        yield Progress("")
        reached.set()
        go.wait(10)
        return "too late"  # no yield between cancel and the end

    bench.runner.submit(Task("late", job, bench.log.append))
    assert reached.wait(10)
    bench.runner.cancel()
    go.set()
    wait_for_jobs()
    assert bench.log == []


# --- abandonment ---


def test_a_job_that_nobody_asks_for_any_more_stops(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui.page.bench.jobs, "ABANDONED_AFTER", 0.1)
    bench.runner.submit(bench.task("running", waits=True))
    bench.runner.submit(bench.task("waiting"))
    wait_for_jobs()
    assert bench.log == ["running starts", "running closes"]


def test_a_job_that_a_page_asks_for_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui.page.bench.jobs, "ABANDONED_AFTER", 2.0)
    bench.runner.submit(bench.task("running", waits=True))
    began = time.monotonic()
    while time.monotonic() - began < 3:
        bench.runner.heard()
        time.sleep(0.02)
    bench.gates["running"].set()
    wait_for_jobs()
    assert bench.log == whole("running")


# --- stopping, waiting, time left ---


def test_a_job_deep_in_its_work_stops_where_it_looks_up(bench: Bench) -> None:
    def job() -> Job[None]:
        yield Progress("working", 0.5)
        bench.log.append("deep")
        while True:
            check_cancelled()

    bench.runner.submit(Task("judge", job, lambda _: bench.log.append("done")))
    wait_until(lambda: "deep" in bench.log)
    bench.runner.cancel()
    wait_for_jobs()
    assert (bench.log, bench.runner.problem) == (["deep"], None)


def test_a_task_that_was_told_to_stop_says_so_at_once(bench: Bench) -> None:
    goes_on = threading.Event()

    def job() -> Job[None]:
        yield Progress("working")
        goes_on.wait(10)
        yield Progress("working")

    bench.runner.submit(Task("export", job, lambda _: None))
    assert bench.runner.stopping() is False
    bench.runner.cancel()
    assert bench.runner.stopping() is True
    goes_on.set()
    wait_for_jobs()
    assert bench.runner.stopping() is False


def test_a_task_behind_another_tabs_on_one_model_says_whom_it_waits_for(bench: Bench, tiny: Callable[..., Model]) -> None:
    turn, other = tiny("llama").lock, Runner()
    held = threading.Event()

    def holds() -> Job[None]:
        with turn:
            held.set()
            while bench.runner.waiting_for() is None:
                time.sleep(0.01)
        yield Progress("")

    def waits() -> Job[None]:
        with turn:
            yield Progress("its turn")

    other.submit(Task("samples", holds, lambda _: None))
    assert held.wait(10)
    bench.runner.submit(Task("map", waits, lambda _: bench.log.append("done")))
    wait_until(lambda: bench.runner.waiting_for() == "samples")
    wait_for_jobs()
    assert bench.log == ["done"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_a_task_that_is_not_quick_leaves_the_processors_to_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui.page.bench.jobs, "_NICE", NICE)
    nice, own = dict[str, int](), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def job(kind: str) -> Job[None]:
        nice[kind] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        yield Progress("")

    bench.runner.submit(Task("search", lambda: job("search"), lambda _: None))
    bench.runner.submit(Task("map", lambda: job("map"), lambda _: None, quick=True))
    wait_for_jobs()
    assert nice["map"] == own < nice["search"]


def test_the_time_left_follows_from_how_far_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(ui.page.bench.jobs, "time", SimpleNamespace(monotonic=lambda: now[0]))
    goes_on = threading.Event()

    def job() -> Job[None]:
        yield Progress("", 0.25)
        goes_on.wait(10)
        yield Progress("", 1.0)

    bench.runner.submit(Task("export", job, lambda _: None))
    wait_until(lambda: (bench.runner.state() or ("", Progress("")))[1].fraction)
    assert bench.runner.seconds_left() is None  # nobody knows after no time at all
    now[0] += 10
    assert bench.runner.seconds_left() == pytest.approx(30)
    goes_on.set()
    wait_for_jobs()
    assert bench.runner.seconds_left() is None
