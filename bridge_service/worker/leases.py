"""The turns that this process composes, and the thread that renews their leases and ends calls that lost theirs."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from bridge_service.errors import BridgeError, DatabaseBusy
from bridge_service.machine.steps import LEASE_SECONDS, Store
from bridge_service.process.loop import Loop
from bridge_service.telemetry.signals import DuplicatePrevented, Emit, database_trouble

LOOK_SECONDS = 1.0
"""How often lost leases are looked for (E2)."""


@dataclass(slots=True, eq=False)
class _Lease:
    turn_id: int
    since: float
    cancel: Callable[[], None] | None  # None: the call cannot be ended, or was ended before


class Leases(Loop):
    """Renews what is held, every third of a lease, all in one call (T6)."""

    def __init__(self, store: Store, emit: Emit, *, responder_timeout: float) -> None:
        """Set up.

        Parameters:
          responder_timeout: seconds until a call that is not over counts as hung. Then it is cancelled if it can be,
            its lease runs out, and another worker takes the turn.
        """
        super().__init__("leases")
        self.freed: Callable[[], None] = lambda: None  # each time a lease is let go
        self._store = store
        self._responder_timeout = responder_timeout
        self._emit = emit
        # By token: a turn whose responder hangs may come back to another thread of the same process.
        self._held: dict[UUID, _Lease] = {}
        self._changed = threading.Condition()
        self._renewed_at = -math.inf

    @contextmanager
    def held(self, turn_id: int, token: UUID) -> Iterator[None]:
        """Hold a claimed turn's lease while the block runs."""
        self.hold(turn_id, token)
        try:
            yield
        finally:
            self.let_go(token)

    def hold(self, turn_id: int, token: UUID, cancel: Callable[[], None] | None = None) -> None:
        """Renew a claimed turn's lease until `let_go`; `cancel` ends the call if it hangs or its lease is lost."""
        with self._changed:
            self._held[token] = _Lease(turn_id, time.monotonic(), cancel)

    def call_over(self, token: UUID) -> None:
        """Note that there is no call to cancel any more."""
        with self._changed:
            self._held[token].cancel = None

    def let_go(self, token: UUID) -> None:
        """Renew it no more."""
        with self._changed:
            del self._held[token]
            self._changed.notify_all()
        self.freed()

    def count(self) -> int:
        """Return how many are held."""
        return len(self._held)

    def drain(self) -> None:
        """Wait until none is held."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held)

    def hung(self) -> int:
        """Return how many responders have run for longer than `responder_timeout`."""
        return sum(self._is_hung(lease) for lease in self._all().values())

    def release(self) -> None:
        """Give every held turn back in one call; what their responders return later is refused."""
        leases = {lease.turn_id: token for token, lease in self._all().items()}
        if leases:
            self._store.release(leases)

    def turn(self) -> None:
        """Wait a moment; then renew if it is time, and end the calls that hang or lost their lease."""
        if self.pause(min(LOOK_SECONDS, LEASE_SECONDS / 3)):
            return
        for step in (self._renew, self._cancel):
            try:
                step()
            except DatabaseBusy:
                pass  # another session locks one of the turns
            except BridgeError as error:
                # The lease outlives two missed renewals; after that the token protects the turn.
                self._emit(database_trouble(error))

    def _cancel(self) -> None:
        running = {token: lease for token, lease in self._all().items() if lease.cancel is not None}
        for lease in running.values():
            if self._is_hung(lease):
                self._end(lease)
        if not running:
            return
        for token in self._store.lost_leases({token: lease.turn_id for token, lease in running.items()}):
            if self._end(running[token]):
                self._emit(DuplicatePrevented(running[token].turn_id, "finish"))

    def _renew(self) -> None:
        now = time.monotonic()
        if now < self._renewed_at + LEASE_SECONDS / 3:
            return
        self._renewed_at = now
        # A turn that came back to this process stands in its last place here: with its present token.
        leases = {lease.turn_id: token for token, lease in self._all().items() if not self._is_hung(lease)}
        if leases:
            self._store.renew(leases)

    def _all(self) -> dict[UUID, _Lease]:
        with self._changed:
            return dict(self._held)

    def _is_hung(self, lease: _Lease) -> bool:
        return lease.since <= time.monotonic() - self._responder_timeout

    def _end(self, lease: _Lease) -> bool:
        """Cancel a lease's call; return False if it is over, or was cancelled before."""
        with self._changed:
            cancel, lease.cancel = lease.cancel, None
        if cancel is not None:
            cancel()
        return cancel is not None
