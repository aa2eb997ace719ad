"""The guide's figures, measured on the rows of the bridge and on its processes' lines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bridge_service.demo.log import LogLine
from bridge_service.machine.database import Connection
from bridge_service.settings import Settings

DETECTION_SECONDS: Final = 0.5
PUSH_SECONDS: Final = 0.05
LATENESS_SECONDS: Final = 0.5
"""The guide's goals for detection and push; it only says that the timer is kept, so this one is ours."""

_GROUPED: Final = ("⏰ Nouveau message", "🔄 Grouping: +1", "🔍 Nouveau match")
_CLOSED: Final = ("📦 Grouping:", "💬 Initiation pour match")
_PUSHED: Final = ("✅ Message poussé",)


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment: the last event and turn there were, and the number of lines."""

    event: int
    turn: int
    line: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured from a mark on; seconds, the longest of each, None where nothing was measured.

    Attributes:
      groups: turns that were pushed.
      detection: from an event's capture to the line that says that it was grouped.
      push: from the line that closes a group to the line that says that Redis took it.
      lateness: that last line, after the planned time: first capture + GROUPING_DELAY, or a first word's drawn time.
    """

    groups: int
    detection: float | None
    push: float | None
    lateness: float | None


def mark(connection: Connection, lines: int) -> Mark:
    """Name the present moment."""
    [[event, turn]] = connection.execute(
        "SELECT (SELECT coalesce(max(id), 0) FROM bridge.events), (SELECT coalesce(max(id), 0) FROM bridge.turns)"
    )
    return Mark(event, turn, lines)


def measure(connection: Connection, since: Mark, lines: Sequence[LogLine], settings: Settings) -> Figures:
    """Measure from a mark on; `lines` are those after it.

    The lines name no turn. They come in the order of the rows, so the first belongs to the first and so on; if they are
    not as many as the rows (Redis was away, say), nothing is measured.
    """
    scheduler = [line for line in lines if line.process == "scheduler"]
    captured = connection.execute("SELECT captured_at FROM bridge.events WHERE id > %s ORDER BY id", (since.event,))
    due = connection.execute(
        "SELECT opened_at + make_interval(secs => CASE kind WHEN 'reply' THEN %s ELSE"
        " %s + %s * bridge.draw(match_id, 'delay') END) AS due FROM bridge.turns"
        " WHERE id > %s AND queued_at IS NOT NULL ORDER BY queued_at, due",
        (
            settings.grouping_delay,
            settings.initiation_delay_min,
            settings.initiation_delay_max - settings.initiation_delay_min,
            since.turn,
        ),
    )
    closed, pushed = _times(scheduler, _CLOSED), _times(scheduler, _PUSHED)
    return Figures(
        len(due),
        _longest([moment for (moment,) in captured], _times(scheduler, _GROUPED)),
        _longest(closed, pushed),
        _longest([moment for (moment,) in due], pushed),
    )


def longest(figures: Iterable[float | None]) -> float | None:
    """Return the longest that was measured."""
    return max((figure for figure in figures if figure is not None), default=None)


def _times(lines: Iterable[LogLine], beginnings: tuple[str, ...]) -> list[datetime]:
    return [line.at for line in lines if line.at is not None and line.text.startswith(beginnings)]


def _longest(begins: Sequence[datetime], ends: Sequence[datetime]) -> float | None:
    if not begins or len(begins) != len(ends):
        return None
    # Lines are dated to the millisecond, rows to the microsecond.
    return max(max(0.0, (end - begin).total_seconds()) for begin, end in zip(begins, ends, strict=True))
