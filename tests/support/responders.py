"""Responders that take their time: RESPONDER=tests.support.responders:brief."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from typing import TYPE_CHECKING, Final

from bridge_service.responders import echo

if TYPE_CHECKING:
    from bridge_service.turns import Task

BRIEF_SECONDS: Final = 1.0
STUCK_SECONDS: Final = 60.0
HANGS_AT: Final = "silence"

_calls = itertools.count()


def brief(task: Task) -> str:
    """Echo after a second: a turn that is under way and soon done."""
    time.sleep(BRIEF_SECONDS)
    return echo.reply(task)


def stuck(task: Task) -> str:
    """Echo after a minute: longer than any process may take to end."""
    time.sleep(STUCK_SECONDS)
    return echo.reply(task)


def hanging(task: Task) -> str:
    """Echo; but where the word is `silence`, never return from this process's first call."""
    if HANGS_AT in [line.content for line in task.messages] and next(_calls) == 0:
        threading.Event().wait()
    return echo.reply(task)


async def deaf(task: Task) -> str:
    """Echo; but this process's first call ends in a minute, and not when it is told to."""
    end = time.monotonic() + (STUCK_SECONDS if next(_calls) == 0 else 0)
    while time.monotonic() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(end - time.monotonic())
    return echo.reply(task)
