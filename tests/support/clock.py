"""A clock that tests move: in their databases, `bridge.now()` is the machine's time plus what they added.

Or the time at which they stopped it, plus that: then no figure depends on how fast the machine is.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2

from tests.support.databases import execute

if TYPE_CHECKING:
    from tests.support.roles import Urls

_CLOCK = """
    CREATE SCHEMA bridge_test;
    CREATE TABLE bridge_test.clock (ahead interval NOT NULL, stopped timestamptz);
    INSERT INTO bridge_test.clock VALUES ('0');
    CREATE OR REPLACE FUNCTION bridge.now() RETURNS timestamptz
    LANGUAGE sql VOLATILE AS $$
        SELECT coalesce(stopped, pg_catalog.clock_timestamp()) + ahead FROM bridge_test.clock $$;
    DO $$
    DECLARE
        v_owner name := (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'bridge');
    BEGIN
        EXECUTE format('GRANT USAGE ON SCHEMA bridge_test TO %I', v_owner);
        EXECUTE format('GRANT SELECT ON bridge_test.clock TO %I', v_owner);
    END $$;
"""


def install_clock(urls: Urls) -> None:
    """Make the time of the bridge in this database movable; `migrate` lays the real clock again."""
    execute(urls.admin, _CLOCK)


def stop(urls: Urls) -> None:
    """Stop the time of the bridge in this database: from now on it moves by `advance` only."""
    execute(urls.admin, "UPDATE bridge_test.clock SET stopped = pg_catalog.clock_timestamp()")


def advance(urls: Urls, seconds: float) -> None:
    """Move the time of the bridge in this database on by `seconds`."""
    with closing(psycopg2.connect(urls.admin)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE bridge_test.clock SET ahead = ahead + make_interval(secs => %s)", (seconds,))
