"""Watches the bots' indicators in the app's table: is one on that should be off?"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.nemesis import Band
    from tests.chaos.stage import Stage

LOOK_SECONDS: Final = 0.1

HEALED_SECONDS: Final = 15.0
"""What a crash left on is off after so long."""

ENDED_SECONDS: Final = 5.0
"""show_due comes back within 4 s to an indicator that it held while the turn ended (I-1)."""

# One snapshot: the turn's end and its indicator are one transaction.
_ON: Final = """
    SELECT e.match_id::text,
           EXISTS (SELECT FROM bridge.turns t WHERE t.match_id = e.match_id AND t.state = 'typing'),
           EXISTS (SELECT FROM bridge.indicators i WHERE i.match_id = e.match_id)
    FROM typing_events e JOIN profiles p ON p.id = e.user_id WHERE p.is_bot AND e.is_typing
"""


class Look(NamedTuple):
    """An indicator that is on: whether a turn is typing there, and whether the bridge knows that it is on."""

    match_id: str
    typing: bool
    known: bool


class Lamps:
    """Judges looks, one after the other. Pure: the caller gives the times, as of time.time().

    Attributes:
      seen: how often an indicator was on.
      findings: those that were on too long, in words.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.findings: list[str] = []
        self._since: dict[str, float] = {}
        self._told: set[str] = set()

    def look(
        self, on: Sequence[Look], now: float, bands: Sequence[Band], held: Sequence[tuple[str, float, float]]
    ) -> None:
        """Take a look.

        Parameters:
          bands: the faults so far.
          held: when a transaction of the app held an indicator, by match.
        """
        self.seen += len(on)
        left = {look.match_id: look for look in on if not look.typing}
        self._since = {match_id: self._since.get(match_id, now) for match_id in left}
        self._told &= left.keys()
        for match_id, look in left.items():
            since = self._since[match_id]
            if match_id in self._told:
                continue
            if not look.known:
                self._find(match_id, "and the bridge does not know of it")
                continue
            touching = [band for band in bands if band.healed is None or band.healed >= since - HEALED_SECONDS]
            if any(band.healed is None for band in touching):
                continue
            healed = max((band.healed or 0.0 for band in touching), default=0.0)
            if now - max(since, healed) > HEALED_SECONDS:
                self._find(match_id, f"for {now - since:.1f} s without a turn that types")
            elif not touching and now - max(since, _let_go(match_id, held)) > ENDED_SECONDS:
                self._find(match_id, f"{now - since:.1f} s after its turn stopped to type, in calm")

    def _find(self, match_id: str, words: str) -> None:
        self._told.add(match_id)
        self.findings.append(f"the indicator in {match_id} is on, {words}")


def _let_go(match_id: str, held: Sequence[tuple[str, float, float]]) -> float:
    return max((end for held_id, _, end in held[-100:] if held_id == match_id), default=0.0)


class Watch:
    """Looks every LOOK_SECONDS in a thread of its own.

    Parameters:
      bands, held: as `Lamps.look` takes them; they grow meanwhile.
    """

    def __init__(self, stage: Stage, bands: Sequence[Band], held: Sequence[tuple[str, float, float]]) -> None:
        self.lamps = Lamps()
        self._stage = stage
        self._bands = bands
        self._held = held
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indicators", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._stage.admin() as connection, connection.cursor() as cursor:
                    while not self._stopping.wait(LOOK_SECONDS):
                        cursor.execute(_ON)
                        on = [Look(*row) for row in cursor.fetchall()]
                        self.lamps.look(on, time.time(), self._bands[:], self._held[:])
            except psycopg2.Error:
                self._stopping.wait(LOOK_SECONDS)
