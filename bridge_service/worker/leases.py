"""The turns that this process composes, and the thread that renews their leases."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from bridge_service.errors import BridgeError, DatabaseBusy
from bridge_service.machine.steps import LEASE_SECONDS, Store
from bridge_service.process.loop import Loop
from bridge_service.telemetry.signals import Emit, database_trouble


@dataclass(frozen=True, slots=True)
class _Lease:
    turn_id: int
    since: float


class Leases(Loop):
    """Renews what `held` holds, every third of a lease, all in one call (T6)."""

    def __init__(self, store: Store, emit: Emit, *, responder_timeout: float) -> None:
        """Set up.

        Parameters:
          responder_timeout: seconds until a responder that has not returned counts as hung. Then its lease runs out,
            and another worker takes the turn.
        """
        super().__init__("leases")
        self._store = store
        self._responder_timeout = responder_timeout
        self._emit = emit
        # By token: a turn whose responder hangs may come back to another thread of the same process.
        self._held: dict[UUID, _Lease] = {}
        self._guard = threading.Lock()

    @contextmanager
    def held(self, turn_id: int, token: UUID) -> Iterator[None]:
        """Renew a claimed turn's lease while the block runs."""
        with self._guard:
            self._held[token] = _Lease(turn_id, time.monotonic())
        try:
            yield
        finally:
            with self._guard:
                del self._held[token]

    def hung(self) -> int:
        """Return how many responders have run for longer than `responder_timeout`."""
        latest = time.monotonic() - self._responder_timeout
        with self._guard:
            return sum(lease.since <= latest for lease in self._held.values())

    def release(self) -> None:
        """Give every held turn back in one call; what their responders return later is refused."""
        with self._guard:
            leases = {lease.turn_id: token for token, lease in self._held.items()}
        if leases:
            self._store.release(leases)

    def turn(self) -> None:
        """Wait for a third of a lease, then renew."""
        if self.pause(LEASE_SECONDS / 3):
            return
        latest = time.monotonic() - self._responder_timeout
        with self._guard:
            leases = {lease.turn_id: token for token, lease in self._held.items() if lease.since > latest}
        try:
            if leases:
                self._store.renew(leases)
        except DatabaseBusy:
            return  # another session locks one of the turns
        except BridgeError as error:
            # The lease outlives two missed renewals; after that the token protects the turn.
            self._emit(database_trouble(error))
