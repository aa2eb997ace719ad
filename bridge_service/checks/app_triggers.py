"""The look for triggers of the app's that notify the bridge's channels, which the bridge's own triggers do by now."""

from typing import Final

from bridge_service.checks.app_tables import find_tables
from bridge_service.checks.finding import Finding
from bridge_service.checks.look import MIGRATE, ask, row
from bridge_service.install import plan as migrate
from bridge_service.machine.database import Connection

CHANNELS: Final = ("bot_events", "new_match")

_COSTS: Final = (
    "a payload of 8,000 bytes or more fails the app's INSERT, each commit waits for the NOTIFY lock of the whole"
    " instance, and any role may LISTEN and read every text that the payload holds"
)


def app_triggers(connection: Connection) -> Finding:
    """Look for triggers that notify beside the bridge's."""
    tables = [table.oid for table in find_tables(connection).values()]
    rows = ask(connection, "app_triggers", tables, tables, list(CHANNELS))
    if not rows:
        return Finding("app_triggers", ok=True, detail="no trigger of the app's notifies the bridge's channels")
    named = ", ".join(f"{name} on {table} notifies {' and '.join(channels)}" for name, table, channels in rows)
    drop = "; ".join(f"DROP TRIGGER {name} ON {table}" for name, table, _ in rows)
    # Without the bridge's triggers these are what the bridge hears of a message by.
    first = "" if _are_ours_laid(connection) else f"{MIGRATE} first, then "
    remedy = f"{first}{drop} (the bridge's own triggers do its work; meanwhile {_COSTS})"
    return Finding("app_triggers", ok=True, detail=f"beside the bridge's triggers {named}", remedy=remedy)


def _are_ours_laid(connection: Connection) -> bool:
    [laid] = row(
        connection,
        "SELECT count(DISTINCT tgname) = %s FROM pg_catalog.pg_trigger"
        " WHERE tgname = ANY (%s) AND tgparentid = 0 AND tgenabled IN ('O', 'A')",
        len(migrate.TRIGGERS),
        list(migrate.TRIGGERS),
    )
    return bool(laid)
