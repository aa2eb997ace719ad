"""The one contract of every thread that turns until it is stopped."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from bridge_service.errors import type_of
from bridge_service.telemetry import logs

AFTER_ERROR_SECONDS: Final = 1.0

_logger: Final = logging.getLogger("bridge.loop")


class Loop:
    """A thread that runs `first`, then `turn` again and again, then `last`. Every method is safe from any thread.

    - `start` starts the thread once. A loop that was stopped never starts.
    - `stop` sets `stopping` and calls `wake`; then it waits for the thread, except in that thread itself.
    - `beat` is called after each turn that did not fail. A watchdog sets it, and a long turn calls it in between.
    - `crash` is called with the loop's name and an error that the turn did not foresee, and the loop ends. Without a
      `crash`, the loop logs each such error once and turns again; since it does not beat, its watchdog sees a loop that
      only fails.

    Parameters:
      name: of the loop and its thread.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping = threading.Event()
        self.beat: Callable[[], None] = lambda: None
        self.crash: Callable[[str, BaseException], None] | None = None
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._logged: set[str] = set()

    def first(self) -> None:
        """Run before the first turn, in the loop's thread."""

    def turn(self) -> None:
        """Do the loop's work once, waiting included; `wake` ends the wait."""
        raise NotImplementedError

    def last(self) -> None:
        """Run after the last turn, in the loop's thread."""

    def wake(self) -> None:
        """End a wait of `turn` that `pause` does not make."""

    def pause(self, seconds: float) -> bool:
        """Wait, at most until the loop is told to stop; return whether it is."""
        return self.stopping.wait(seconds)

    def start(self) -> None:
        """Start the thread."""
        with self._starting:
            if self._thread is None and not self.stopping.is_set():
                self._thread = threading.Thread(target=self.run, name=self.name, daemon=True)
                self._thread.start()

    def stop(self, seconds: float = 1.0) -> None:
        """Tell the loop to end, and wait for that at most so many seconds."""
        self.stopping.set()
        self.wake()
        with self._starting:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def run(self) -> None:
        """Run the loop in the calling thread."""
        well = self._guarded(self.first)
        while not self.stopping.is_set() and (well or self.crash is None):
            well = self._guarded(self.turn)
            if well:
                self.beat()
            elif self.crash is None:
                self.pause(AFTER_ERROR_SECONDS)
        self._guarded(self.last)

    def _guarded(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except BaseException as error:  # SystemExit too: it would end the thread without a word
            if self.crash is not None:
                self.crash(self.name, error)
                return False
            place = f"{type_of(error)} in {self.name}, {logs.place_of(error.__traceback__)}"
            _logger.debug("%s", place, exc_info=True)
            if place not in self._logged:
                self._logged.add(place)
                _logger.error("%s: the loop goes on", place)  # noqa: TRY400 - a traceback may quote a message
            return False
        return True


class Every(Loop):
    """A loop that calls a function every so many seconds, the first time after them."""

    def __init__(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        super().__init__(name)
        self._seconds = seconds
        self._call = call

    def turn(self) -> None:
        """Wait, then call."""
        if not self.pause(self._seconds):
            self._call()


def stop_all(loops: Sequence[Loop], seconds: float) -> None:
    """Stop loops at the same time, and wait for all of them at most so many seconds."""
    end = time.monotonic() + seconds
    for loop in loops:
        loop.stop(0)
    for loop in loops:
        loop.stop(max(0.0, end - time.monotonic()))
