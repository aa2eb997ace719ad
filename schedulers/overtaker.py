"""Lets replies under way make way for newer messages, and reports it."""

from collections.abc import Iterable

from bridge_service.errors import DatabaseBusy
from bridge_service.machine.answers import Grouped
from bridge_service.machine.steps import Store
from bridge_service.telemetry.signals import Emit, TurnSuperseded


class Overtaker:
    """Knows which conversations have a reply to overtake. If it forgets them, the sweep finds them."""

    def __init__(self, store: Store, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._matches: set[str] = set()

    def add(self, events: Iterable[Grouped]) -> None:
        """Remember the conversations of a batch that have an active turn."""
        self._matches.update(event.match_id for event in events if event.beside_active)

    def overtake(self, *, everywhere: bool) -> None:
        """Overtake what was added, or what there is in any conversation; what is locked is tried at the next call.

        Raises:
          DatabaseUnavailable, DatabaseRefused, SchemaMissing: the sweep tries again.
        """
        if not everywhere and not self._matches:
            return
        matches, self._matches = self._matches, set()
        try:
            overtaken = self._store.overtake(None if everywhere else sorted(matches))
        except DatabaseBusy:
            self._matches = matches
            return
        self._matches = {turn.match_id for turn in overtaken if not turn.superseded}
        for turn in overtaken:
            if turn.superseded:
                self._emit(TurnSuperseded(turn.turn_id, turn.match_id, turn.merges))
