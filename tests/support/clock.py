"""A clock that tests move: in their databases, `bridge.now()` is the machine's time plus what they added."""

from __future__ import annotations

from contextlib import closing

import psycopg2

from tests.support.databases import execute

_CLOCK = """
    CREATE SCHEMA bridge_test;
    CREATE TABLE bridge_test.clock (ahead interval NOT NULL);
    INSERT INTO bridge_test.clock VALUES ('0');
    CREATE OR REPLACE FUNCTION bridge.now() RETURNS timestamptz
    LANGUAGE sql VOLATILE AS $$ SELECT pg_catalog.clock_timestamp() + ahead FROM bridge_test.clock $$;
"""


def install_clock(url: str) -> None:
    """Make the time of the bridge in this database movable; `migrate` lays the real clock again."""
    execute(url, _CLOCK)


def advance(url: str, seconds: float) -> None:
    """Move the time of the bridge in this database on by `seconds`."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE bridge_test.clock SET ahead = ahead + make_interval(secs => %s)", (seconds,))
