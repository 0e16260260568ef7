import threading
import time

import pytest

from engine.model_lock import Cancelled, Turn, check_cancelled, working
from tests.waiting import wait_until


def test_work_that_nobody_wants_stops_where_it_looks_up() -> None:
    stop = threading.Event()
    check_cancelled()  # a thread without a job is never stopped
    with working("map", stop.is_set):
        check_cancelled()
        stop.set()
        with pytest.raises(Cancelled):
            check_cancelled()
    check_cancelled()


def test_a_turn_can_be_taken_again_by_who_has_it() -> None:
    turn = Turn()
    with turn, turn:
        pass
    other = threading.Thread(target=turn.__enter__)
    other.start()
    other.join(5)
    assert not other.is_alive()


def test_two_jobs_take_turns_in_the_order_they_asked() -> None:
    turn, log = Turn(), list[str]()

    def job(name: str) -> None:
        with working(name, lambda: False):
            for _ in range(50):
                with turn:
                    log.append(name)
                    time.sleep(0.001)

    threads = [threading.Thread(target=job, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    both = "".join(log)[log.index("b") : 50]  # while both of them were at it; a plain lock lets one have it all
    assert max(map(len, both.replace("ab", "a b").replace("ba", "b a").split())) <= 2
    assert both.count("b") >= 10


def test_who_waits_knows_for_whom_and_can_be_stopped() -> None:
    turn, stop, ended = Turn(), threading.Event(), list[str]()
    waiting = []

    def job() -> None:
        with working("map", stop.is_set) as work:
            waiting.append(work)
            try:
                with turn:
                    ended.append("had its turn")
            except Cancelled:
                ended.append("stopped")

    with working("judge", lambda: False), turn:
        thread = threading.Thread(target=job)
        thread.start()
        wait_until(lambda: waiting and waiting[0].waits_for == "judge")
        stop.set()
        thread.join(5)
    assert ended == ["stopped"]
    with turn:  # and it does not stand in line any more
        pass
