"""What the console's pages say of a look: the verdict and what to do about it, the figures, the turns; no text."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from bridge_service.checks.standing import OK
from bridge_service.machine.alive import ROLES
from bridge_service.web.observer import COUNTED, Figures, Look, Process

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


def overview(look: Look) -> dict[str, Any]:
    """Return what the template overview.html shows of a look."""
    level, findings = _verdict(look)
    return {
        "look": look,
        "ok": OK,
        "level": level,
        "findings": findings,
        "cards": [] if look.figures is None else _cards(look.figures, look.at),
        "held": [] if look.figures is None else _held(look.figures),
        "processes": [] if look.figures is None else [_process(process) for process in look.figures.alive],
    }


def clock(at: float) -> str:
    """Return the moment of a look, as its page shows it."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def rows(lines: Iterable[Mapping[str, Any]], at: float) -> list[dict[str, Any]]:
    """Return lines of turns, each with a class of the stylesheet and its moments as they are shown."""
    now = datetime.fromtimestamp(at, UTC)
    return [
        {
            **line,
            **{name: moment(value, now) for name, value in line.items() if name == "at" or name.endswith("_at")},
            "css": _STATE_CLASSES.get(line.get("state", ""), "soft"),
            "why": why(line),
        }
        for line in lines
    ]


def why(turn: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return why a turn ended as it did, or is held: the name of its word, and what is shown if there is none."""
    for kind in ("held", "reason"):
        if cause := turn.get(kind):
            return f"{kind}_{cause}", cause
    return None


def moment_of(time: datetime | None, at: float) -> tuple[str, str] | None:
    """Return a moment as `rows` does."""
    return moment(time, datetime.fromtimestamp(at, UTC))


def moment(time: str | datetime | None, now: datetime) -> tuple[str, str] | None:
    """Return a time as machines read it, and as the page shows it: with the date if that is not today's."""
    if time is None:
        return None
    time = (datetime.fromisoformat(time) if isinstance(time, str) else time).astimezone(UTC)
    return time.isoformat(), f"{time:%H:%M:%S}" if time.date() == now.date() else f"{time:%Y-%m-%d %H:%M:%S}"


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
    for role in ROLES:
        if not figures.processes[role]:
            yield f"finding_{role}", {}
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
    about = "≈ " if figures.estimated else ""
    counts = [(name, int(getattr(figures, name))) for name in names]
    return [
        *(
            (name, f"{about if count else ''}{count}", "bad" if name == "dead" and count else "")
            for name, count in counts
        ),
        ("oldest", "–" if oldest is None else _age(now - oldest), ""),
        *((name, _about(getattr(figures, name)), "") for name in ("paused", "taken_over", "bots_paused")),
    ]


def _held(figures: Figures) -> list[tuple[str, str]]:
    """Return how many turns are held, by cause, the most first."""
    ranked = sorted(figures.held.items(), key=lambda held: (-held[1], held[0]))
    about = "≈ " if sum(figures.held.values()) >= COUNTED else ""
    return [(cause, f"{about}{count}") for cause, count in ranked]


def _about(count: int) -> str:
    return f"≈ {count}" if count >= COUNTED else str(count)


def _process(process: Process) -> tuple[str, str, str, str, str]:
    return (
        process.role,
        _age(process.uptime_seconds),
        f"{process.rss_bytes / _MEBIBYTE:.0f} MiB",
        f"{process.rss_peak_bytes / _MEBIBYTE:.0f} MiB",
        f"{process.cpu_share:.1%}",
    )


def _age(seconds: float) -> str:
    """Return such as `12 s`, `3 min 5 s`, `2 h 10 min` or `3 d 4 h`."""
    whole = max(0, int(seconds))
    for size, unit, part_size, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part_size} {part}"
    return f"{whole} s"
