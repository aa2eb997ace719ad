"""A subscriber that notes in PostgreSQL what only a process can know, for `report`.

Best effort: it never raises, never waits for PostgreSQL but at the very end of a process, and keeps what it could not
write for later. What a process did not live to write is missing; that it died shows in bridge.processes.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridge_service.errors import BridgeError
from bridge_service.machine.steps import Store
from bridge_service.telemetry.signals import (
    Event,
    FatalError,
    ParentLost,
    PostgresLost,
    PostgresRefused,
    RedisAttemptFailed,
    RedisGivenUp,
    RedisLost,
    RedisReconnected,
    WatchdogBarked,
)

NOTED: Final = (
    RedisAttemptFailed,
    RedisGivenUp,
    RedisReconnected,
    RedisLost,
    PostgresLost,
    PostgresRefused,
    FatalError,
    WatchdogBarked,
    ParentLost,
)
"""Nothing that a stranger can cause: whoever may NOTIFY could fill the table."""

EVERY_SECONDS: Final = 1.0
LAST_WORDS_SECONDS: Final = 1.0
"""How long a process that is about to fall waits for its last row."""


@dataclass(slots=True)
class _Pending:
    times: int
    since: float


class Incidents:
    """Notes `NOTED` events, each kind at most once a second, with how often it happened. Safe from any thread.

    Parameters:
      role: `scheduler` or `worker`.
      clock: returns seconds, never goes back.
    """

    def __init__(self, store: Store, role: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._role = role
        self._clock = clock
        self._pending: dict[str, _Pending] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        """Note `event`, if it is one to be noted."""
        if not isinstance(event, NOTED):
            return
        with self._lock:
            pending = self._pending.setdefault(event.name, _Pending(0, self._clock()))
            pending.times += 1
        self._wanted.set()
        if isinstance(event, FatalError | WatchdogBarked):
            # The process ends as soon as this returns. From a thread, for PostgreSQL may be what everything hangs on.
            last = threading.Thread(target=self.write, name="last words", daemon=True)
            last.start()
            last.join(LAST_WORDS_SECONDS)

    def start(self) -> None:
        """Start writing. Call it in the process itself, after a fork."""
        self._thread = threading.Thread(target=self._run, name="incidents", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 1.0) -> None:
        """Write what is left, for at most so many seconds; twice is harmless, so is stopping what never started."""
        self._stopping.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            self._wanted.clear()
            if not self.write():
                self._wanted.set()
            self._stopping.wait(EVERY_SECONDS)
        self.write()

    def write(self) -> bool:
        """Write what is pending; return whether PostgreSQL took it."""
        with self._writing:
            with self._lock:
                taken, self._pending = self._pending, {}
            try:
                while taken:
                    kind, pending = next(iter(taken.items()))
                    self._store.note_incident(kind, self._role, pending.times, self._clock() - pending.since)
                    del taken[kind]
            except BridgeError:
                self._put_back(taken)
                return False
            return True

    def _put_back(self, taken: dict[str, _Pending]) -> None:
        with self._lock:
            for kind, older in taken.items():
                newer = self._pending.get(kind)
                self._pending[kind] = _Pending(older.times + (newer.times if newer else 0), older.since)
