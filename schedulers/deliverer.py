"""The loop that delivers: replies whose time has come become messages of the app, in sets (B1).

It needs neither Redis nor a worker, so a reply is not late because responders are busy. The table says what is due. A
bell that is lost delays a delivery until the sweep, and never loses it.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from bridge_service.errors import BridgeError, DatabaseBusy
from bridge_service.machine.answers import Deliveries, Outcome
from bridge_service.machine.steps import Store
from bridge_service.process.loop import Loop
from bridge_service.process.telling import signal_of
from bridge_service.telemetry.signals import Emit, database_trouble
from schedulers.alone import Alone, must_be_alone

BATCH: Final = 16
"""Replies of a set. Each costs up to three subtransactions, and beyond 64 of them PostgreSQL slows each session."""

SWEEP_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0

GATHER_SECONDS: Final = 0.02
"""Sets are this far apart under load, so that each gathers some replies. The first one comes at once, and so does the
one after a full set."""


class Deliverer(Loop):
    """Delivers what is due, and plans its own next moment."""

    def __init__(self, store: Store, *, on_pushable: Callable[[], None], emit: Emit) -> None:
        """Wire a deliverer.

        Parameters:
          on_pushable: called when a delivery's outcome may have made a turn due.
        """
        super().__init__("deliverer")
        self._store = store
        self._on_pushable = on_pushable
        self._emit = emit
        self._wanted = threading.Event()
        self._due_at: float | None = None  # of time.monotonic()
        self.alone = Alone(store, tell=self._tell, emit=emit)

    def first(self) -> None:
        """Look at once for what is due."""
        self.wake()

    def wake(self) -> None:
        """Ask for a look; from any thread, at once."""
        self._wanted.set()

    def turn(self) -> None:
        """Wait until a delivery is due, or a look is asked for, and deliver."""
        self._wanted.wait(self._seconds())
        self._wanted.clear()
        if self.stopping.is_set():
            return
        began = time.monotonic()
        try:
            done = self._deliver()
        except DatabaseBusy:
            self.wake()
        except BridgeError as error:
            self._emit(database_trouble(error))
            self.pause(RETRY_SECONDS)
            self.wake()
        else:
            self._plan(done.due_in)
            if done.outcomes and self._seconds() == 0:
                return  # a full set, or one that a lock ended
        self.pause(max(0.0, began + GATHER_SECONDS - time.monotonic()))

    def _deliver(self) -> Deliveries:
        alone = self.alone.turns()
        try:
            done = self._store.deliver_due(BATCH, alone)
        except BridgeError:
            # A turn spoiled the set, and nothing tells which. Or PostgreSQL is away: then this raises too.
            self.alone.add(self._store.due_deliveries(BATCH, alone))
            return Deliveries({}, 0.0)
        self.alone.add(turn_id for turn_id, outcome in done.outcomes.items() if must_be_alone(outcome))
        for turn_id, outcome in done.outcomes.items():
            self._tell(turn_id, outcome)
        return done

    def _tell(self, turn_id: int, outcome: Outcome) -> None:
        signal = signal_of(turn_id, outcome, "deliver")
        if signal is not None:
            self._emit(signal)
        if outcome.next_turn is not None or outcome.name in {"superseded", "interrupted", "failed", "nothing"}:
            self._on_pushable()

    def _plan(self, due_in: float | None) -> None:
        self._due_at = None if due_in is None else time.monotonic() + due_in

    def _seconds(self) -> float:
        """Return how long to wait: until the next delivery is due, and at most until the sweep."""
        if self._due_at is None:
            return SWEEP_SECONDS
        return min(max(0.0, self._due_at - time.monotonic()), SWEEP_SECONDS)
