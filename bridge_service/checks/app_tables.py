"""The look at the app's tables: whether they are there, with the columns and types that the bridge needs."""

from typing import Final

from bridge_service.checks.binding import astray
from bridge_service.checks.finding import TIMEOUT_SECONDS, Found, well, wrong
from bridge_service.checks.installation import AppTable, Trigger, app_tables, found_tables, our_triggers, replaced
from bridge_service.checks.look import MIGRATE, REPLAY
from bridge_service.install import proof
from bridge_service.install.files import APP_TABLES
from bridge_service.machine.database import Connection

_READERS: Final = {
    ("profiles", "id"): ("conversation", "messages_to_bots"),
    ("profiles", "is_bot"): ("conversation", "messages_to_bots"),
    ("profiles", "first_name"): ("conversation",),
    ("messages", "content"): ("deliver", "history"),
}
"""The columns that only functions of the adapter name, and these functions. The triggers read the others."""


def tables(connection: Connection) -> Found:
    """Look for the app's tables and their columns."""
    if found := astray(connection):
        return found
    there = found_tables(connection)
    own = replaced(connection)
    if missing := _missing_columns(connection, there, own):
        return _with_columns_missing(connection, there, missing, own)
    # A type that the app changed after `migrate` makes the triggers fail, and with them every INSERT of the app.
    needs = proof.needs({name: table.name for name, table in there.items()}, own)
    faults = [fault for fault, _, _ in connection.execute(proof.UNFIT_COLUMNS, needs, seconds=TIMEOUT_SECONDS)]
    if not faults:
        return well(", ".join(table.name for table in there.values()))
    if firing := [trigger for trigger in _triggers(connection) if trigger.enabled]:
        return wrong(
            "; ".join(faults),
            f"the app's INSERTs may fail now: {_switch('DISABLE', firing)} lets them through, and so does `uninstall`;"
            f" then give each column the type that is needed, {_switch('ENABLE', firing)}, and {REPLAY}",
        )
    return wrong("; ".join(faults), f"give each column the type that is needed, then {MIGRATE}")


def _with_columns_missing(
    connection: Connection, there: dict[str, AppTable], missing: dict[str, list[str]], own: frozenset[str]
) -> Found:
    """Say what is missing, whether the app's INSERTs fail by it, and how to mend it."""
    detail = "; ".join(
        f"{table} has no column {', '.join(columns)}" if table in there else f"no table {table}"
        for table, columns in missing.items()
    )
    triggers = _triggers(connection)
    if not triggers:
        return wrong(detail, "create them, or add their schema to the search_path of DATABASE_URL's role")
    names = app_tables(connection)
    mend = "; ".join(
        _renaming(there[table].name, columns) + _replacing(table, columns)
        if table in there
        else f"give table {names[table].name} its name and place back"
        for table, columns in missing.items()
    )
    # A renamed `messages` keeps its triggers, and they find its columns.
    lost = [
        (table, column)
        for table, columns in missing.items()
        for column in columns
        if table in there or table != "messages"
    ]
    failing = [trigger for trigger in triggers if trigger.enabled and _raises(trigger, lost, own)]
    if not failing:
        return wrong(detail, f"{mend}; then {REPLAY}")
    return wrong(
        f"{detail}: the app's INSERTs into {' and '.join(dict.fromkeys(each.table for each in failing))} fail now",
        f"let the app's INSERTs through first: {_switch('DISABLE', failing)} (or `uninstall`); then {mend};"
        f" then {_switch('ENABLE', failing)}, then {REPLAY}",
    )


def _missing_columns(connection: Connection, there: dict[str, AppTable], own: frozenset[str]) -> dict[str, list[str]]:
    """Return the missing columns by table, except those that only functions of the app's own would read."""
    rows = connection.execute(
        "SELECT attrelid, attname::text FROM pg_catalog.pg_attribute"
        " WHERE attrelid = ANY (%s::oid[]) AND attnum > 0 AND NOT attisdropped",
        ([table.oid for table in there.values()],),
        seconds=TIMEOUT_SECONDS,
    )
    found = {(oid, name) for oid, name in rows}
    missing = {
        table: [
            column
            for column in columns
            if (table not in there or (there[table].oid, column) not in found)
            and not own.issuperset(_READERS.get((table, column), ("the triggers",)))
        ]
        for table, columns in APP_TABLES.items()
    }
    return {table: columns for table, columns in missing.items() if columns}


def _triggers(connection: Connection) -> list[Trigger]:
    return [trigger for trigger in our_triggers(connection) if not trigger.is_part]


def _raises(trigger: Trigger, lost: list[tuple[str, str]], own: frozenset[str]) -> bool:
    """Tell whether an INSERT fails in this trigger.

    Parameters:
      lost: the missing columns with their tables.
      own: the functions that the app replaced.
    """
    if trigger.name == "bridge_before_message":
        return ("messages", "match_id") in lost
    reads = "messages" if trigger.name == "bridge_after_message" else "matches"
    # Both read the new row, and by `conversation` the match and its profiles.
    return any(
        (table == reads and column != "content") or (table != "messages" and "conversation" not in own)
        for table, column in lost
    )


def _renaming(table: str, columns: list[str]) -> str:
    statements = "; ".join(f"ALTER TABLE {table} RENAME COLUMN its new name TO {column}" for column in columns)
    return f"{statements} (ADD COLUMN, where it is gone)"


def _replacing(table: str, columns: list[str]) -> str:
    functions = sorted({name for column in columns for name in _READERS.get((table, column), ())})
    if not functions or any((table, column) not in _READERS for column in columns):
        return ""
    return f" or replace {' and '.join(f'bridge.{name}' for name in functions)} by functions that read what is there"


def _switch(how: str, triggers: list[Trigger]) -> str:
    tables = dict.fromkeys(trigger.table for trigger in triggers)
    return "; ".join(
        f"ALTER TABLE {table} " + ", ".join(f"{how} TRIGGER {each.name}" for each in triggers if each.table == table)
        for table in tables
    )
