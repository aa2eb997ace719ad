"""The loop that delivers alone what failed in a set of deliveries, or held one up.

Which turns these are is lost with the process; then a set takes them once more. A turn that the app locks for an hour
delays no set, and a turn that was not tried alone yet waits for at most one call.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from bridge_service.errors import BridgeError, DatabaseBusy, DatabaseRefused, DatabaseUnavailable
from bridge_service.machine.answers import Outcome
from bridge_service.machine.steps import Store
from bridge_service.process.loop import Loop
from bridge_service.telemetry.signals import Emit, database_trouble

MOST: Final = 1000
"""How many turns are remembered at most. Beyond that the oldest is forgotten, so a set takes it again."""

RETRY_SECONDS: Final = 1.0
RETRY_MAX_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 10.0

Tell = Callable[[int, Outcome], None]


class _Try(NamedTuple):
    tries: int
    at: float  # of time.monotonic(): not before


class Alone(Loop):
    """Delivers turns one by one; those that it has not tried yet come first."""

    def __init__(self, store: Store, *, tell: Tell, emit: Emit) -> None:
        """Wire the loop.

        Parameters:
          tell: receives each outcome.
        """
        super().__init__("alone")
        self._store = store
        self._tell = tell
        self._emit = emit
        self._turns: dict[int, _Try] = {}
        self._changed = threading.Condition()

    def add(self, turns: Iterable[int]) -> None:
        """Deliver these turns alone from now on; from any thread."""
        with self._changed:
            for turn_id in turns:
                self._turns.setdefault(turn_id, _Try(0, 0.0))
            while len(self._turns) > MOST:
                del self._turns[next(iter(self._turns))]
            self._changed.notify()

    def turns(self) -> list[int]:
        """Return the turns that are delivered alone; from any thread."""
        with self._changed:
            return list(self._turns)

    def wake(self) -> None:
        """End the wait for a turn."""
        with self._changed:
            self._changed.notify()

    def turn(self) -> None:
        """Deliver the next turn, once it may be tried."""
        turn_id = self._next()
        if turn_id is None or self.stopping.is_set():
            return
        outcome: Outcome | None = None
        try:
            outcome = self._deliver(turn_id)
        except DatabaseBusy:
            pass  # another process delivers it, or the app holds it
        except BridgeError as error:
            self._emit(database_trouble(error))
            if isinstance(error, DatabaseUnavailable):
                self.pause(RETRY_SECONDS)
        if outcome is not None:
            self._tell(turn_id, outcome)
        self._note(turn_id, again=outcome is None or must_be_alone(outcome))

    def _deliver(self, turn_id: int) -> Outcome:
        try:
            return self._store.deliver(turn_id)
        except DatabaseRefused as error:
            return self._store.unreadable(turn_id, "deliver", f"{type(error).__name__}: {error.words}")

    def _next(self) -> int | None:
        with self._changed:
            now = time.monotonic()
            ready = [(each.tries > 0, each.at, turn_id) for turn_id, each in self._turns.items() if each.at <= now]
            if ready:
                return min(ready)[2]
            waits = min((each.at - now for each in self._turns.values()), default=IDLE_SECONDS)
            if not self.stopping.is_set():
                self._changed.wait(min(waits, IDLE_SECONDS))
        return None

    def _note(self, turn_id: int, *, again: bool) -> None:
        with self._changed:
            before = self._turns.pop(turn_id, _Try(0, 0.0))
            if again:
                seconds = min(RETRY_SECONDS * 2.0**before.tries, RETRY_MAX_SECONDS)
                self._turns[turn_id] = _Try(min(before.tries + 1, 10), time.monotonic() + seconds)


def must_be_alone(outcome: Outcome) -> bool:
    """Tell whether a turn is delivered alone after this outcome: it is `typing` still, or a set could not take it."""
    if outcome.name == "nothing":
        return outcome.details.get("state") == "typing"
    return outcome.name in {"alone", "failed", "later"}
