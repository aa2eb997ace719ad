"""One look: ungrouped events become turns, as a batch or conversation by conversation."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from bridge_service.errors import DatabaseBusy, DatabaseRefused, SequenceBehind
from bridge_service.machine.answers import Grouped
from bridge_service.machine.steps import Store
from bridge_service.telemetry.signals import Emit, EventSetAside, database_trouble
from schedulers.looks import APART_SECONDS

BAD_BATCH: Final = 500
"""How many conversations are grouped one by one in one look."""

BUSY_BATCHES: Final = 2
"""Batches in a row that may meet a lock before conversations are grouped one by one."""

BUSY_TRIES: Final = 3
BUSY_SECONDS: Final = 1.0
"""A locked conversation costs 300 ms (`lock_timeout`). One look meets at most `BUSY_TRIES` of them, and tries each at
most once per `BUSY_SECONDS`."""

BEHIND_SECONDS: Final = 1.0
"""How long to wait while a sequence of the bridge stands behind its table."""


class Looked(NamedTuple):
    """What a look found, whether it saw all that it was asked for, and when to look again (None: as planned)."""

    events: list[Grouped]
    complete: bool = True
    again_at: float | None = None


class Grouper:
    """Groups, and remembers which conversations are locked."""

    def __init__(self, store: Store, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._behind = False  # a sequence; reported once
        self._busy_batches = 0
        self._busy: dict[str, float] = {}  # by conversation that another session locks: when it was tried last

    def look(self, after: int, beat: Callable[[], None] = lambda: None) -> Looked:
        """Group the events after an id; `beat` is called after each conversation that is grouped alone.

        Raises:
          RightMissing: no event is at fault, so none is set aside.
          DatabaseUnavailable, SchemaMissing: nothing was grouped, or not all.
        """
        try:
            looked = self._group(after, beat)
        except DatabaseBusy:
            self._busy_batches += 1
            return Looked([], complete=False, again_at=time.monotonic() + APART_SECONDS)
        except SequenceBehind as error:
            # No event is at fault: all stay ungrouped until `migrate` has set the sequence right.
            if not self._behind:
                self._emit(database_trouble(error))
            self._behind = True
            return Looked([], complete=False, again_at=time.monotonic() + BEHIND_SECONDS)
        self._busy_batches = 0
        if looked.events:
            self._behind = False
        return looked

    def _group(self, after: int, beat: Callable[[], None]) -> Looked:
        if self._busy or self._busy_batches >= BUSY_BATCHES:
            return self._one_by_one(beat)
        try:
            return Looked(self._store.group(after=after))
        except DatabaseRefused:
            return self._one_by_one(beat)

    def _one_by_one(self, beat: Callable[[], None]) -> Looked:
        """Set aside the conversations that PostgreSQL refuses, leave the locked ones to a later look (T2).

        Conversations that were locked before come last.
        """
        grouped: list[Grouped] = []
        again: list[float] = []
        ungrouped = self._store.ungrouped_matches(BAD_BATCH + len(self._busy))
        known = self._busy
        self._busy = {match_id: known[match_id] for match_id in ungrouped if match_id in known}
        tries = 0
        for match_id in sorted(ungrouped, key=lambda match_id: known.get(match_id, 0.0)):
            if match_id in known and time.monotonic() < known[match_id] + BUSY_SECONDS:
                continue
            if tries == BUSY_TRIES:
                again.append(time.monotonic() + APART_SECONDS)
                break
            try:
                grouped += self._store.group(only=match_id)
                self._busy.pop(match_id, None)
            except DatabaseBusy:
                tries += 1
                self._busy[match_id] = time.monotonic()
            except DatabaseRefused as error:
                count = self._store.set_aside(match_id, str(error))
                self._busy.pop(match_id, None)
                self._emit(EventSetAside(count, match_id, str(error)))
            beat()
        if self._busy:
            again.append(min(self._busy.values()) + BUSY_SECONDS)
        return Looked(grouped, again_at=min(again, default=None))
