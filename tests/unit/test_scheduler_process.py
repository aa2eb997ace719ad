from __future__ import annotations

import pytest

from bridge_service.telemetry.signals import FatalError
from schedulers.__main__ import Process
from tests.support.recorder import Recorder


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("canary"), MemoryError(), SystemExit(0)], ids=lambda each: type(each).__name__
)
def test_whatever_ends_a_thread_ends_the_process(error: BaseException) -> None:
    """A process with a thread less would be deaf or idle: it says why and stops, to be started anew."""
    told = Recorder()
    process = Process(told)
    process.spawn("listener", lambda: _raise(error)).join(5)
    assert process.stopping.is_set()
    assert process.crashed
    [fatal] = told.of(FatalError)
    assert "canary" not in fatal.error  # whatever it quotes
    assert fatal.error.startswith(f"{type(error).__name__} in listener, test_scheduler_process.py:")


def test_a_thread_that_returns_ends_nothing() -> None:
    """As the loops do when they were told to stop."""
    told = Recorder()
    process = Process(told)
    process.spawn("tick", lambda: None).join(5)
    assert (process.stopping.is_set(), process.crashed, told.events) == (False, False, [])
