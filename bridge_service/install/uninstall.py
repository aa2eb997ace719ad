"""Takes schema `bridge` and its triggers out. The app's tables are afterwards as they were before."""

from typing import Final

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.errors import DatabaseRefused
from bridge_service.install.files import APP_TABLES, TRIGGERS, template
from bridge_service.install.plan import refuse_foreign_schema
from bridge_service.install.transaction import begin, value
from bridge_service.install.waiting import LockTries

# How many of the objects that depend on the schema the refusal names.
_NAMED: Final = 5


def uninstall(url: str) -> bool:
    """Drop the triggers, then the schema; running processes may go on.

    The owner of the schema has the right. The triggers go with their functions.

    Returns:
      Whether there was anything to take out.

    Raises:
      DatabaseUnavailable: as for `migrate`.
      DatabaseRefused: the schema has another owner, or something else depends on it; the text names it.
    """
    found = False
    tries = LockTries(url, list(APP_TABLES), readers_matter=True)
    # Dropping a trigger waits for every INSERT under way, so no INSERT finds its functions gone. It locks readers out.
    # Each transaction locks one table, so it cannot deadlock with a transaction of the app that locks two.
    for name in TRIGGERS:
        for attempt in tries.attempts():
            with attempt, begin(url) as cursor:
                _refuse_to_take_out(cursor)
                found |= _drop_trigger(cursor, name)
    for attempt in tries.attempts():
        with attempt, begin(url) as cursor:
            # A session that makes a view of a table, or a reference to it, has either committed and is seen, or waits.
            _lock_tables(cursor)
            _refuse_to_take_out(cursor)
            cursor.execute("SELECT to_regnamespace('bridge') IS NOT NULL")
            found |= value(cursor)
            _switch_off(cursor)
            cursor.execute("DROP SCHEMA IF EXISTS bridge CASCADE")
    return found


def _refuse_to_take_out(cursor: Cursor) -> None:
    """Refuse a schema of another owner, and a schema that something else depends on."""
    cursor.execute(
        "SELECT DISTINCT pg_get_userbyid(owner)::text FROM ("
        "  SELECT nspowner FROM pg_namespace WHERE nspname = 'bridge' UNION"
        "  SELECT relowner FROM pg_class WHERE relnamespace = to_regnamespace('bridge') AND relkind IN ('r', 'p')"
        ") AS owners (owner) WHERE NOT pg_has_role(owner, 'USAGE') ORDER BY 1"
    )
    owners = [owner for (owner,) in cursor.fetchall()]
    if owners:
        raise DatabaseRefused(f"schema `bridge` belongs to {', '.join(owners)}: only its owner can take it out")
    refuse_foreign_schema(cursor)
    cursor.execute(template("dependents"), {"triggers": list(TRIGGERS)})
    found = [f"{what} (on {on})" for what, on in cursor.fetchall()]
    if found:
        named = ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
        raise DatabaseRefused(f"something else depends on schema `bridge`, drop it first: {named}")


def _drop_trigger(cursor: Cursor, name: str) -> bool:
    """Drop a trigger from every table, with the function that it calls; return whether there was any.

    DROP TRIGGER needs the owner of the app's table. DROP FUNCTION CASCADE needs the owner of the function.
    """
    cursor.execute(
        "SELECT DISTINCT t.tgfoid::regprocedure::text FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
        " WHERE t.tgname = %s AND p.pronamespace = to_regnamespace('bridge')",
        (name,),
    )
    functions = cursor.fetchall()
    for (function,) in functions:
        cursor.execute(sql.SQL("DROP FUNCTION {} CASCADE").format(sql.SQL(function)))
    return bool(functions)


def _switch_off(cursor: Cursor) -> None:
    """Switch off the bots' indicators that are on. With the tables locked, no process switches one on again."""
    cursor.execute("SELECT to_regclass('bridge.indicators') IS NOT NULL")
    if value(cursor):
        cursor.execute(
            "SELECT bridge.indicate(match_id, bot_id, false) FROM bridge.indicators"
            " WHERE on_since IS NOT NULL AND bridge.has_typing() ORDER BY match_id"
        )


def _lock_tables(cursor: Cursor) -> None:
    cursor.execute(
        "SELECT relname::text FROM pg_class"
        " WHERE relnamespace = to_regnamespace('bridge') AND relkind IN ('r', 'p') ORDER BY relname"
    )
    tables = [sql.Identifier("bridge", table) for (table,) in cursor.fetchall()]
    if tables:
        cursor.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.SQL(", ").join(tables)))
