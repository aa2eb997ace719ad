"""Ends the process when one of its loops stands still, so that the platform starts another in its place."""

import os
import threading
import time
from collections.abc import Callable
from typing import Final

from bridge_service.telemetry.signals import Emit, WatchdogBarked

PATIENCE_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 5.0


def end_process() -> None:
    """End at once with exit code 1: a loop that hangs cannot be asked to stop."""
    os._exit(1)


class Watchdog:
    """Watches loops, each of which calls its `beat` every time it turns."""

    def __init__(
        self,
        emit: Emit,
        *,
        patience: float = PATIENCE_SECONDS,
        bark: Callable[[], None] = end_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up.

        Parameters:
          patience: seconds without a beat before it barks.
          bark: what to do then.
          clock: returns seconds; one that stops while the machine sleeps, or every wake-up would be an alarm.
        """
        self._emit = emit
        self._patience = patience
        self._bark = bark
        self._clock = clock
        self._beats: dict[str, float] = {}
        self._stopping = threading.Event()

    def watch(self, loop: str) -> Callable[[], None]:
        """Watch a loop from now on; returns its `beat`."""

        def beat() -> None:
            self._beats[loop] = self._clock()

        beat()
        return beat

    def start(self) -> None:
        """Start watching."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching; twice is harmless."""
        self._stopping.set()

    def ages(self) -> dict[str, float]:
        """Seconds since each loop turned."""
        now = self._clock()
        return {loop: now - beat for loop, beat in self._beats.copy().items()}  # another thread may begin to watch one

    def look(self) -> None:
        """Bark if a loop stands still."""
        for loop, age in self.ages().items():
            if age > self._patience:
                self._emit(WatchdogBarked(loop, age))
                self._bark()

    def _run(self) -> None:
        looked_at = self._clock()
        while not self._stopping.wait(LOOK_SECONDS):
            # A process that was frozen as a whole sees every beat grown old at once: its loops get a new chance.
            if self._clock() - looked_at > self._patience / 2:
                self._beats = dict.fromkeys(self._beats, self._clock())
            self.look()
            looked_at = self._clock()
