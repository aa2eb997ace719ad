"""The worker of crashing.py, which holds the lock by which it tells Dramatiq's parent that it is up for a second."""

from __future__ import annotations

import time
from multiprocessing import synchronize

from tests.chaos import crashing  # arms the trap

__all__ = ["crashing"]

TELLS_SECONDS = 1.0

_tell = synchronize.Event.set


def _tell_slowly(event: synchronize.Event) -> None:
    with event._cond:  # type: ignore[attr-defined]
        time.sleep(TELLS_SECONDS)
    _tell(event)


synchronize.Event.set = _tell_slowly  # type: ignore[method-assign,assignment]
