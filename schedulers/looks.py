"""When to look for ungrouped events next, and from which event on. Pure: every method is told the time."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from bridge_service.machine.answers import Grouped

AFTER_BATCH_SECONDS: Final = (0.02, 0.1, 0.5)
"""C4: the trigger skips its NOTIFY while other events are ungrouped, and their batch may miss the next event."""

APART_SECONDS: Final = 0.02
"""Looks are this far apart under load; the first look comes at once."""

POLL_SECONDS: Final = 0.5
"""How often to look while LISTEN delivers nothing."""

BOUND_SECONDS: Final = 10.0
"""A look that no sweep asked for starts at the highest event id seen this long ago (C4)."""

LARGE_BATCH: Final = 1000
"""A batch of this size may leave events below its highest id ungrouped, so the next look is at everything."""


class Looks:
    """The looks that are planned. `ask` is safe from any thread; the rest belongs to one thread."""

    def __init__(self) -> None:
        self.polling = False
        self.at_everything = False  # the look that began last
        self._everything = True
        self._moments: list[float] = []
        self._looked_at = 0.0
        self._seen: deque[tuple[float, int]] = deque()

    def ask(self) -> None:
        """Plan a look at everything, at once."""
        self._everything = True

    def plan(self, moment: float) -> None:
        """Plan a look at a moment."""
        self._moments.append(moment)

    def begin(self, now: float) -> int | None:
        """Begin a look if one is due; return the event id after which it starts, None if no look is due."""
        everything = self._everything
        if not everything:
            if self.next() > now:
                return None
            if now < self._looked_at + APART_SECONDS:
                self._moments = [max(moment, self._looked_at + APART_SECONDS) for moment in self._moments]
                return None
        else:
            self._everything = False  # only if it was set: another thread may set it now
        self._moments = [moment for moment in self._moments if moment > now]
        self._looked_at = now
        self.at_everything = everything
        return 0 if everything else self._bound(now)

    def found(self, now: float, batch: Sequence[Grouped]) -> None:
        """Plan the looks after a batch that is not empty."""
        self._moments = [now + delay for delay in AFTER_BATCH_SECONDS]
        if len(batch) >= LARGE_BATCH:
            self._everything = True
        self._seen.append((now, max(event.event_id for event in batch)))

    def next(self) -> float:
        """Return the moment of the next look that is planned; infinity if none is."""
        polled = [self._looked_at + POLL_SECONDS] if self.polling else []
        return min([*self._moments, *polled], default=float("inf"))

    def _bound(self, now: float) -> int:
        """Return the highest event id seen BOUND_SECONDS ago."""
        bound = 0
        while self._seen and self._seen[0][0] <= now - BOUND_SECONDS:
            bound = self._seen.popleft()[1]
        if bound:
            self._seen.appendleft((now - BOUND_SECONDS, bound))
        return bound
