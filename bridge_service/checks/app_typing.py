"""The look at `typing_events`, a table that the app may lack."""

from collections.abc import Sequence
from typing import Final

from bridge_service.checks.finding import TIMEOUT_SECONDS, Found, well, wrong
from bridge_service.checks.installation import found_tables, replaced, typing_table
from bridge_service.checks.look import MIGRATE, UNKNOWN, row
from bridge_service.errors import StepRefused
from bridge_service.install.files import TYPING_TABLE, template
from bridge_service.machine.database import Connection, Row
from bridge_service.machine.ledger import BoundTable

_FUNCTIONS: Final = frozenset({"has_typing", "show_typing", "is_typing"})


def app_typing(connection: Connection) -> Found:
    """Look whether the bridge can use `typing_events`, if the app has it, and whether it does."""
    messages = found_tables(connection).get("messages")
    try:
        bound = typing_table(connection)
    except StepRefused:
        return well(UNKNOWN)
    if own := sorted(replaced(connection) & _FUNCTIONS):
        return well(f"the app replaced {', '.join(own)}")
    [owner] = row(
        connection,
        "SELECT pg_catalog.pg_get_userbyid(max(p.proowner::bigint)::oid) FROM pg_catalog.pg_proc p"
        " WHERE p.pronamespace = pg_catalog.to_regnamespace('bridge') AND p.proname = 'show_typing'",
    )
    if owner is None or messages is None:
        return well(UNKNOWN)
    parameters = (messages.oid, bound and bound.oid, owner)
    return _judge(bound, connection.execute(template("typing_table"), parameters, seconds=TIMEOUT_SECONDS))


def _judge(bound: BoundTable | None, found: Sequence[Row]) -> Found:
    """Compare what the installation is bound to with what typing_table.sql found."""
    if not found and bound is None:
        return well(f"the app has no table {TYPING_TABLE}: no indicator is shown, and none is looked at")
    if not found:
        return wrong(
            f"{bound and bound.laid_for} is gone: no indicator is shown", f"{MIGRATE}, or create it again first"
        )
    [(oid, name, faults)] = found
    if faults:
        return wrong(f"{name}: {'; '.join(faults)}: no indicator is shown", f"mend it, then {MIGRATE}")
    if bound is None or (bound.oid, bound.laid_for) != (oid, name):
        return well(f"{name} is not used yet", MIGRATE)
    return well(f"{name} shows when a bot types")
