"""Remembers what happened, for tests that wait for it."""

from __future__ import annotations

import time
from threading import Condition
from typing import TYPE_CHECKING, TypeVar

from tests.support.waiting import TIMEOUT_SECONDS

if TYPE_CHECKING:
    from bridge_service.telemetry.signals import Signal

SignalT = TypeVar("SignalT", bound="Signal")


class Recorder:
    """An `Emit` that keeps every signal; from any thread."""

    def __init__(self) -> None:
        self.signals: list[Signal] = []
        self._changed = Condition()

    def __call__(self, signal: Signal) -> None:
        """Keep a signal."""
        with self._changed:
            self.signals.append(signal)
            self._changed.notify_all()

    def of(self, kind: type[SignalT]) -> list[SignalT]:
        """Return the signals of one kind, oldest first."""
        with self._changed:
            return [signal for signal in self.signals if isinstance(signal, kind)]

    def names(self, *without: str) -> list[str]:
        """Return the names of all signals, oldest first, but for those of `without`."""
        with self._changed:
            return [signal.name for signal in self.signals if signal.name not in without]

    def wait_for(self, kind: type[SignalT], count: int = 1, timeout: float = TIMEOUT_SECONDS) -> list[SignalT]:
        """Return the signals of one kind as soon as there are `count`.

        Raises:
          AssertionError: there were not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(found := [signal for signal in self.signals if isinstance(signal, kind)]) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"{len(found)} of {count} {kind.__name__}, but {[each.name for each in self.signals]}"
                self._changed.wait(left)
            return found

    def clear(self) -> None:
        """Forget all that happened so far."""
        with self._changed:
            self.signals.clear()
