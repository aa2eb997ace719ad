"""The contract that every loop of the service keeps: start, beat, stop."""

from __future__ import annotations

import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest
from prometheus_client import CollectorRegistry

from bridge_service.brokers.redis_client import connect
from bridge_service.errors import DatabaseUnavailable
from bridge_service.process import ending
from bridge_service.process import loop as module
from bridge_service.process.ending import Ending, Signals
from bridge_service.process.heartbeat import Heartbeat
from bridge_service.process.incidents import Incidents
from bridge_service.process.loop import Every, Loop, stop_all
from bridge_service.process.watchdog import Watchdog
from bridge_service.telemetry.signals import FatalError
from bridge_service.web.health_port import HealthPort
from bridge_service.worker.calls import Calls
from bridge_service.worker.leases import Leases
from schedulers.alone import Alone
from schedulers.deliverer import Deliverer
from schedulers.listener import Listener
from schedulers.planner import Planner
from schedulers.window import ContextWindow
from tests.support.http import free_port
from tests.support.recorder import Recorder
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THREADS: Final = 10


class Away:
    """A store, a pusher and a connection whose servers are away."""

    waits_for_redis = True

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        def call(*_: object, **__: object) -> None:
            raise DatabaseUnavailable("away")

        return call


AWAY: Final[Any] = Away()


def _nothing(*_: object) -> None:
    pass


LOOPS: Final[dict[str, Callable[[], Loop]]] = {
    "alone": lambda: Alone(AWAY, tell=_nothing, emit=_nothing),
    "deliverer": lambda: Deliverer(AWAY, on_pushable=_nothing, emit=_nothing),
    "calls": lambda: Calls(2),
    "every": lambda: Every("every", 0.001, lambda: None),
    "health": lambda: HealthPort(
        "127.0.0.1", free_port(), live=list, ready=list, numbers=CollectorRegistry(), token=None
    ),
    "heartbeat": lambda: Heartbeat(AWAY, "worker", {}),
    "incidents": lambda: Incidents(AWAY, "worker"),
    "leases": lambda: Leases(AWAY, _nothing, responder_timeout=1.0),
    "listener": lambda: Listener(
        AWAY,
        AWAY.connect,
        on_grouped=_nothing,
        on_due=_nothing,
        emit=_nothing,
    ),
    "planner": lambda: Planner(AWAY, AWAY, AWAY, look=_nothing, emit=_nothing, retention_days=30.0),
    "watchdog": lambda: Watchdog(_nothing),
}


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException | None]]:
    """Give what threads died of."""
    raised: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda trouble: raised.append(trouble.exc_value))
    yield raised
    assert raised == []


def _threads(loop: Loop, before: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == loop.name and thread not in before]


