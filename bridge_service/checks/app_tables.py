"""Where the app's tables are, and whether they have the columns that the bridge needs."""

from typing import Final, NamedTuple

from bridge_service.checks import binding
from bridge_service.checks.binding import AppTable
from bridge_service.checks.finding import TIMEOUT_SECONDS, Finding
from bridge_service.checks.look import MIGRATE, REPLAY, replaced
from bridge_service.install import plan as migrate
from bridge_service.install import proof
from bridge_service.machine.database import Connection

_READERS: Final = {
    ("profiles", "id"): ("conversation", "messages_to_bots"),
    ("profiles", "is_bot"): ("conversation", "messages_to_bots"),
    ("profiles", "first_name"): ("conversation",),
    ("messages", "content"): ("deliver", "history"),
}
"""The columns that only functions of the adapter name, and these functions. The triggers read the others."""


class _Trigger(NamedTuple):
    """One of the bridge's triggers, on an app's table: `name` quoted, `table` qualified and quoted."""

    name: str
    table: str
    enabled: bool


def find_tables(connection: Connection) -> dict[str, AppTable]:
    """Return those of the app's tables that are there, by the contract's names."""
    return {name: table for name, table in binding.app_tables(connection).items() if table.oid is not None}


def app_tables(connection: Connection) -> Finding:
    """Look for the app's tables and their columns."""
    if astray := binding.astray(connection):
        return astray
    tables = find_tables(connection)
    missing = _missing_columns(connection, tables)
    if not missing:
        return _unfit_columns(connection, tables) or Finding(
            "app_tables", ok=True, detail=", ".join(table.name for table in tables.values())
        )
    detail = "; ".join(
        f"{table} has no column {', '.join(columns)}" if table in tables else f"no table {table}"
        for table, columns in missing.items()
    )
    triggers = _our_triggers(connection)
    if not triggers:
        remedy = "create them, or add their schema to the search_path of DATABASE_URL's role"
        return Finding("app_tables", ok=False, detail=detail, remedy=remedy)
    names = binding.app_tables(connection)
    mend = "; ".join(
        _renaming(tables[table].name, columns) + _replacing(table, columns)
        if table in tables
        else f"give table {names[table].name} its name and place back"
        for table, columns in missing.items()
    )
    # A renamed `messages` keeps its triggers, and they find its columns.
    lost = [
        (table, column)
        for table, columns in missing.items()
        for column in columns
        if table in tables or table != "messages"
    ]
    own = replaced(connection)
    failing = [trigger for trigger in triggers if trigger.enabled and _raises(trigger, lost, own)]
    if not failing:
        return Finding("app_tables", ok=False, detail=detail, remedy=f"{mend}; then {REPLAY}")
    detail += f": the app's INSERTs into {' and '.join(dict.fromkeys(trigger.table for trigger in failing))} fail now"
    remedy = (
        f"let the app's INSERTs through first: {_switch('DISABLE', failing)} (or `uninstall`); then {mend};"
        f" then {_switch('ENABLE', failing)}, then {REPLAY}"
    )
    return Finding("app_tables", ok=False, detail=detail, remedy=remedy)


def _unfit_columns(connection: Connection, tables: dict[str, AppTable]) -> Finding | None:
    """Find the columns whose types the bridge cannot use; None if there are none.

    A type that was changed after `migrate` makes the triggers fail, and with them every INSERT of the app.
    """
    names = {name: table.name for name, table in tables.items()}
    needs = proof.needs(names, replaced(connection))
    rows = connection.execute(proof.UNFIT_COLUMNS, needs, seconds=TIMEOUT_SECONDS)
    if not rows:
        return None
    detail = "; ".join(fault for fault, _, _ in rows)
    firing = [trigger for trigger in _our_triggers(connection) if trigger.enabled]
    if not firing:
        remedy = f"give each column the type that is needed, then {MIGRATE}"
        return Finding("app_tables", ok=False, detail=detail, remedy=remedy)
    remedy = (
        f"the app's INSERTs may fail now: {_switch('DISABLE', firing)} lets them through, and so does `uninstall`;"
        f" then give each column the type that is needed, {_switch('ENABLE', firing)}, and {REPLAY}"
    )
    return Finding("app_tables", ok=False, detail=detail, remedy=remedy)


def _missing_columns(connection: Connection, tables: dict[str, AppTable]) -> dict[str, list[str]]:
    """Return the missing columns by table, except those that only functions of the app's own would read."""
    rows = connection.execute(
        "SELECT attrelid, attname::text FROM pg_catalog.pg_attribute"
        " WHERE attrelid = ANY (%s::oid[]) AND attnum > 0 AND NOT attisdropped",
        ([table.oid for table in tables.values()],),
        seconds=TIMEOUT_SECONDS,
    )
    missing = {}
    for table, columns in migrate.APP_TABLES.items():
        found = {name for oid, name in rows if table in tables and oid == tables[table].oid}
        if lacking := [column for column in columns if column not in found]:
            missing[table] = lacking
    if missing:
        own = replaced(connection)
        kept = {
            table: [
                column for column in columns if not own.issuperset(_READERS.get((table, column), ("the triggers",)))
            ]
            for table, columns in missing.items()
        }
        missing = {table: columns for table, columns in kept.items() if columns}
    return missing


def _our_triggers(connection: Connection) -> list[_Trigger]:
    rows = connection.execute(
        """
        SELECT format('%%I', t.tgname), format('%%I.%%I', n.nspname, c.relname), t.tgenabled IN ('O', 'A')
        FROM pg_catalog.pg_trigger t
        JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE t.tgname = ANY (%s) AND t.tgparentid = 0
        ORDER BY 2, 1
        """,
        (list(migrate.TRIGGERS),),
        seconds=TIMEOUT_SECONDS,
    )
    return [_Trigger(*found) for found in rows]


def _raises(trigger: _Trigger, lost: list[tuple[str, str]], own: frozenset[str]) -> bool:
    """Tell whether an INSERT fails in this trigger.

    Parameters:
      lost: the missing columns with their tables.
      own: the functions that the app replaced.
    """
    match trigger.name:
        case "bridge_before_message":
            return ("messages", "match_id") in lost
        case "bridge_after_message":
            reads = "messages"
        case _:
            reads = "matches"
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


def _switch(how: str, triggers: list[_Trigger]) -> str:
    tables = dict.fromkeys(trigger.table for trigger in triggers)
    return "; ".join(
        f"ALTER TABLE {table} " + ", ".join(f"{how} TRIGGER {name}" for name, on, _ in triggers if on == table)
        for table in tables
    )
