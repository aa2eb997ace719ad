"""RESPONDER=tests.chaos.responder:reply: echo, which misbehaves as the file named by CHAOS_RESPONDER says."""

from __future__ import annotations

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
    from bridge_service.turns import Task

CONTROL: Final = "CHAOS_RESPONDER"
LOOK_SECONDS: Final = 0.1

_random = random.Random()  # noqa: S311 - chance, not secrets


def reply(task: Task) -> str:
    """Echo, unless the file says what to do instead, and for which share of the calls."""
    mood, share = _mood()
    if mood and _random.random() < share:
        match mood:
            case "raises":
                raise ValueError("the responder was told to fail")
            case "is away":
                raise ResponderUnavailable("the responder was told to be away", retry_after=1)
            case "is blank":
                return "  "
            case "hangs":
                while _mood()[0] == "hangs":
                    time.sleep(LOOK_SECONDS)
            case "dawdles":
                time.sleep(1)
            case "dies":
                os.kill(os.getpid(), signal.SIGKILL)
    return echo.reply(task)


def control(file: Path, mood: str = "", share: float = 1.0) -> None:
    """Tell the responders of a run what to do."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps([mood, share]))
    new.replace(file)


def _mood() -> tuple[str, float]:
    mood, share = json.loads(Path(os.environ[CONTROL]).read_text())
    return str(mood), float(share)
