"""Remembers what happened, for tests that wait for it."""

from __future__ import annotations

import time
from threading import Condition
from typing import TYPE_CHECKING, TypeVar

from tests.support.waiting import TIMEOUT_SECONDS

if TYPE_CHECKING:
    from bridge_service.telemetry.signals import Event

EventT = TypeVar("EventT", bound="Event")


class Recorder:
    """An `Emit` that keeps every event; from any thread."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = Condition()

    def __call__(self, event: Event) -> None:
        """Keep an event."""
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, kind: type[EventT]) -> list[EventT]:
        """Return the events of one kind, oldest first."""
        with self._changed:
            return [event for event in self.events if isinstance(event, kind)]

    def names(self, *without: str) -> list[str]:
        """Return the names of all events, oldest first, but for those of `without`."""
        with self._changed:
            return [event.name for event in self.events if event.name not in without]

    def wait_for(self, kind: type[EventT], count: int = 1, timeout: float = TIMEOUT_SECONDS) -> list[EventT]:
        """Return the events of one kind as soon as there are `count`.

        Raises:
          AssertionError: there were not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(found := [event for event in self.events if isinstance(event, kind)]) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"{len(found)} of {count} {kind.__name__}, but {[each.name for each in self.events]}"
                self._changed.wait(left)
            return found

    def clear(self) -> None:
        """Forget all that happened so far."""
        with self._changed:
            self.events.clear()
