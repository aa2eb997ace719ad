"""The look at the app's tables: whether they are there, with the columns and types that the bridge needs."""

from bridge_service.checks.binding import astray
from bridge_service.checks.finding import TIMEOUT_SECONDS, Found, well, wrong
from bridge_service.checks.installation import AppTable, Trigger, app_tables, found_tables, our_triggers, replaced
from bridge_service.checks.look import MIGRATE, REPLAY
from bridge_service.install import needs
from bridge_service.install.needs import Unmet
from bridge_service.machine.database import Connection


def tables(connection: Connection) -> Found:
    """Look for the app's tables and their columns."""
    if found := astray(connection):
        return found
    there = found_tables(connection)
    own = replaced(connection)
    parameters = needs.parameters({name: table.name for name, table in there.items()}, own)
    rows = connection.execute(needs.UNMET, parameters, seconds=TIMEOUT_SECONDS)
    unmet = [Unmet(*row) for row in rows]
    if missing := [each for each in unmet if each.fault is None]:
        return _with_columns_missing(connection, there, missing, own)
    # A type that the app changed after `migrate` makes the triggers fail, and with them every INSERT of the app.
    faults = [each.fault for each in unmet if each.fault]
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
    connection: Connection, there: dict[str, AppTable], missing: list[Unmet], own: frozenset[str]
) -> Found:
    """Say what is missing, whether the app's INSERTs fail by it, and how to mend it."""
    by_table = {each.table: [other for other in missing if other.table == each.table] for each in missing}
    detail = "; ".join(
        f"{table} has no column {', '.join(each.column for each in lacking)}" if table in there else f"no table {table}"
        for table, lacking in by_table.items()
    )
    triggers = _triggers(connection)
    if not triggers:
        return wrong(detail, "create them, or add their schema to the search_path of DATABASE_URL's role")
    names = app_tables(connection)
    mend = "; ".join(
        _mending(there[table].name, lacking)
        if table in there
        else f"give table {names[table].name} its name and place back"
        for table, lacking in by_table.items()
    )
    # A renamed `messages` keeps its triggers, and they find its columns.
    lost = [(each.table, each.column) for each in missing if each.table in there or each.table != "messages"]
    failing = [trigger for trigger in triggers if trigger.enabled and _raises(trigger, lost, own)]
    if not failing:
        return wrong(detail, f"{mend}; then {REPLAY}")
    return wrong(
        f"{detail}: the app's INSERTs into {' and '.join(dict.fromkeys(each.table for each in failing))} fail now",
        f"let the app's INSERTs through first: {_switch('DISABLE', failing)} (or `uninstall`); then {mend};"
        f" then {_switch('ENABLE', failing)}, then {REPLAY}",
    )


def _triggers(connection: Connection) -> list[Trigger]:
    return [trigger for trigger in our_triggers(connection) if not trigger.is_part]


def _raises(trigger: Trigger, lost: list[tuple[str, str]], own: frozenset[str]) -> bool:
    """Tell whether an INSERT fails in this trigger.

    Parameters:
      lost: the missing columns with their tables.
      own: the functions that the app replaced.
    """
    if trigger.name == "bridge_before_message":
        return any(("messages", column) in lost for column in ("match_id", "sender_id"))
    if trigger.name in {"bridge_after_edit", "bridge_after_delete"}:  # no INSERT, but mended with the others
        return ("messages", "id") in lost
    reads = "messages" if trigger.name == "bridge_after_message" else "matches"
    # Both read the new row, and by `conversation` the match and its profiles.
    return any(
        (table == reads and column != "content") or (table != "messages" and "conversation" not in own)
        for table, column in lost
    )


def _mending(table: str, lacking: list[Unmet]) -> str:
    statements = "; ".join(f"ALTER TABLE {table} RENAME COLUMN its new name TO {each.column}" for each in lacking)
    mend = f"{statements} (ADD COLUMN, where it is gone)"
    users = sorted({user for each in lacking for user in each.users})
    if "trigger" in users:
        return mend
    return f"{mend} or replace {' and '.join(f'bridge.{user}' for user in users)} by functions that read what is there"


def _switch(how: str, triggers: list[Trigger]) -> str:
    tables = dict.fromkeys(trigger.table for trigger in triggers)
    return "; ".join(
        f"ALTER TABLE {table} " + ", ".join(f"{how} TRIGGER {each.name}" for each in triggers if each.table == table)
        for table in tables
    )
