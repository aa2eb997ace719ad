"""What keeps subscribers from each other, and a log from a flood."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from bridge_service.telemetry.signals import Emit, Signal

_logger: Final = logging.getLogger("bridge.events")

KeyT = TypeVar("KeyT")
ItemT = TypeVar("ItemT")

_WINDOW_SECONDS: Final = 1.0


class Throttle(Generic[KeyT, ItemT]):
    """Let at most a limit of items of one key pass in any second, and count the others until that is reported.

    Parameters:
      clock: returns seconds, never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lanes: dict[KeyT, _Lane[ItemT]] = {}
        # Reentrant: a handler of an operating system's signal that logs may interrupt the thread that holds the lock.
        self._lock = threading.RLock()

    def admit(self, key: KeyT, item: ItemT, *, limit: int = 1) -> int | None:
        """Return None to hold `item` back, else how many were held back before it and have to be reported now.

        `limit` is fixed by the first call for `key`. Reports of one key are at least a second apart.
        """
        with self._lock:
            now = self._clock()
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = _Lane(limit)
            if not lane.has_room(now):
                lane.held += 1
                lane.latest = item
                return None
            lane.passed.append(now)
            return lane.report(now) if lane.may_report(now) else 0

    def release(self, *, everything: bool = False) -> list[tuple[KeyT, ItemT, int]]:
        """Return what has to be reported although no further item came: key, latest item held back, how many were.

        Each report takes the place of an item that passes.

        Parameters:
          everything: do not wait for the end of the second, as when the process ends.
        """
        with self._lock:
            now = self._clock()
            released = []
            for key, lane in self._lanes.items():
                latest = lane.latest
                if latest is not None and (everything or (lane.has_room(now) and lane.may_report(now))):
                    lane.passed.append(now)
                    released.append((key, latest, lane.report(now)))
            return released


class _Lane(Generic[ItemT]):
    """The state of one key."""

    def __init__(self, limit: int) -> None:
        self.passed: deque[float] = deque(maxlen=limit)
        self.held = 0
        self.latest: ItemT | None = None
        self._reported = float("-inf")

    def has_room(self, now: float) -> bool:
        return len(self.passed) < (self.passed.maxlen or 0) or now - self.passed[0] >= _WINDOW_SECONDS

    def may_report(self, now: float) -> bool:
        return self.held > 0 and now - self._reported >= _WINDOW_SECONDS

    def report(self, now: float) -> int:
        held, self.held, self.latest, self._reported = self.held, 0, None, now
        return held


def fan_out(*subscribers: Emit, clock: Callable[[], float] = time.monotonic) -> Emit:
    """Return an `Emit` that tells each of `subscribers` in turn.

    An error of a subscriber reaches neither the emitter nor the others. It is logged, at most once a second for each.
    """
    throttle: Throttle[int, Signal] = Throttle(clock)

    def emit(signal: Signal) -> None:
        for place, subscriber in enumerate(subscribers):
            try:
                subscriber(signal)
            except Exception:
                held_back = throttle.admit(place, signal)
                if held_back is not None:
                    _logger.exception(
                        "subscriber %d failed on %s (and %d times unlogged before)", place, signal.name, held_back
                    )

    return emit
