"""What the console's page says of a look: the verdict, the figures, the newest turns; no message's text."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from bridge_service.checks.standing import OK
from bridge_service.web.observer import DeadTurn, Figures, Look, Process, Turn

REFRESH_SECONDS: Final = 5
"""How often a browser without scripts loads the page anew."""

SLOW_SECONDS: Final = 300.0
"""A message that waits for longer is worth a look; long pauses and a merge take less."""

LATE_SECONDS: Final = 10.0
"""No sweep has seen a turn that is due for longer: there is one every five seconds."""

_MEBIBYTE: Final = 2**20

Finding = tuple[str, Mapping[str, object]]
"""The name of a sentence of words.json, and what fills its blanks."""

_STATE_CLASSES: Final = {
    "open": "soft",
    "queued": "warn",
    "composing": "busy",
    "typing": "busy",
    "answered": "good",
    "cancelled": "soft",
    "dead": "bad",
}


def context(look: Look, turns: Sequence[Turn], dead: Sequence[DeadTurn]) -> dict[str, Any]:
    """Return what the template console_body.html shows."""
    level, findings = _verdict(look)
    now = datetime.fromtimestamp(look.at, UTC)
    return {
        "look": look,
        "now": f"{now:%Y-%m-%d %H:%M:%S} UTC",
        "ok": OK,
        "level": level,
        "findings": findings,
        "cards": [] if look.figures is None else _cards(look.figures, look.at),
        "rows": [_row(turn, now) for turn in turns],
        "processes": [] if look.figures is None else [_process(process) for process in look.figures.alive],
        "dead": [(turn, turn.ended_at and _moment(turn.ended_at, now)) for turn in dead],
    }


def _verdict(look: Look) -> tuple[str, list[Finding]]:
    down: list[Finding] = [
        (f"finding_{name}", {"word": standing.word})
        for name, standing in (("postgresql", look.postgresql), ("redis", look.redis))
        if standing.word != OK
    ]
    if down:
        return "bad", down
    worth = [] if look.figures is None else list(_worth_a_look(look.figures, look.at))
    return ("warn" if worth else "good"), worth


def _worth_a_look(figures: Figures, now: float) -> Iterator[Finding]:
    if figures.dead:
        yield "finding_dead", {"count": figures.dead}
    if figures.overdue_since is not None and now - figures.overdue_since > LATE_SECONDS:
        yield "finding_overdue", {"age": _age(now - figures.overdue_since)}
    if figures.oldest_unanswered_at is not None and now - figures.oldest_unanswered_at > SLOW_SECONDS:
        yield "finding_slow", {"age": _age(now - figures.oldest_unanswered_at)}


def _cards(figures: Figures, now: float) -> list[tuple[str, object, str]]:
    """Return the figures: name, value, and a class of the stylesheet."""
    oldest = figures.oldest_unanswered_at
    names = ("open", "queued", "composing", "typing", "overdue", "dead")
    return [
        *((name, getattr(figures, name), "bad" if name == "dead" and figures.dead else "") for name in names),
        ("oldest", "–" if oldest is None else _age(now - oldest), ""),
    ]


def _row(turn: Turn, now: datetime) -> dict[str, Any]:
    moments = (turn.opened_at, turn.queued_at, turn.due_at, turn.ended_at)
    return {
        "turn": turn,
        "css": _STATE_CLASSES.get(turn.state, "soft"),
        "moments": [None if time is None else (time.isoformat(), _moment(time, now)) for time in moments],
    }


def _process(process: Process) -> tuple[str, str, str, str, str]:
    return (
        process.role,
        _age(process.uptime_seconds),
        f"{process.rss_bytes / _MEBIBYTE:.0f} MiB",
        f"{process.rss_peak_bytes / _MEBIBYTE:.0f} MiB",
        f"{process.cpu_share:.1%}",
    )


def _moment(time: datetime, now: datetime) -> str:
    """Return the time of day, with the date if it is not today's."""
    time = time.astimezone(UTC)
    return f"{time:%H:%M:%S}" if time.date() == now.date() else f"{time:%Y-%m-%d %H:%M:%S}"


def _age(seconds: float) -> str:
    """Return such as `12 s`, `3 min 5 s`, `2 h 10 min` or `3 d 4 h`."""
    whole = max(0, int(seconds))
    for size, unit, part_size, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part_size} {part}"
    return f"{whole} s"
