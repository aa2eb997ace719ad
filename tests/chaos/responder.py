"""RESPONDER=tests.chaos.responder:reply or :reply_async: echo, which misbehaves as the file CHAOS_RESPONDER says.

Where a reply may have several messages, most have three. The first one covers the group and says what the task tells
of an interrupted reply; each bears a mark, as tests/support/tact.py reads it.
"""

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
from bridge_service.responders import Reply, Whole, echo
from tests.support.tact import Mark, Told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.turns import Task

CONTROL: Final = "CHAOS_RESPONDER"
LOOK_SECONDS: Final = 0.1
SEVERAL: Final = 0.8
"""Share of the replies that have several messages, where they may."""

_random = random.Random()  # noqa: S311 - chance, not secrets


def reply(task: Task) -> str | Reply:
    """Echo, unless the file says what to do instead, and for which share of the calls."""
    mood = struck(_file())
    for seconds in _waits(mood):
        time.sleep(seconds)
    return _answer(mood, task)


async def reply_async(task: Task) -> str | Reply:
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


def _answer(mood: str, task: Task) -> str | Reply:
    match mood:
        case "raises":
            raise ValueError("the responder was told to fail")
        case "is away":
            raise ResponderUnavailable("the responder was told to be away", retry_after=1)
        case "is blank":
            return "  "
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
    return echo.reply(task) if task.most_parts == 1 else _in_parts(task)


def _in_parts(task: Task) -> Reply:
    count = task.most_parts if _random.random() < SEVERAL else 1
    name = f"{_random.getrandbits(40):x}"
    marks = [str(Mark(name, number, count)) for number in range(1, count + 1)]
    first = [echo.reply(task), *Told.of(task.said, task.withheld).lines, marks[0]]
    return Reply((Whole("\n".join(first)), *marks[1:]))
