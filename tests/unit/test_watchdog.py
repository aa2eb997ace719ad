from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing
from typing import Any
from unittest.mock import MagicMock

import pytest

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.process import watchdog as module
from bridge_service.process.watchdog import PATIENCE_SECONDS, Watchdog
from bridge_service.telemetry.signals import WatchdogBarked
from bridge_service.worker.process import WorkerProcess
from tests.support.recorder import Recorder
from tests.support.signals import Clock
from tests.support.waiting import eventually


class Kennel:
    """A watchdog on a clock that a test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.told = Recorder()
        self.barks = threading.Semaphore(0)
        self.barked = 0
        self.dog = Watchdog(self.told, bark=self._bark, clock=self.clock)

    def _bark(self) -> None:
        self.barked += 1
        self.barks.release()


@pytest.fixture
def kennel() -> Kennel:
    """Give a watchdog with the patience it has in production."""
    return Kennel()


def test_it_is_silent_while_every_loop_turns(kennel: Kennel) -> None:
    """Loops that beat within the patience raise no alarm, however long they run."""
    beats = [kennel.dog.watch(loop) for loop in ("listener", "planner")]
    for _ in range(5):
        kennel.clock.now += PATIENCE_SECONDS
        kennel.dog.look()
        for beat in beats:
            beat()
    assert kennel.barked == 0
    assert kennel.told.signals == []


def test_it_barks_for_the_loop_that_stands_still(kennel: Kennel) -> None:
    """One loop that does not turn ends the process, which says which one and for how long."""
    kennel.dog.watch("listener")
    beat = kennel.dog.watch("planner")
    kennel.clock.now += PATIENCE_SECONDS + 1
    beat()
    kennel.dog.look()
    assert kennel.barked == 1
    assert kennel.told.signals == [WatchdogBarked("listener", PATIENCE_SECONDS + 1)]


def test_a_loop_that_never_turned_is_watched_too(kennel: Kennel) -> None:
    """The time counts from the watching on, not from the first beat."""
    kennel.dog.watch("consumer")
    kennel.clock.now += PATIENCE_SECONDS + 0.1
    kennel.dog.look()
    assert kennel.barked == 1


def test_it_tells_how_old_each_beat_is(kennel: Kennel) -> None:
    """The ages are in seconds, by loop."""
    beat = kennel.dog.watch("planner")
    kennel.clock.now += 3
    kennel.dog.watch("listener")
    kennel.clock.now += 2
    assert kennel.dog.ages() == {"planner": 5, "listener": 2}
    beat()
    assert kennel.dog.ages() == {"planner": 0, "listener": 2}


def turns(kennel: Kennel, monkeypatch: pytest.MonkeyPatch, *steps: float) -> None:
    """Let the watchdog turn once for each step, which is how long its pause takes by the test's clock."""
    for step in steps:

        def pause(seconds: float, step: float = step) -> bool:
            assert seconds == module.LOOK_SECONDS
            kennel.clock.now += step
            return False

        monkeypatch.setattr(kennel.dog, "pause", pause)
        kennel.dog.turn()


@pytest.mark.parametrize(
    ("steps", "barks"),
    [
        pytest.param([5.0] * 24, 0, id="quiet for as long as is allowed"),
        pytest.param([5.0] * 25, 1, id="quiet for too long"),
        pytest.param([5.0, 3600.0, 5.0], 0, id="the whole process was frozen"),
        pytest.param([5.0, 3600.0, *[5.0] * 25], 1, id="frozen, and then a loop stands still all the same"),
    ],
)
def test_a_process_that_was_frozen_gets_a_new_chance(
    kennel: Kennel, monkeypatch: pytest.MonkeyPatch, steps: list[float], barks: int
) -> None:
    """Hours in a stopped machine are no alarm; minutes in a standing loop are."""
    kennel.dog.watch("planner")
    turns(kennel, monkeypatch, *steps)
    assert kennel.barked == barks


def test_the_beat_works_after_a_new_chance(kennel: Kennel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that turned before the process was frozen and turns again afterwards is heard."""
    beat = kennel.dog.watch("planner")
    turns(kennel, monkeypatch, 5.0, 3600.0)
    kennel.clock.now += 100
    beat()
    assert kennel.dog.ages() == {"planner": 0}


def test_it_looks_by_itself_and_stops(kennel: Kennel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started, it barks without anybody's call; stopped, twice even, its thread ends."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    kennel.dog.watch("planner")
    kennel.clock.now += PATIENCE_SECONDS + 1
    kennel.dog.start()
    assert kennel.barks.acquire(timeout=5)
    kennel.dog.stop()
    kennel.dog.stop()
    eventually(lambda: all(thread.name != "watchdog" for thread in threading.enumerate()))


def test_a_bark_ends_the_process_with_exit_code_1() -> None:
    """Nothing that hangs can hold it up: no cleaning up, no waiting for threads."""
    script = (
        "import atexit, threading, bridge_service.process.watchdog as w\n"
        "atexit.register(print, 'cleaned up')\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "w.end_process()"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")


def test_a_loop_may_be_watched_while_another_thread_looks(kennel: Kennel) -> None:
    """Whoever asks for the ages meets no table that grows under its hands."""

    class Meanwhile(float):
        def __sub__(self, other: float) -> float:
            kennel.dog.watch("planner")
            return float(self) - other

    kennel.dog.watch("listener")
    kennel.clock.now = Meanwhile(kennel.clock.now)
    assert kennel.dog.ages() == {"listener": 0.0}


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_the_loops_of_a_worker_are_watched(*, is_async: bool) -> None:
    """Consumer, leases and calls tell the watchdog themselves; the process tells whether a responder is left."""
    stub: Any = MagicMock(is_async=is_async)
    watchdog = Watchdog(Recorder())
    process = WorkerProcess(
        *[stub] * 4,
        responder=stub,
        calls=stub,
        emit=Recorder(),
        watchdog=watchdog,
        measure=stub,
        heartbeat=stub,
        incidents=stub,
    )
    process._stopping.set()
    process._tick.stop()
    with closing(WaitingBroker("redis://127.0.0.1", emit=Recorder(), middleware=[], queue_id=str)) as broker:
        process.after_worker_boot(broker, stub)
        watchdog.stop()
        assert set(watchdog.ages()) == {"consumer", "leases", "responders", *(["calls"] if is_async else [])}
        for beat in (broker.beat, stub.beat):
            assert beat.__qualname__.startswith("Watchdog.")
