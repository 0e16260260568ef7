import logging
import threading
import time
from collections.abc import Iterator

import pytest

from engine.errors import SourceError
from engine.jobs import Job, Progress
from tests.page.runners import Bench, a_bench, whole
from tests.waiting import wait_for_jobs, wait_until
from ui.page.bench.jobs import Runner, Task


@pytest.fixture
def bench() -> Iterator[Bench]:
    with a_bench() as bench:
        yield bench


# --- order ---


def test_tasks_run_one_after_another_in_order(bench: Bench) -> None:
    bench.runner.submit(bench.task("first", waits=True))
    bench.runner.submit(bench.task("second"))
    bench.runner.submit(bench.task("third"))
    bench.started("first")
    assert bench.log == ["first starts"]
    bench.gates["first"].set()
    wait_for_jobs()
    assert bench.log == whole("first", "second", "third")


def test_an_urgent_task_goes_before_those_that_wait_but_not_past_one_that_runs(bench: Bench) -> None:
    bench.runner.submit(bench.task("running", waits=True))
    bench.runner.submit(bench.task("waiting"))
    bench.runner.submit(bench.task("urgent"), urgent=True)
    time.sleep(0.05)
    bench.gates["running"].set()
    wait_for_jobs()
    assert bench.log == whole("running", "urgent", "waiting")


def test_an_urgent_task_goes_past_a_yielding_one_which_later_runs_again(bench: Bench) -> None:
    bench.runner.submit(bench.task("survey", yielding=True, waits=True))
    bench.runner.submit(bench.task("later"))
    bench.started("survey")
    bench.runner.submit(bench.task("urgent", waits=True), urgent=True)
    bench.started("urgent")
    assert bench.log == ["survey starts", "survey closes", "urgent starts"]
    bench.gates["survey"].set()
    bench.gates["urgent"].set()
    wait_for_jobs()
    assert bench.log[2:] == whole("urgent", "survey", "later")


def test_a_yielding_task_does_not_make_way_for_one_that_is_not_urgent(bench: Bench) -> None:
    bench.runner.submit(bench.task("survey", yielding=True, waits=True))
    bench.started("survey")
    bench.runner.submit(bench.task("later"))
    time.sleep(0.05)
    bench.gates["survey"].set()
    wait_for_jobs()
    assert bench.log == whole("survey", "later")


def test_a_yielding_task_that_two_urgent_ones_overtake_runs_again_once(bench: Bench) -> None:
    asleep, awake = threading.Event(), threading.Event()

    def survey() -> Job[None]:
        bench.log.append("survey starts")
        yield Progress("survey")
        asleep.set()
        awake.wait(10)  # both urgent tasks come before it next looks up
        yield Progress("survey")

    bench.runner.submit(Task("survey", survey, lambda result: bench.log.append("survey is done"), yielding=True))
    assert asleep.wait(10)
    bench.runner.submit(bench.task("a"), urgent=True)
    bench.runner.submit(bench.task("b"), urgent=True)
    awake.set()
    wait_for_jobs()
    assert bench.log == ["survey starts", *whole("b", "a"), "survey starts", "survey is done"]


def test_a_task_replaces_one_of_its_kind_that_runs_and_one_that_waits(bench: Bench) -> None:
    bench.runner.submit(bench.task("map", "old map", waits=True))
    bench.runner.submit(bench.task("landscape", "old landscape"))
    bench.started("old map")
    bench.runner.submit(bench.task("landscape", "new landscape"))
    bench.runner.submit(bench.task("map", "new map"), urgent=True)
    wait_for_jobs()
    assert bench.log == ["old map starts", "old map closes", *whole("new map", "new landscape")]


