"""RESPONDER=tests.chaos.responder:reply or :reply_async: echo, which misbehaves as the file CHAOS_RESPONDER says."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge_service.errors import ResponderUnavailable
from bridge_service.responders import echo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.turns import Task

CONTROL: Final = "CHAOS_RESPONDER"
LOOK_SECONDS: Final = 0.1

_random = random.Random()  # noqa: S311 - chance, not secrets


def reply(task: Task) -> str:
    """Echo, unless the file says what to do instead, and for which share of the calls."""
    mood = struck(_file())
    for seconds in _waits(mood):
        time.sleep(seconds)
    return _answer(mood, task)


async def reply_async(task: Task) -> str:
    """As `reply`; the worker may cancel it."""
    mood = struck(_file())
    for seconds in _waits(mood):
        await asyncio.sleep(seconds)
    return _answer(mood, task)


def control(file: Path, mood: str = "", share: float = 1.0) -> None:
    """Tell the responders of a run, or its model, what to do."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps([mood, share]))
    new.replace(file)


def struck(file: Path) -> str:
    """Return the mood for one call; '' for the calls that it spares."""
    mood, share = json.loads(file.read_text())
    return str(mood) if _random.random() < share else ""


def _file() -> Path:
    return Path(os.environ[CONTROL])


def _waits(mood: str) -> Iterator[float]:
    """Give the seconds to wait before the answer, one pause after the other."""
    if mood == "dawdles":
        yield 1.0
    while mood == "hangs" and json.loads(_file().read_text())[0] == "hangs":
        yield LOOK_SECONDS


def _answer(mood: str, task: Task) -> str:
    match mood:
        case "raises":
            raise ValueError("the responder was told to fail")
        case "is away":
            raise ResponderUnavailable("the responder was told to be away", retry_after=1)
        case "is blank":
            return "  "
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
    return echo.reply(task)
