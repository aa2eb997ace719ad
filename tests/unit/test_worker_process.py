from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, call

from bridge_service.telemetry.signals import Stopped
from bridge_service.worker.process import DRAIN_SECONDS, WorkerProcess
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    import pytest


def test_a_postgresql_that_does_not_answer_holds_up_no_end() -> None:
    """A worker that drains gives its turns back if it can; if no answer comes it ends all the same, in its time."""
    answer, asked = threading.Event(), threading.Event()
    told = Recorder()
    stub: Any = MagicMock()

    def release() -> None:
        asked.set()
        answer.wait(30)

    stub.release = release
    process = WorkerProcess(
        *[stub] * 4,
        responder=stub,
        calls=stub,
        emit=told,
        watchdog=stub,
        measure=stub,
        heartbeat=stub,
        incidents=stub,
    )
    end = threading.Thread(target=process._finish, daemon=True)
    end.start()
    assert asked.wait(5)
    end.join(10)
    assert not end.is_alive()
    assert told.signals == [Stopped()]
    # What it writes of itself was begun before anybody waited, not one after the other.
    assert stub.stop.call_args_list[:2] == [call(0), call(0)]
    answer.set()


def test_the_time_to_drain_runs_from_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dramatiq takes notice of it up to a second later, which is not added to the time that begun turns may take."""
    stub: Any = MagicMock()
    process = WorkerProcess(
        *[stub] * 4,
        responder=stub,
        calls=stub,
        emit=Recorder(),
        watchdog=stub,
        measure=stub,
        heartbeat=stub,
        incidents=stub,
    )
    clock = [1000.0]
    monkeypatch.setattr("bridge_service.worker.process.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("bridge_service.worker.process.os._exit", stub.exit)
    process._drained = stub
    stub.wait.return_value = False
    monkeypatch.setattr(process, "_finish", stub.finish)
    process._told_to_end()
    clock[0] += 0.75
    process._told_to_end()  # as the stop itself begins
    process._end_in_time()
    assert stub.mock_calls == [call.wait(DRAIN_SECONDS - 0.75), call.finish(), call.exit(0)]


def test_turns_are_given_back_only_after_the_calls_that_may_end_in_time() -> None:
    """Dramatiq's threads end at once while an async responder's calls are under way: the process waits for these."""
    stub: Any = MagicMock()
    process = WorkerProcess(
        *[stub] * 4,
        responder=stub,
        calls=stub,
        emit=Recorder(),
        watchdog=stub,
        measure=stub,
        heartbeat=stub,
        incidents=stub,
    )
    process.after_worker_shutdown(stub, stub)
    called = [name for name, _, _ in stub.mock_calls]
    assert called.index("drain") < called.index("release")
