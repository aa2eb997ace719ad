"""The ID that stands in the names of the queue's keys, `dramatiq:{ID}:...`. PostgreSQL makes it.

Two installations may share a Redis: each finds only the ids of its own turns there. The ID changes when the bridge is
installed anew, and when another server takes over. So every process asks again after some seconds.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from bridge_service.errors import BridgeError

REMEMBER_SECONDS: Final = 5.0
"""How long an answer counts."""


class QueueId:
    """The ID, asked for at most every `REMEMBER_SECONDS`; safe from any thread."""

    def __init__(self, ask: Callable[[], str]) -> None:
        """Remember how to ask PostgreSQL; nothing is asked before the first call."""
        self._ask = ask
        self._lock = threading.Lock()
        self._known: str | None = None
        self._ask_at = 0.0

    def __call__(self) -> str:
        """Return the ID. While PostgreSQL is away, return the last one it told.

        Raises:
          BridgeError: PostgreSQL has not told it yet, and does not tell it now.
        """
        with self._lock:
            if self._known is None or time.monotonic() >= self._ask_at:
                try:
                    self._known = self._ask()
                except BridgeError:
                    if self._known is None:
                        raise
                self._ask_at = time.monotonic() + REMEMBER_SECONDS
            return self._known
