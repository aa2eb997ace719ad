"""The app's tables that the installation is bound to, and the sequences of the bridge's own tables."""

from typing import Final, NamedTuple

from bridge_service.checks.finding import TIMEOUT_SECONDS, Finding
from bridge_service.checks.look import MIGRATE
from bridge_service.errors import StepRefused
from bridge_service.install import plan as migrate
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import BoundTable, Ledger

_UNKNOWN: Final = "not known while the schema or a right is missing"


class AppTable(NamedTuple):
    """One of the app's tables: its `name` in the functions, quoted and qualified; `oid` is None if it is not there."""

    oid: int | None
    name: str


def app_tables(connection: Connection) -> dict[str, AppTable]:
    """Return the app's tables, by the contract's names.

    They are those that the installation is bound to. Where that is not known, they are in the schema with the bridge's
    triggers, else where the search path of this role leads.
    """
    try:
        bound = Ledger(connection, seconds=TIMEOUT_SECONDS).installed().tables
    except StepRefused:
        bound = {}
    if bound:
        return {
            name: AppTable(table.found if table.name is None else table.oid, table.laid_for)
            for name, table in bound.items()
        }
    rows = connection.execute(
        """
        SELECT w.name, c.oid, format('%%I.%%I', s.nspname, w.name)
        FROM (SELECT n.oid, n.nspname FROM pg_catalog.pg_namespace n
              WHERE n.oid = coalesce(
                  (SELECT c.relnamespace FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
                   WHERE t.tgname = 'bridge_after_message' AND t.tgparentid = 0 LIMIT 1),
                  (SELECT c.relnamespace FROM pg_catalog.pg_class c
                   WHERE c.oid = pg_catalog.to_regclass('messages')),
                  pg_catalog.to_regnamespace('public'),
                  'pg_catalog'::pg_catalog.regnamespace)) s
        CROSS JOIN unnest(%s) AS w (name)
        LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = w.name
        """,
        ([*migrate.APP_TABLES],),
        seconds=TIMEOUT_SECONDS,
    )
    return {name: AppTable(oid, table) for name, oid, table in rows}


def astray(connection: Connection) -> Finding | None:
    """Return what parts the bridge from the tables that it is bound to; None if its functions and triggers fit them."""
    try:
        bound = Ledger(connection, seconds=TIMEOUT_SECONDS).installed().tables
    except StepRefused:
        return None  # other looks say so
    faults = [
        fault if table.found else f"no table {name}: {fault}" for name, table in bound.items() if (fault := table.fault)
    ]
    if faults:
        detail = "; ".join(faults)
        # The triggers look into these two for each INSERT.
        if any(bound[name].found is None for name in ("profiles", "matches")):
            detail += ": the app's INSERTs fail now"
        remedy = f"{MIGRATE}, then `replay --since` that moment for what was missed"
        if any(table.name is not None and table.found not in (None, table.oid) for table in bound.values()):
            remedy = f"give the old table its name back, or drop it and {remedy}"
        return Finding("app_tables", ok=False, detail=detail, remedy=remedy)
    if strays := _strays(connection, bound):
        unanswered = ", ".join(dict.fromkeys(table for _, table in strays))
        detail = f"nothing is answered in {unanswered}: the bridge is bound to {bound['messages'].laid_for}"
        drops = "; ".join(f"DROP TRIGGER {name} ON {table}" for name, table in strays)
        remedy = (
            f"as the tables' owner: {drops}; or `uninstall` first, then `migrate` with a search_path that finds them"
        )
        return Finding("app_tables", ok=False, detail=detail, remedy=remedy)
    if views := [table for table in bound.values() if table.view and table.found != table.oid]:
        detail = "; ".join(f"{table.laid_for} is now a view, and the table is called {table.name}" for table in views)
        return Finding(
            "app_tables", ok=True, detail=detail, remedy=f"{MIGRATE}, which lets the functions name the table"
        )
    return None


def sequences(connection: Connection) -> Finding:
    """Look whether a sequence gives out ids that its table holds already, as after a restore."""
    try:
        behind = Ledger(connection, seconds=TIMEOUT_SECONDS).sequences_behind()
    except StepRefused:
        return Finding("sequences", ok=True, detail=_UNKNOWN)
    if behind:
        detail = f"{', '.join(behind)} behind the ids in the table: the app's INSERTs fail, or nothing is answered"
        return Finding("sequences", ok=False, detail=detail, remedy=f"{MIGRATE}, which sets them right")
    return Finding("sequences", ok=True, detail="ahead of the ids in their tables")


def _strays(connection: Connection, bound: dict[str, BoundTable]) -> list[tuple[str, str]]:
    """Return the bridge's triggers on other tables than the bound ones: name and table, quoted."""
    rows = connection.execute(
        """
        SELECT quote_ident(t.tgname), format('%%I.%%I', n.nspname, c.relname)
        FROM pg_catalog.pg_trigger t
        JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE p.pronamespace = pg_catalog.to_regnamespace('bridge') AND t.tgparentid = 0 AND t.tgname = ANY (%s)
          AND t.tgrelid <> ALL (%s::oid[])
        ORDER BY 2, 1
        """,
        ([*migrate.TRIGGERS], [table.oid for table in bound.values()]),
        seconds=TIMEOUT_SECONDS,
    )
    return [(name, table) for name, table in rows]
