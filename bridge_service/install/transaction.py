"""The transaction in which `migrate` and `uninstall` work: one at a time in each database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.machine import session
from bridge_service.machine.database import translate

ADVISORY_KEY: Final = 0x627269646765
"""Spells "bridge" in ASCII. Each run waits for the run before, without a limit."""

# The app's INSERTs queue behind a lock on `messages` that waits. So a try ends early and lets them pass. It also ends
# before `deadlock_timeout` (1 s), after which PostgreSQL could end the app's transaction.
_LOCK_TIMEOUT: Final = "400ms"

SETTINGS: Final = (
    "SET LOCAL client_min_messages = warning",
    f"SELECT pg_advisory_xact_lock({ADVISORY_KEY})",
    f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'",
    # A function's body may name a function that the same run lays later.
    "SET LOCAL check_function_bodies = off",
)


@contextmanager
def begin(url: str, *, read_only: bool = False) -> Iterator[Cursor]:
    """Give a cursor in a transaction that commits at the end.

    Raises:
      DatabaseUnavailable, DatabaseRefused: PostgreSQL did not answer, or refused a statement.
    """
    try:
        connection, _ = session.connect(url, "", lambda options: connect(url, options))
        try:
            # A run that waited for another run has to see what the other run committed.
            connection.set_session(isolation_level="READ COMMITTED", readonly=read_only or None)
            with connection, connection.cursor() as cursor:
                # A pooler may refuse or drop the options of the URL.
                for name, setting in session.user_settings(url):
                    cursor.execute(
                        "SELECT set_config(%s, %s, true) WHERE current_setting(%s, true) IS DISTINCT FROM %s",
                        (name, setting, name, setting),
                    )
                for statement in SETTINGS:
                    cursor.execute(statement)
                # `deliver` keeps this path. Without pg_temp at its end, a caller's temporary tables would come first.
                cursor.execute("SELECT concat_ws(', ', nullif(current_setting('search_path'), ''), 'pg_temp')")
                cursor.execute("SELECT set_config('search_path', %s, true)", (value(cursor),))
                yield cursor
        finally:
            connection.close()
    except psycopg2.Error as error:
        raise translate(error) from error


def value(cursor: Cursor) -> Any:  # noqa: ANN401 - whatever the statement selects
    """Return the one value of the one row that a statement returned."""
    [[value]] = cursor.fetchall()
    return value


def filled(cursor: Cursor, statement: str, *values: sql.Composable) -> str:
    """Return a statement with quoted values in its places."""
    return sql.SQL(statement).format(*values).as_string(cursor)


def connect(url: str, options: str | None = None) -> psycopg2.extensions.connection:
    """Connect as `migrate`; `options` take the place of the URL's."""
    return psycopg2.connect(
        url, connect_timeout=10, fallback_application_name="bridge migrate", client_encoding="UTF8", options=options
    )