@pytest.mark.usefixtures("raised")
@pytest.mark.parametrize("name", [*LOOPS, "window"])
def test_ten_threads_may_start_and_stop_every_loop(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """It runs once at most, ends once it is stopped by any of them, and neither rises nor logs an error."""
    with closing(connect("redis://127.0.0.1:1/0")) as client:
        make = LOOPS.get(name, lambda: ContextWindow(client))
        for round_ in range(5):
            loop = make()
            before = set(threading.enumerate())
            chance = random.Random(round_)  # noqa: S311
            most: list[int] = []

            def hammer(
                moves: str, loop: Loop = loop, before: set[threading.Thread] = before, most: list[int] = most
            ) -> None:
                for move in moves:
                    if move == "s":
                        loop.start()
                    elif move == "w":
                        loop.wake()
                    else:
                        loop.stop(0)
                    most.append(len(_threads(loop, before)))

            # Some only start it, so that it runs while the others stop it.
            plans = ["".join(chance.choices("sw" if number < 5 else "swx", k=10)) for number in range(THREADS)]
            with ThreadPoolExecutor(THREADS) as pool:
                for done in [pool.submit(hammer, moves) for moves in plans]:
                    done.result()
            loop.stop(10)
            loop.stop(10)
            assert _threads(loop, before) == []
            assert max(most) <= 1
            loop.start()
            assert _threads(loop, before) == []
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


class Counting(Loop):
    """Counts what is called."""

    def __init__(self) -> None:
        super().__init__("counting")
        self.calls: list[str] = []
        self.errors: list[BaseException] = []
        self.beat = lambda: self.calls.append("beat")

    def first(self) -> None:
        """Note it."""
        self.calls.append("first")

    def turn(self) -> None:
        """Note it, and fail as often as there are errors."""
        self.calls.append("turn")
        if self.errors:
            raise self.errors.pop(0)
        self.stop()

    def last(self) -> None:
        """Note it."""
        self.calls.append("last")


def test_a_beat_follows_each_turn() -> None:
    """What is prepared before the first turn and cleared up after the last runs once, in the loop's own thread."""
    loop = Counting()
    loop.start()
    loop.stop(5)
    eventually(lambda: loop.calls[-1:] == ["last"])
    assert loop.calls in (["first", "turn", "beat", "last"], ["first", "last"])
    loop = Counting()
    loop.run()
    assert loop.calls == ["first", "turn", "beat", "last"]


def test_a_loop_that_was_stopped_never_starts() -> None:
    """A process that is told to end while it begins starts nothing any more: no row, no connection, no port."""
    loop = Counting()
    loop.stop()
    loop.start()
    assert loop._thread is None
    assert loop.calls == []


@pytest.mark.parametrize("name", LOOPS)
def test_a_stop_ends_the_wait_of_every_loop(name: str) -> None:
    """Whatever it waits for, it ends within a moment."""
    loop = LOOPS[name]()
    before = set(threading.enumerate())
    loop.start()
    time.sleep(0.2)  # so that it waits
    assert _threads(loop, before)
    began = time.monotonic()
    loop.stop(10)
    assert _threads(loop, before) == []
    assert time.monotonic() - began < 5


def test_a_loop_may_stop_itself() -> None:
    """It does not wait for its own thread."""
    loop = Counting()
    began = time.monotonic()
    loop.start()
    eventually(lambda: loop.calls[-1:] == ["last"])
    assert time.monotonic() - began < 1.0


def test_without_a_crash_an_unforeseen_error_is_logged_once_and_the_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A turn that failed does not beat, so the watchdog finds a loop that only fails; the text is never logged."""
    monkeypatch.setattr(module, "AFTER_ERROR_SECONDS", 0.001)
    loop = Counting()
    loop.errors = [ZeroDivisionError("canary"), ZeroDivisionError("canary"), SystemExit(0)]
    loop.run()
    assert loop.calls == ["first", *["turn"] * 4, "beat", "last"]
    lines = [record.message for record in caplog.records if record.levelno >= logging.INFO]
    assert [line.split(",")[0] for line in lines] == ["ZeroDivisionError in counting", "SystemExit in counting"]
    assert "canary" not in "".join(lines)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("canary"), MemoryError(), SystemExit(0)], ids=lambda each: type(each).__name__
)
def test_an_unforeseen_error_in_a_loop_with_a_crash_ends_the_process(error: BaseException) -> None:
    """A process with a loop less would be deaf or idle: it says why and stops, to be started anew."""
    told = Recorder()
    process = Ending(told)
    loop = Counting()
    loop.crash = process.crash
    loop.errors = [error]
    loop.run()
    assert process.stopping.is_set()
    assert process.crashed
    assert loop.calls == ["first", "turn", "last"]
    [fatal] = told.of(FatalError)
    assert "canary" not in fatal.error  # whatever it quotes
    assert fatal.error.startswith(f"{type(error).__name__} in counting, test_loop.py:")


def test_a_loop_that_was_stopped_ends_nothing_else() -> None:
    """As the loops do when they were told to stop."""
    told = Recorder()
    process = Ending(told)
    loop = Every("tick", 0.0, lambda: loop.stop())  # noqa: PLW0108 - it is made in this line
    loop.crash = process.crash
    loop.run()
    assert (process.stopping.is_set(), process.crashed, told.signals) == (False, False, [])


def test_all_are_stopped_at_the_same_time() -> None:
    """Those that do not end share one time limit."""

    class Stubborn(Loop):
        def turn(self) -> None:
            """Hang."""
            let_go.wait()

    let_go = threading.Event()
    loops = [Stubborn(f"stubborn {number}") for number in range(5)]
    for loop in loops:
        loop.start()
    began = time.monotonic()
    stop_all(loops, 0.2)
    assert 0.2 <= time.monotonic() - began < 0.9
    assert all(loop.stopping.is_set() for loop in loops)
    let_go.set()
    stop_all(loops, 5)
    assert not any(_threads(loop, set()) for loop in loops)


def test_a_signal_stops_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that waits for signals sets `stopping`."""
    stopping = threading.Event()
    signals = Signals(stopping)

    def sigwait(numbers: object) -> None:
        assert numbers == ending.SIGNALS
        signals.stop()

    monkeypatch.setattr("signal.sigwait", sigwait)
    signals.run()
    assert stopping.is_set()
