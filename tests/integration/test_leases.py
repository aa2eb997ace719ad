from __future__ import annotations

import queue
import sys
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import pytest

from bridge_service.errors import DatabaseBusy, DatabaseUnavailable
from bridge_service.machine.steps import LEASE_SECONDS
from bridge_service.telemetry.signals import DuplicatePrevented, PostgresLost
from bridge_service.worker import leases as module
from bridge_service.worker.leases import Leases
from tests.support.app import App
from tests.support.clock import advance, install_clock
from tests.support.policy import set_grouping
from tests.support.recorder import Recorder
from tests.support.store import store_on
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.roles import Urls

DELAY: Final = 15.0
TIMEOUT: Final = 180.0


class Stub:
    """Stands in for the store: notes what is renewed and released, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.renewed: queue.Queue[dict[int, UUID]] = queue.Queue()
        self.released: list[dict[int, UUID]] = []
        self.lost: set[UUID] = set()
        self.looks: queue.Queue[dict[UUID, int]] = queue.Queue()
        self.failures = 0
        self.error: Exception = DatabaseUnavailable("gone")

    def renew(self, leases: Mapping[int, UUID]) -> list[int]:
        """Renew."""
        if self.failures:
            self.failures -= 1
            raise self.error
        self.renewed.put(dict(leases))
        return []

    def lost_leases(self, leases: Mapping[UUID, int]) -> list[UUID]:
        """Look; a database that is away fails it as often as it fails `renew`."""
        self.looks.put(dict(leases))
        if self.failures:
            raise self.error
        return [token for token in leases if token in self.lost]

    def release(self, leases: Mapping[int, UUID]) -> int:
        """Release."""
        self.released.append(dict(leases))
        return len(leases)


class Desk:
    """Leases on a store that only takes notes."""

    def __init__(self) -> None:
        self.stub = Stub()
        self.told = Recorder()
        store: Any = self.stub
        self.leases = Leases(store, self.told, responder_timeout=TIMEOUT)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew every 20 ms."""
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.06)


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Give leases that are stopped in the end."""
    desk = Desk()
    yield desk
    desk.leases.stop()


@pytest.mark.usefixtures("quick")
def test_all_that_is_held_is_renewed_in_one_call(desk: Desk) -> None:
    """Again and again while the blocks run, with their tokens; afterwards no more, and nothing is no call at all."""
    first, second = uuid4(), uuid4()
    desk.leases.start()
    with desk.leases.held(1, first):
        with desk.leases.held(2, second):
            for _ in range(2):
                eventually(lambda: desk.stub.renewed.get(timeout=5) == {1: first, 2: second})
        eventually(lambda: desk.stub.renewed.get(timeout=5) == {1: first})
    eventually(desk.stub.renewed.empty)
    with pytest.raises(queue.Empty):
        desk.stub.renewed.get(timeout=0.1)


@pytest.mark.usefixtures("quick")
def test_a_block_that_raises_holds_nothing_any_more(desk: Desk) -> None:
    """Whatever a responder does, its lease ends with it."""
    with pytest.raises(ZeroDivisionError), desk.leases.held(1, uuid4()):
        raise ZeroDivisionError
    assert desk.leases._held == {}


@pytest.mark.usefixtures("quick")
def test_a_database_that_is_away_ends_no_renewing(desk: Desk) -> None:
    """It is told of, and the next third of a lease renews again."""
    desk.stub.failures = 2
    token = uuid4()
    desk.leases.start()
    with desk.leases.held(1, token):
        assert desk.stub.renewed.get(timeout=5) == {1: token}
    assert desk.told.signals == [PostgresLost("gone")] * 2


@pytest.mark.usefixtures("quick")
def test_a_lock_is_no_lost_database(desk: Desk) -> None:
    """Somebody else is at work on one of the turns: the next third of a lease renews all, and nothing is told."""
    desk.stub.failures, desk.stub.error = 2, DatabaseBusy("locked")
    token = uuid4()
    desk.leases.start()
    with desk.leases.held(1, token):
        assert desk.stub.renewed.get(timeout=5) == {1: token}
    assert desk.told.signals == []


@pytest.mark.usefixtures("quick")
def test_a_responder_that_hangs_is_not_renewed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After RESPONDER_TIMEOUT its turn is left to another worker, it is counted, and its neighbours keep theirs."""
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])  # type: ignore[attr-defined]
    hung, well = uuid4(), uuid4()
    with desk.leases.held(1, hung):
        clock[0] += TIMEOUT - 1
        with desk.leases.held(2, well):
            assert desk.leases.hung() == 0
            clock[0] += 1
            assert desk.leases.hung() == 1
            desk.leases.start()
            assert desk.stub.renewed.get(timeout=5) == {2: well}
    assert desk.leases.hung() == 0


