"""The console's page: one document without a script, which shows no message.

Every text from the database is escaped. The page's Content-Security-Policy allows only its style sheet, so a text that
escaped nothing could still run and load nothing.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

from bridge_service.checks.standing import OK
from bridge_service.web.observer import Figures, Look, Turn

REFRESH_SECONDS: Final = 5
SLOW_SECONDS: Final = 300.0
"""A message that waits for longer is worth a look; long pauses and a merge take less."""

LATE_SECONDS: Final = 10.0
"""No sweep has seen a turn that is due for longer: there is one every five seconds."""

STYLE: Final = Path(__file__).with_name("page.css").read_text(encoding="utf-8")

_STYLE_DIGEST: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy."""

_STATE_CLASSES: Final = {
    "open": "soft",
    "queued": "warn",
    "composing": "busy",
    "typing": "busy",
    "answered": "good",
    "cancelled": "soft",
    "dead": "bad",
}
_COLUMNS: Final = (
    "turn",
    "kind",
    "state",
    "messages",
    "match",
    "opened",
    "pushed",
    "due",
    "ended",
    "attempts",
    "merges",
)
_NUMBERS: Final = frozenset({"turn", "messages", "attempts", "merges"})


def render(look: Look, turns: Sequence[Turn], *, refresh: bool = True) -> str:
    """Return the page as HTML.

    Parameters:
      refresh: whether the page reloads itself every REFRESH_SECONDS.
    """
    now = datetime.fromtimestamp(look.at, UTC)
    level, findings = _verdict(look)
    again = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if refresh else ""
    toggle = '<a href="/?refresh=off">Pause</a>' if refresh else '<a href="/">Resume</a>'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
{again}
<title>{_TITLES[level]} · bridge</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<h1>Bridge</h1>
<span>{_service("PostgreSQL", look.postgresql.word)} {_service("Redis", look.redis.word)}</span>
<small>{now:%Y-%m-%d %H:%M:%S} UTC · {toggle}</small>
</header>
<div class="verdict {level}" role="status">{_TITLES[level]}{_list(findings)}</div>
{_figures(look)}
<h2>Newest turns</h2>
<div class="wide">{_table(turns, now)}</div>
<footer>
<span>Times in UTC. What people write is never shown here.</span>
<span><a href="/metrics">metrics</a> · <a href="/health/ready">ready</a> · <a href="/health/live">live</a></span>
</footer>
</main>
</body>
</html>
"""


_TITLES: Final = {"good": "All is well", "warn": "Worth a look", "bad": "Something is down"}


def _verdict(look: Look) -> tuple[str, list[str]]:
    down = []
    if look.postgresql.word != OK:
        down.append(
            f"PostgreSQL: {look.postgresql.word}."
            " Messages are safe in the app's tables; nothing moves until it is back."
        )
    if look.redis.word != OK:
        down.append(f"Redis: {look.redis.word}. Turns wait in PostgreSQL and are pushed when it is back.")
    if down:
        return "bad", down
    worth = [] if look.figures is None else list(_worth_a_look(look.figures, look.at))
    return ("warn" if worth else "good"), worth


def _worth_a_look(figures: Figures, now: float) -> Iterator[str]:
    if figures.dead:
        yield f"Dead turns: {figures.dead}. See: python -m bridge_service dead list"
    if figures.overdue_since is not None and now - figures.overdue_since > LATE_SECONDS:
        yield f"A step is due since {_age(now - figures.overdue_since)} and no process took it: does a scheduler run?"
    if figures.oldest_unanswered_at is not None and now - figures.oldest_unanswered_at > SLOW_SECONDS:
        yield f"A message has waited for {_age(now - figures.oldest_unanswered_at)}: do the workers run?"


def _list(findings: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in findings)}</ul>" if findings else ""


def _service(name: str, state: str) -> str:
    return f'<span class="service {"good" if state == OK else "bad"}">{name} {escape(state)}</span>'


def _figures(look: Look) -> str:
    figures = look.figures
    if figures is None:
        return ""
    oldest = figures.oldest_unanswered_at
    cards = (
        _card("Open", figures.open),
        _card("Queued", figures.queued),
        _card("Composing", figures.composing),
        _card("Typing", figures.typing),
        _card("Overdue", figures.overdue),
        _card("Dead", figures.dead, "bad" if figures.dead else ""),
        _card("Oldest wait", "–" if oldest is None else _age(look.at - oldest)),
    )
    return f"<dl>{''.join(cards)}</dl>"


def _card(name: str, value: object, css: str = "") -> str:
    return f'<div><dt>{name}</dt><dd class="{css}">{escape(str(value))}</dd></div>'


def _table(turns: Sequence[Turn], now: datetime) -> str:
    if not turns:
        return '<p class="none">None yet.</p>'
    head = "".join(f"<th{_class(name)}>{name}</th>" for name in _COLUMNS)
    rows = "".join(_row(turn, now) for turn in turns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(turn: Turn, now: datetime) -> str:
    state = escape(turn.state) + (f" <small>{escape(turn.reason)}</small>" if turn.reason else "")
    cells = (
        str(turn.turn_id),
        escape(turn.kind),
        f'<span class="{_STATE_CLASSES.get(turn.state, "soft")}">{state}</span>',
        str(turn.messages),
        f"<code>{escape(turn.match_id)}</code>",
        *(_moment(each, now) for each in (turn.opened_at, turn.queued_at, turn.due_at, turn.ended_at)),
        str(turn.attempts),
        str(turn.merges),
    )
    return f"<tr>{''.join(f'<td{_class(name)}>{cell}</td>' for name, cell in zip(_COLUMNS, cells, strict=True))}</tr>"


def _class(column: str) -> str:
    return ' class="number"' if column in _NUMBERS else ""


def _moment(time: datetime | None, now: datetime) -> str:
    """Return the time of day, with the date if it is not today's."""
    if time is None:
        return ""
    time = time.astimezone(UTC)
    words = f"{time:%H:%M:%S}" if time.date() == now.date() else f"{time:%Y-%m-%d %H:%M:%S}"
    return f'<time datetime="{time.isoformat()}">{words}</time>'


def _age(seconds: float) -> str:
    """Return such as `12 s`, `3 min 5 s`, `2 h 10 min` or `3 d 4 h`."""
    whole = max(0, int(seconds))
    for size, unit, part_size, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part_size} {part}"
    return f"{whole} s"
