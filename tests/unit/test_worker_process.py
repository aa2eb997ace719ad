from __future__ import annotations

import threading
from typing import Any
from unittest.mock import MagicMock

from bridge_service.events import Stopped
from bridge_service.worker import WorkerProcess
from tests.support.recorder import Recorder


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
        stub, stub, stub, stub, emit=told, watchdog=stub, measure=stub, heartbeat=stub, incidents=stub
    )
    end = threading.Thread(target=process._finish, daemon=True)
    end.start()
    assert asked.wait(5)
    end.join(10)
    assert not end.is_alive()
    assert told.events == [Stopped()]
    answer.set()