@pytest.mark.usefixtures("quick")
def test_a_turn_that_comes_back_to_its_process_is_held_twice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each responder that hangs in it is counted, and when the first one returns the second keeps its lease."""
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])  # type: ignore[attr-defined]
    second = uuid4()
    hangs = desk.leases.held(1, uuid4())
    hangs.__enter__()
    clock[0] += TIMEOUT
    with desk.leases.held(1, second):
        hangs.__exit__(None, None, None)
        desk.leases.start()
        assert desk.stub.renewed.get(timeout=5) == {1: second}
    with desk.leases.held(1, uuid4()), desk.leases.held(1, uuid4()):
        clock[0] += TIMEOUT
        assert desk.leases.hung() == 2


@pytest.mark.usefixtures("quick")
def test_a_call_that_lost_its_lease_is_cancelled_once(desk: Desk) -> None:
    """It is told of; its neighbour goes on, and a call that cannot be cancelled is not asked for."""
    cancelled: queue.Queue[str] = queue.Queue()
    kept, lost = uuid4(), uuid4()
    desk.stub.lost = {lost}
    with desk.leases.held(1, uuid4()):
        desk.leases.hold(2, kept, lambda: cancelled.put("kept"))
        desk.leases.hold(3, lost, lambda: cancelled.put("lost"))
        desk.leases.start()
        assert cancelled.get(timeout=5) == "lost"
        assert desk.stub.looks.get(timeout=5) == {kept: 2, lost: 3}
        eventually(lambda: desk.stub.looks.get(timeout=5) == {kept: 2})
    assert cancelled.empty()
    assert desk.told.signals == [DuplicatePrevented(3, "finish")]


@pytest.mark.usefixtures("quick")
def test_a_missing_answer_is_no_lost_lease(desk: Desk) -> None:
    """While PostgreSQL is away, calls go on; what was lost meanwhile is cancelled when it is back."""
    cancelled = threading.Event()
    token = uuid4()
    desk.stub.lost, desk.stub.failures = {token}, sys.maxsize
    desk.leases.hold(1, token, cancelled.set)
    desk.leases.start()
    for _ in range(3):
        desk.stub.looks.get(timeout=5)
    assert not cancelled.is_set()
    desk.stub.failures = 0
    assert cancelled.wait(5)


@pytest.mark.usefixtures("quick")
def test_a_call_that_hangs_is_cancelled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After RESPONDER_TIMEOUT, also while PostgreSQL is away; a call that is over is not."""
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])  # type: ignore[attr-defined]
    cancelled: queue.Queue[str] = queue.Queue()
    hung, over, young = uuid4(), uuid4(), uuid4()
    desk.leases.hold(1, hung, lambda: cancelled.put("hung"))
    desk.leases.hold(2, over, lambda: cancelled.put("over"))
    desk.leases.call_over(over)
    clock[0] += TIMEOUT
    desk.leases.hold(3, young, lambda: cancelled.put("young"))
    desk.stub.failures = sys.maxsize
    desk.leases.start()
    assert cancelled.get(timeout=5) == "hung"
    desk.stub.looks.get(timeout=5)
    desk.stub.looks.get(timeout=5)
    assert cancelled.empty()


@pytest.mark.usefixtures("quick")
def test_nothing_is_looked_for_while_no_call_can_be_cancelled(desk: Desk) -> None:
    """Plain responders cost no read."""
    token = uuid4()
    desk.leases.start()
    with desk.leases.held(1, token):
        for _ in range(3):
            eventually(lambda: desk.stub.renewed.get(timeout=5) == {1: token})
    assert desk.stub.looks.empty()


def test_a_drain_waits_until_nothing_is_held(desk: Desk) -> None:
    """And each lease that is let go is told of, since it makes room."""
    freed: list[int] = []
    desk.leases.freed = lambda: freed.append(desk.leases.count())
    drained = threading.Thread(target=desk.leases.drain)
    first, second = uuid4(), uuid4()
    desk.leases.hold(1, first)
    desk.leases.hold(2, second)
    drained.start()
    desk.leases.let_go(first)
    assert drained.is_alive()
    desk.leases.let_go(second)
    drained.join(5)
    assert not drained.is_alive()
    assert freed == [1, 0]


