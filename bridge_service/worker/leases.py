"""The turns this process composes just now, and the thread that renews their leases."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from bridge_service.errors import BridgeError, DatabaseBusy
from bridge_service.machine.steps import LEASE_SECONDS, Store
from bridge_service.telemetry.signals import Emit, database_trouble


@dataclass(frozen=True, slots=True)
class _Lease:
    turn_id: int
    since: float


class Leases:
    """Renews, every third of a lease and all in one call, what `held` holds (T6)."""

    def __init__(self, store: Store, emit: Emit, *, responder_timeout: float) -> None:
        """Set up.

        Parameters:
          responder_timeout: seconds until a responder that has not returned is taken for hung: its lease runs out, and
            another worker takes the turn.
        """
        self._store = store
        self._responder_timeout = responder_timeout
        self._emit = emit
        # By token: a turn whose responder hangs here may come back to another thread of this very process.
        self._held: dict[UUID, _Lease] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self.beat: Callable[[], None] = lambda: None  # each time the thread turns; for a watchdog

    def start(self) -> None:
        """Start renewing."""
        self._thread.start()

    @contextmanager
    def held(self, turn_id: int, token: UUID) -> Iterator[None]:
        """Keep a claimed turn's lease alive for as long as the block runs."""
        with self._lock:
            self._held[token] = _Lease(turn_id, time.monotonic())
        try:
            yield
        finally:
            with self._lock:
                del self._held[token]

    def hung(self) -> int:
        """How many responders have been at it for longer than any should."""
        latest = time.monotonic() - self._responder_timeout
        with self._lock:
            return sum(lease.since <= latest for lease in self._held.values())

    def release(self) -> None:
        """Give every held turn back at once; whatever their responders still return is refused."""
        with self._lock:
            leases = {lease.turn_id: token for token, lease in self._held.items()}
        if leases:
            self._store.release(leases)

    def stop(self) -> None:
        """Stop renewing; twice is harmless."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(LEASE_SECONDS / 3):
            latest = time.monotonic() - self._responder_timeout
            with self._lock:
                leases = {lease.turn_id: token for token, lease in self._held.items() if lease.since > latest}
            self.beat()
            if leases:
                try:
                    self._store.renew(leases)
                except DatabaseBusy:
                    continue  # somebody holds one of them just now
                except BridgeError as error:
                    # The lease outlives two missed renewals; after that the fence protects the turn.
                    self._emit(database_trouble(error))
