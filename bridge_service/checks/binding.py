"""Looks whether the bridge still fits the app's tables that it is bound to, and at the sequences of its own tables."""

from bridge_service.checks.finding import Found, well, wrong
from bridge_service.checks.installation import bound_tables, ledger, our_triggers
from bridge_service.checks.look import MIGRATE, REPLAY, UNKNOWN
from bridge_service.errors import StepRefused
from bridge_service.machine.database import Connection


def astray(connection: Connection) -> Found | None:
    """Return how the functions or triggers differ from the tables that they are bound to; None if they fit."""
    bound = bound_tables(connection)
    if not bound:
        return None
    faults = [
        fault if table.found else f"no table {name}: {fault}" for name, table in bound.items() if (fault := table.fault)
    ]
    if faults:
        detail = "; ".join(faults)
        # The triggers read these two for each INSERT.
        if any(bound[name].found is None for name in ("profiles", "matches")):
            detail += ": the app's INSERTs fail now"
        remedy = f"{MIGRATE}, then {REPLAY}"
        if any(table.name is not None and table.found not in (None, table.oid) for table in bound.values()):
            remedy = f"give the old table its name back, or drop it and {remedy}"
        return wrong(detail, remedy)
    ours = {table.oid for table in bound.values()}
    if strays := [each for each in our_triggers(connection) if not each.is_part and each.oid not in ours]:
        unanswered = ", ".join(dict.fromkeys(stray.table for stray in strays))
        drops = "; ".join(f"DROP TRIGGER {stray.name} ON {stray.table}" for stray in strays)
        return wrong(
            f"nothing is answered in {unanswered}: the bridge is bound to {bound['messages'].laid_for}",
            f"as the tables' owner: {drops}; or `uninstall` first, then `migrate` with a search_path that finds them",
        )
    if views := [table for table in bound.values() if table.view and table.found != table.oid]:
        detail = "; ".join(f"{table.laid_for} is now a view, and the table is called {table.name}" for table in views)
        return well(detail, f"{MIGRATE}, which lets the functions name the table")
    return None


def sequences(connection: Connection) -> Found:
    """Look whether a sequence gives out ids that its table holds already, as after a restore."""
    try:
        behind = ledger(connection).sequences_behind()
    except StepRefused:
        return well(UNKNOWN)
    if behind:
        detail = f"{', '.join(behind)} behind the ids in the table: the app's INSERTs fail, or nothing is answered"
        return wrong(detail, f"{MIGRATE}, which sets them right")
    return well("ahead of the ids in their tables")