def test_a_drain_gives_back_what_is_held(desk: Desk) -> None:
    """All of it in one call; and nothing held is no call."""
    desk.leases.release()
    assert desk.stub.released == []
    first, second = uuid4(), uuid4()
    with desk.leases.held(1, first), desk.leases.held(2, second):
        desk.leases.release()
    assert desk.stub.released == [{1: first, 2: second}]


@pytest.mark.usefixtures("quick")
def test_a_stop_ends_the_thread(desk: Desk) -> None:
    """At once, twice is harmless, and so is a stop without a start."""
    Desk().leases.stop()
    desk.leases.start()
    desk.leases.stop()
    desk.leases.stop()
    eventually(lambda: all(thread.name != "leases" for thread in threading.enumerate()))


@pytest.mark.usefixtures("quick")
def test_the_watchdog_hears_of_every_turn_of_the_thread(desk: Desk) -> None:
    """A thread that renews no more would cost every slow responder its turns, so a worker watches it."""
    beats = threading.Semaphore(0)
    desk.leases.beat = beats.release
    desk.leases.start()
    assert all(beats.acquire(timeout=5) for _ in range(3))


# On a real database


class Worker:
    """One claimed turn on a database whose clock a test moves."""

    def __init__(self, urls: Urls, stack: ExitStack) -> None:
        self.urls = urls
        self.app = stack.enter_context(closing(App(urls)))
        self.store = stack.enter_context(store_on(urls))
        self.leases = Leases(self.store, Recorder(), responder_timeout=TIMEOUT)
        stack.callback(self.leases.stop)
        self.match = self.app.old_match()
        self.app.write(self.match, "salut")
        set_grouping(urls, DELAY)
        self.store.group()
        advance(urls, DELAY)
        [push] = self.store.push_due(10)
        self.turn, self.token = push.turn_id, uuid4()
        assert self.store.claim(self.turn, self.token).name == "claimed"

    def due_in(self) -> float:
        """Seconds until the lease runs out."""
        return float(self.app.value("SELECT extract(epoch FROM due_at - bridge.now()) FROM bridge.turns"))

    def holder(self) -> str | None:
        """Return the token of who owns the turn."""
        token = self.app.value("SELECT token FROM bridge.turns")
        return None if token is None else str(token)

    def finish(self) -> str:
        """Hand in the draft; what came of it."""
        return self.store.finish(self.turn, self.token, "coucou", pause=0.0).name


@pytest.fixture
def worker(bridge_database: Urls) -> Iterator[Worker]:
    """Give a worker that has just claimed a turn."""
    install_clock(bridge_database)
    with ExitStack() as stack:
        yield Worker(bridge_database, stack)


@pytest.mark.usefixtures("quick")
def test_a_turn_that_is_worked_on_for_minutes_is_not_taken_away(worker: Worker) -> None:
    """Its lease is renewed in good time, whatever the clock says, and its draft is taken in the end."""
    worker.leases.start()
    with worker.leases.held(worker.turn, worker.token):
        for _ in range(5):
            advance(worker.urls, LEASE_SECONDS * 0.6)
            eventually(lambda: worker.due_in() > LEASE_SECONDS * 0.9)
            assert worker.store.push_due(10) == []
    assert worker.finish() == "answered"


@pytest.mark.usefixtures("quick")
def test_a_lease_that_was_taken_away_is_never_renewed(worker: Worker) -> None:
    """A worker that was frozen too long does not take the turn back from the one that has it now."""
    advance(worker.urls, LEASE_SECONDS + 1)
    worker.store.push_due(10)
    other = uuid4()
    worker.store.claim(worker.turn, other)
    advance(worker.urls, 5)
    before = worker.app.value("SELECT due_at FROM bridge.turns")
    assert worker.store.renew({worker.turn: worker.token}) == [worker.turn]
    assert worker.app.value("SELECT due_at FROM bridge.turns") == before
    assert worker.holder() == str(other)
    assert worker.finish() == "fenced"


def test_what_a_drain_gives_back_is_due_at_once(worker: Worker) -> None:
    """The next pass pushes it, no attempt and no takeover is counted, and the late draft is refused."""
    with worker.leases.held(worker.turn, worker.token):
        worker.leases.release()
    assert worker.holder() is None
    [push] = worker.store.push_due(10)
    assert (push.turn_id, push.step, push.recovered) == (worker.turn, "compose", False)
    assert worker.app.rows("SELECT attempts, takeovers FROM bridge.turns") == [(0, 0)]
    assert worker.finish() == "fenced"
    assert worker.store.claim(worker.turn, uuid4()).name == "claimed"
