"""What the commands' arguments accept: times, spans, bots, matches and turns."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("write it as 2026-11-24, 2026-11-24T18:30 or 2026-11-24T18:30+01:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


_UNITS: dict[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _span(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and unit in _UNITS and 0 < int(number) * _UNITS[unit] <= _LONGEST):
        raise typer.BadParameter("write it as 24h, 90m, 30s or 7d")
    return float(int(number) * _UNITS[unit])


_LONGEST = 100 * 365 * 86400
SPAN: dict[str, Any] = {"parser": _span, "metavar": "SPAN"}
TIME: dict[str, Any] = {"parser": _time, "metavar": "TIME"}


def _bot(text: str) -> str:
    if text.lower() == "default":
        return "default"
    try:
        return str(UUID(text))
    except ValueError:
        raise typer.BadParameter("name a bot by its id, or write `default` for all bots") from None


Bot = Annotated[
    str, typer.Argument(parser=_bot, metavar="BOT", help="The bot's id, or `default`: all bots.", show_default=False)
]
Match = Annotated[UUID, typer.Argument(metavar="MATCH_ID", help="The match's id.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
_TURN: Any = typer.Argument(min=1, max=2**63 - 1, metavar="TURN", help="The turn's number.", show_default=False)
Turn = Annotated[int, _TURN]
SomeTurn = Annotated[int | None, _TURN]
BotId = Annotated[UUID, typer.Argument(metavar="BOT", help="The bot's id.", show_default=False)]
Until = Annotated[
    datetime | None,
    typer.Option("--until", help="UTC unless it has an offset; by default until `resume`.", **TIME),
]