def test_only_one_task_runs_at_a_time_whoever_submits(bench: Bench) -> None:
    running, most, finished = [0], [0], []

    def job(number: int) -> Job[int]:
        running[0] += 1
        most[0] = max(most[0], running[0])
        yield Progress("")
        time.sleep(0.001)
        running[0] -= 1
        return number

    def submit(start: int) -> None:
        for number in range(start, start + 10):
            bench.runner.submit(Task(str(number), lambda number=number: job(number), finished.append), urgent=number % 3 == 0)

    threads = [threading.Thread(target=submit, args=(start,)) for start in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for_jobs()
    assert sorted(finished) == list(range(30))
    assert most == [1]


# --- problems ---


def test_a_persons_mistake_is_told_in_its_own_words_and_stops_what_waits(bench: Bench) -> None:
    bench.runner.submit(bench.task("open", waits=True, error=SourceError("there is no such model")))
    bench.runner.submit(bench.task("waiting"))
    bench.gates["open"].set()
    wait_for_jobs()
    assert bench.runner.problem == "there is no such model"
    assert bench.log == ["open starts", "open closes"]


def test_a_bug_is_told_as_an_empty_text_and_logged_with_its_traceback(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "layerscope"):
        bench.runner.submit(bench.task("map", error=ZeroDivisionError("a bug")))
        wait_for_jobs()
    assert bench.runner.problem == ""
    (record,) = caplog.records
    assert "map" in record.getMessage()
    assert "ZeroDivisionError: a bug" in caplog.text
    assert "Traceback" in caplog.text


def test_a_bug_in_what_takes_the_result_is_told_too(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "layerscope"):
        bench.runner.submit(Task("map", bench.task("map").make, lambda result: print(1 / 0)))
        wait_for_jobs()
    assert bench.runner.problem == ""
    assert "ZeroDivisionError" in caplog.text


def test_a_task_that_succeeds_takes_the_problem_away(bench: Bench) -> None:
    bench.runner.submit(bench.task("open", error=SourceError("gone")))
    wait_for_jobs()
    bench.runner.submit(bench.task("open"))
    wait_for_jobs()
    assert bench.runner.problem is None
    assert bench.log[-1] == "open is done"


@pytest.mark.parametrize("error", [SourceError("the old model is broken"), ZeroDivisionError()])
def test_a_replaced_task_that_fails_says_nothing_and_takes_nothing_with_it(error: Exception, bench: Bench) -> None:
    reached, go = threading.Event(), threading.Event()

    def old() -> Job[None]:
        yield Progress("")
        reached.set()
        go.wait(10)
        raise error  # before it next looks up

    bench.runner.submit(Task("open", old, bench.log.append))
    assert reached.wait(10)
    bench.runner.submit(bench.task("open", "the new model"), urgent=True)
    go.set()
    wait_for_jobs()
    assert bench.log == whole("the new model")
    assert bench.runner.problem is None


# --- threads ---


def test_a_job_lives_in_one_thread_from_start_to_done(bench: Bench) -> None:
    seen: dict[str, list[threading.Thread]] = {"a": [], "b": []}

    def job(name: str) -> Job[None]:
        try:
            for _ in range(3):
                seen[name].append(threading.current_thread())
                yield Progress("")
        finally:
            seen[name].append(threading.current_thread())

    def task(name: str) -> Task:
        return Task(name, lambda: job(name), lambda result: seen[name].append(threading.current_thread()))

    bench.runner.submit(task("a"))
    bench.runner.submit(task("b"))
    wait_for_jobs()
    (a,), (b,) = set(seen["a"]), set(seen["b"])
    assert [len(threads) for threads in seen.values()] == [5, 5]
    assert len({a, b, threading.current_thread()}) == 3


def test_a_cancelled_job_is_closed_in_its_own_thread(bench: Bench) -> None:
    seen: list[threading.Thread] = []

    def job() -> Job[None]:
        try:
            while True:
                seen.append(threading.current_thread())
                yield Progress("")
                time.sleep(0.001)
        finally:
            seen.append(threading.current_thread())
            bench.log.append("closed")

    bench.runner.submit(Task("endless", job, lambda result: None))
    wait_until(lambda: seen)
    bench.runner.cancel()
    wait_for_jobs()
    assert bench.log == ["closed"]
    assert len(set(seen)) == 1


def test_between_two_tasks_nobody_is_told_that_nothing_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    idle: list[bool] = []
    begin = Runner._start

    def begins(runner: Runner) -> None:  # as a page that looks just before the next task begins
        looking = threading.Thread(target=lambda: idle.append(runner.state() is None))
        looking.start()
        looking.join(0.2)  # it waits for the lock, if it must
        begin(runner)

    bench.runner.submit(bench.task("first", waits=True))
    bench.runner.submit(bench.task("second", waits=True))
    bench.started("first")
    monkeypatch.setattr(Runner, "_start", begins)
    bench.gates["first"].set()
    bench.started("second")
    wait_until(lambda: bool(idle))
    assert idle == [False]
