"""The look for triggers of the app that notify the bridge's channels. The bridge's own triggers do so already."""

from typing import Final

from bridge_service.checks.finding import Found, well
from bridge_service.checks.installation import found_tables, our_triggers
from bridge_service.checks.look import MIGRATE, ask
from bridge_service.install.files import TRIGGERS
from bridge_service.machine.database import Connection

CHANNELS: Final = ("bot_events", "new_match")

_COSTS: Final = (
    "a payload of 8,000 bytes or more fails the app's INSERT, each commit waits for the NOTIFY lock of the whole"
    " instance, and any role may LISTEN and read every text that the payload holds"
)


def app_triggers(connection: Connection) -> Found:
    """Look for triggers that notify beside the bridge's."""
    tables = [table.oid for table in found_tables(connection).values()]
    rows = ask(connection, "app_triggers", tables, tables, list(CHANNELS))
    if not rows:
        return well("no trigger of the app's notifies the bridge's channels")
    named = ", ".join(f"{name} on {table} notifies {' and '.join(channels)}" for name, table, channels in rows)
    drop = "; ".join(f"DROP TRIGGER {name} ON {table}" for name, table, _ in rows)
    # Until the bridge's triggers are there, it hears of a message by the app's alone.
    ours = {trigger.name for trigger in our_triggers(connection) if trigger.enabled and not trigger.is_part}
    first = "" if ours == set(TRIGGERS) else f"{MIGRATE} first, then "
    return well(
        f"beside the bridge's triggers {named}",
        f"{first}{drop} (the bridge's own triggers do its work; meanwhile {_COSTS})",
    )
