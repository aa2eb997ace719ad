from __future__ import annotations

import queue
import threading

import pytest

from bridge_service.errors import DatabaseUnavailable
from bridge_service.machine.places import Places
from tests.support.waiting import eventually


def test_who_came_first_is_let_in_first() -> None:
    """A thread that leaves hands its place to the thread that has waited longest, and to no newcomer."""
    places = Places(1, 10.0)
    entered: queue.Queue[int] = queue.Queue()
    leave = threading.Semaphore(0)

    def visit(number: int) -> None:
        with places:
            entered.put(number)
            leave.acquire()

    threads = []
    for number in range(4):
        threads.append(threading.Thread(target=visit, args=(number,)))
        threads[-1].start()
        eventually(lambda number=number: number == 0 or len(places._waiting) == number)  # type: ignore[misc]
    for number in range(4):
        assert entered.get(timeout=5) == number
        assert entered.empty()
        leave.release()
    for thread in threads:
        thread.join(5)
    assert places._free == 1


def test_a_wait_for_a_place_ends() -> None:
    """The step is run again later, and the place that becomes free afterwards is lost to no other thread."""
    places = Places(1, 0.05)
    with places:
        with pytest.raises(DatabaseUnavailable, match="became free within"):
            places.__enter__()
        assert not places._waiting
    with places:
        pass
