"""A subscriber that notes in PostgreSQL what only a process can know, for `report`.

It never raises. It waits for PostgreSQL only when the process falls, and keeps for later what PostgreSQL did not take.
What a process did not live to write is missing; that it died shows in bridge.processes.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridge_service.errors import BridgeError
from bridge_service.machine.steps import Store
from bridge_service.process.loop import Loop
from bridge_service.telemetry.signals import (
    FatalError,
    ParentLost,
    PostgresLost,
    PostgresRefused,
    RedisAttemptFailed,
    RedisGivenUp,
    RedisLost,
    RedisReconnected,
    Signal,
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
"""None of these can be caused from outside: a role that may NOTIFY could fill the table."""

EVERY_SECONDS: Final = 1.0
LAST_WORDS_SECONDS: Final = 1.0
"""How long a process that falls waits for its last row."""


@dataclass(slots=True)
class _Pending:
    times: int
    since: float


class Incidents(Loop):
    """Notes `NOTED` signals, each kind at most once a second, with how often it happened. Safe from any thread.

    Parameters:
      role: `scheduler` or `worker`.
      clock: returns seconds, never goes back.
    """

    def __init__(self, store: Store, role: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("incidents")
        self._store = store
        self._role = role
        self._clock = clock
        self._pending: dict[str, _Pending] = {}
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        self._wanted = threading.Event()

    def __call__(self, signal: Signal) -> None:
        """Note `signal`, if it is in `NOTED`."""
        if not isinstance(signal, NOTED):
            return
        with self._guard:
            pending = self._pending.setdefault(signal.name, _Pending(0, self._clock()))
            pending.times += 1
        self._wanted.set()
        if isinstance(signal, FatalError | WatchdogBarked):
            # The process ends as soon as this returns. A thread, because PostgreSQL may never answer.
            last = threading.Thread(target=self.write, name="last words", daemon=True)
            last.start()
            last.join(LAST_WORDS_SECONDS)

    def wake(self) -> None:
        """End the wait for something to note."""
        self._wanted.set()

    def turn(self) -> None:
        """Wait for something to note, and write it."""
        self._wanted.wait()
        self._wanted.clear()
        if not self.write():
            self._wanted.set()
        self.pause(EVERY_SECONDS)

    def last(self) -> None:
        """Write what is left."""
        self.write()

    def write(self) -> bool:
        """Write what is pending; return whether PostgreSQL took it."""
        with self._writing:
            with self._guard:
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
        with self._guard:
            for kind, older in taken.items():
                newer = self._pending.get(kind)
                self._pending[kind] = _Pending(older.times + (newer.times if newer else 0), older.since)
