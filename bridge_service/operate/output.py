"""What commands print: tables and colour for people on a terminal, one JSON object for programs, and no secret."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import psycopg2.extensions
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge_service.errors import BridgeError, DatabaseBusy, DatabaseUnavailable, SchemaMissing, StepRefused
from bridge_service.telemetry.logs import escape, pattern_of

_WIDTH_OF_A_PIPE: Final = 200
_TOLD_AS: Final[Mapping[type[BridgeError], str]] = {
    SchemaMissing: (
        "schema bridge is missing, incomplete or older than this code, run `python -m bridge_service migrate`"
    ),
    DatabaseBusy: "PostgreSQL is busy",
    DatabaseUnavailable: "PostgreSQL (DATABASE_URL) does not answer",
    StepRefused: "PostgreSQL refused",
}


class Output:
    """Standard output and standard error of one command.

    Parameters:
      as_json: print only `document`s; otherwise everything else.

    Attributes:
      secrets: what `describe` replaces by ***.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.secrets: tuple[str, ...] = ()
        self._as_json = as_json
        # A pipe has no width; cutting lines at 80 characters would only make them harder to grep.
        width = None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE
        self.console = Console(markup=False, highlight=False, emoji=False, width=width, quiet=as_json)
        self._errors = Console(markup=False, highlight=False, emoji=False, stderr=True, soft_wrap=True)

    def say(self, line: str, style: str = "") -> None:
        """Print a line for people."""
        self.console.print(Text(escape(line), style), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table for people."""
        self.console.print(table(columns, rows))

    def script(self, text: str) -> None:
        """Print text for another program to read, unchanged."""
        if not self._as_json:
            sys.stdout.write(text + "\n")

    def document(self, document: Mapping[str, object]) -> None:
        """Print the one object for programs."""
        if self._as_json:
            sys.stdout.write(json.dumps(document) + "\n")

    def complain(self, line: str) -> None:
        """Print a line on standard error: what does not hold, and what to do."""
        self._errors.print(Text(escape(line), "red"))

    def describe(self, error: BaseException) -> str:
        """Say what went wrong, in one line, without a secret."""
        told = error.words if isinstance(error, StepRefused) else str(error)
        text = told.strip().partition("\n")[0].rstrip() or type(error).__name__
        text = pattern_of(self.secrets).sub("***", text)
        for kind, words in _TOLD_AS.items():
            if isinstance(error, kind):
                return f"{words}: {text}"
        return text


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Make a table. None is an empty cell; foreign text is escaped, so it cannot break the table."""
    made = Table(*columns, box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for row in rows:
        made.add_row(*map(_cell, row))
    return made


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    return Text("" if value is None else escape(str(value)), overflow="fold")


def coloured(value: object, *, good: bool) -> Text:
    """Make a cell in green or red."""
    return Text(str(value), "green" if good else "red")


def short_time(text: str | None) -> str:
    """Shorten a time as PostgreSQL's JSON writes it to `2026-11-24 18:30:00.123`, in UTC; '' for None."""
    if text is None:
        return ""
    time = datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
    return time.isoformat(sep=" ", timespec="milliseconds")


def place_of(database_url: str) -> str:
    """Say which database it is, for a question."""
    parts = psycopg2.extensions.parse_dsn(database_url)
    return f"{parts.get('dbname', 'the database')} on {parts.get('host', 'this machine')}"


def counted(number: int, noun: str) -> str:
    """Say `1 message` or `2 messages`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
