"""The numbered migrations: each runs once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.install.files import sql_files
from bridge_service.install.report import Report
from bridge_service.install.transaction import filled, value

_FOUND_BY: Final = "-- Found by: "
"""Begins the first line of a migration: an expression that is true once the migration has run."""


def newest_migration() -> int:
    """Return the number of this release's last migration."""
    return max(map(_number, sql_files("migrations")))


def migrations(cursor: Cursor, report: Report) -> Iterator[str]:
    """Yield the statements of the migrations that have not run."""
    applied: set[int] = set()
    cursor.execute("SELECT to_regclass('bridge.migrations') IS NOT NULL")
    if value(cursor):
        cursor.execute("SELECT number FROM bridge.migrations")
        applied = {number for (number,) in cursor.fetchall()}
    else:
        yield (
            "CREATE TABLE bridge.migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
    files = sql_files("migrations")
    # A dump of the schema alone has no rows. A row counts more than the look of the schema.
    found = 0 if applied else _last_found(cursor, files)
    for count, file in enumerate(files, start=1):
        number = _number(file)
        if number not in applied:
            if count <= found:
                report.found.append(file.name)
            else:
                report.migrations.append(file.name)
                yield file.read_text(encoding="utf-8")
            note = "INSERT INTO bridge.migrations (number, name) VALUES ({}, {})"
            yield filled(cursor, note, sql.Literal(number), sql.Literal(file.name))


def found_by(file: Path) -> str | None:
    """Return the expression by which a migration is found; None if its file has none."""
    line = file.read_text(encoding="utf-8").partition("\n")[0]
    return line.removeprefix(_FOUND_BY) if line.startswith(_FOUND_BY) else None


def _last_found(cursor: Cursor, files: list[Path]) -> int:
    """Return how many migrations, from the first on, the schema holds."""
    found = 0
    for count, file in enumerate(files, start=1):
        if probe := found_by(file):
            cursor.execute(f"SELECT {probe}")
            found = count if value(cursor) else found
    return found


def _number(file: Path) -> int:
    return int(file.name.partition("_")[0])
