"""Ends the process when a loop stands still, so that the platform starts another process."""

import os
import time
from collections.abc import Callable
from typing import Final

from bridge_service.process.loop import Loop
from bridge_service.telemetry.signals import Emit, WatchdogBarked

PATIENCE_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 5.0


def end_process() -> None:
    """End at once with exit code 1: a loop that hangs does not hear a stop."""
    os._exit(1)


class Watchdog(Loop):
    """Watches loops: each calls its `beat` every time it turns."""

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
          patience: seconds without a beat until `bark` is called.
          clock: returns seconds; it stops while the machine sleeps, or each wake-up of the machine would be an alarm.
        """
        super().__init__("watchdog")
        self._emit = emit
        self._patience = patience
        self._bark = bark
        self._clock = clock
        self._beats: dict[str, float] = {}

    def watch(self, loop: str) -> Callable[[], None]:
        """Watch a loop from now on; return its `beat`."""

        def beat() -> None:
            self._beats[loop] = self._clock()

        beat()
        return beat

    def ages(self) -> dict[str, float]:
        """Return the seconds since each loop turned."""
        now = self._clock()
        return {loop: now - beat for loop, beat in self._beats.copy().items()}  # another thread may call `watch`

    def look(self) -> None:
        """Call `bark` for each loop that stands still."""
        for loop, age in self.ages().items():
            if age > self._patience:
                self._emit(WatchdogBarked(loop, age))
                self._bark()

    def turn(self) -> None:
        """Wait, then look."""
        looked_at = self._clock()
        if self.pause(LOOK_SECONDS):
            return
        # In a process that was frozen as a whole every beat is old: its loops get a new chance.
        if self._clock() - looked_at > self._patience / 2:
            self._beats = dict.fromkeys(self._beats, self._clock())
        self.look()
