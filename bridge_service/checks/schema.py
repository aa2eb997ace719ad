"""Looks at schema `bridge`: its age, the rights to call it, and its triggers."""

from typing import Final

from bridge_service.checks import binding
from bridge_service.checks.finding import TIMEOUT_SECONDS, Finding
from bridge_service.checks.look import ANOTHER_ROLE, MIGRATE, MIGRATE_FOR, REPLAY, VALIDATE, row
from bridge_service.errors import SchemaIncomplete, SchemaMissing, StepRefused
from bridge_service.install import plan as migrate
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Installed, Ledger

_TABLES: Final = ("events", "turns", "installation", "migrations", "laid_functions", "processes")

_OWNER_NEEDS: Final = (
    ("conversation", "SELECT", "profiles"),
    ("conversation", "SELECT", "matches"),
    ("history", "SELECT", "messages"),
    ("deliver", "INSERT", "messages"),
)
"""What each function of the adapter does to which of the app's tables, with its owner's rights."""

_LOOK_AT: Final = {table: {name for name, _, on in _OWNER_NEEDS if on == table} for _, _, table in _OWNER_NEEDS}
"""The app's tables, and the functions of the adapter by which the bridge sees their rows and writes its own."""


def schema(connection: Connection) -> Finding:
    """Compare schema `bridge` with this code."""
    [there] = row(connection, "SELECT pg_catalog.to_regnamespace('bridge') IS NOT NULL")
    if not there:
        return Finding("schema", ok=False, detail="schema bridge is not there", remedy=MIGRATE)
    try:
        ledger = Ledger(connection, seconds=TIMEOUT_SECONDS)
        ledger.assert_complete()
        installed = ledger.installed()
    except StepRefused as error:
        closed = not isinstance(error, SchemaMissing)
        detail = "schema bridge is closed to this role" if closed else "schema bridge is older than this code"
        if isinstance(error, SchemaIncomplete):
            detail = f"schema bridge is incomplete: {error}"
        remedy = ANOTHER_ROLE.format("this role") if closed else MIGRATE
        return Finding("schema", ok=False, detail=detail, remedy=remedy)
    detail, fault, remedy = _compare(connection, installed)
    return Finding("schema", ok=not fault, detail=", ".join(filter(None, (detail, fault))), remedy=remedy)


def _compare(connection: Connection, installed: Installed) -> tuple[str, str, str]:
    """Return what is installed, what is wrong with it ('' if nothing is), and a remedy."""
    newest = migrate.newest_migration()
    if installed.migration is None or installed.installed_at is None:
        return "", "its rows are missing, as after a restore without data", MIGRATE
    detail = f"migration {installed.migration}"
    if installed.migration > newest:
        return f"{detail}, newer than this code's {newest}", "", "deploy the newer code here, too"
    expected = migrate.digests({name: table.name for name, table in binding.app_tables(connection).items()})
    app = migrate.adapter()
    replaced = [name for name in installed.changed if name in app]
    # An adapter function that the app replaced stays as it is, whatever becomes of our file.
    old = sorted(name for name in expected if installed.digests.get(name) != expected[name] and name not in replaced)
    if installed.migration < newest or old:
        return f"{detail} of {newest}", f"functions to lay anew: {', '.join(old) or 'none'}", MIGRATE
    if missing := _missing_tables(connection):
        remedy = "restore them from a backup, or run `python -m bridge_service uninstall` and `migrate` to begin anew"
        return detail, f"its tables are missing: {', '.join(missing)}", remedy
    if changed := [name for name in installed.changed if name not in app]:
        return detail, f"functions changed by hand: {', '.join(changed)}", f"{MIGRATE}, which lays them as they were"
    if replaced:
        detail += f", replaced by the app: {', '.join(replaced)}"
    return detail, "", ""


def _missing_tables(connection: Connection) -> list[str]:
    [missing] = row(
        connection,
        "SELECT ARRAY(SELECT t FROM unnest(%s::text[]) t WHERE pg_catalog.to_regclass('bridge.' || t) IS NULL)",
        list(_TABLES),
    )
    return list(missing)


def rights(connection: Connection) -> Finding:
    """Look for the rights to call each step, and for those of the functions' owner to the app's tables."""
    role, usage, missing = row(
        connection,
        """
        SELECT current_user::text, has_schema_privilege(n.oid, 'USAGE'),
               ARRAY(SELECT p.proname::text FROM pg_catalog.pg_proc p
                     WHERE p.pronamespace = n.oid AND p.proname = ANY (%s)
                       AND NOT has_function_privilege(p.oid, 'EXECUTE')
                     ORDER BY p.proname)
        FROM (SELECT pg_catalog.to_regnamespace('bridge') AS oid) n
        """,
        migrate.steps(),
    )
    if usage is None:
        return Finding("rights", ok=False, detail="there is no schema to have rights on", remedy=MIGRATE)
    if usage and not missing:
        return _owner_rights(connection) or Finding("rights", ok=True, detail=f"role {role} may call every step")
    detail = f"role {role} may not call {', '.join(missing)}" if usage else f"role {role} may not enter schema bridge"
    remedy = MIGRATE_FOR if usage and len(missing) < len(migrate.steps()) else ANOTHER_ROLE
    return Finding("rights", ok=False, detail=detail, remedy=remedy.format(role))


def _owner_rights(connection: Connection) -> Finding | None:
    """Find out what the owner of the adapter's functions may not do to the app's tables; None if all is well.

    Where the app looks and writes by functions of its own, it may do so elsewhere.
    """
    replaced = list(Ledger(connection, seconds=TIMEOUT_SECONDS).installed().changed)
    tables = binding.app_tables(connection)
    rows = connection.execute(
        """
        SELECT pg_catalog.pg_get_userbyid(p.proowner)::text, need.privilege, c.oid::regclass::text
        FROM unnest(%s::text[], %s::text[], %s::oid[]) AS need (function, privilege, relation)
        JOIN pg_catalog.pg_proc p ON p.pronamespace = pg_catalog.to_regnamespace('bridge') AND p.proname = need.function
        JOIN pg_catalog.pg_class c ON c.oid = need.relation
        WHERE need.function <> ALL (%s) AND NOT has_any_column_privilege(p.proowner, c.oid, need.privilege)
        """,
        (
            [function for function, _, _ in _OWNER_NEEDS],
            [privilege for _, privilege, _ in _OWNER_NEEDS],
            [tables[table].oid for _, _, table in _OWNER_NEEDS],
            replaced,
        ),
        seconds=TIMEOUT_SECONDS,
    )
    if not rows:
        return None
    owner = rows[0][0]
    lacking = ", ".join(f"{privilege} on {table}" for _, privilege, table in rows)
    detail = f"role {owner}, as whom the bridge looks and writes, lacks {lacking}"
    grants = "; ".join(f"GRANT {privilege} ON {table} TO {owner}" for _, privilege, table in rows)
    return Finding("rights", ok=False, detail=detail, remedy=f"as the tables' owner: {grants}")


def triggers(connection: Connection) -> Finding:
    """Look for the capture triggers."""
    rows = connection.execute(
        "SELECT tgname, tgrelid::regclass::text, tgenabled IN ('O', 'A'), tgparentid = 0 FROM pg_catalog.pg_trigger"
        " WHERE tgname = ANY (%s) AND (tgparentid <> 0 OR tgrelid = ANY (%s::oid[])) ORDER BY tgname",
        (list(migrate.TRIGGERS), [table.oid for table in binding.app_tables(connection).values()]),
        seconds=TIMEOUT_SECONDS,
    )
    missing = sorted(set(migrate.TRIGGERS) - {name for name, _, _, parent in rows if parent})
    if missing:
        [installed] = row(connection, "SELECT pg_catalog.to_regnamespace('bridge') IS NOT NULL")
        remedy = f"{MIGRATE}, then {REPLAY}" if installed else MIGRATE
        return Finding("triggers", ok=False, detail=f"missing: {', '.join(missing)}", remedy=remedy)
    asleep = [(name, table) for name, table, enabled, _ in rows if not enabled]
    if asleep:
        detail = f"disabled: {', '.join(f'{name} on {table}' for name, table in asleep)}"
        statements = "; ".join(f"ALTER TABLE {table} ENABLE TRIGGER {name}" for name, table in asleep)
        return Finding("triggers", ok=False, detail=detail, remedy=f"{statements}, then {REPLAY}")
    return Finding("triggers", ok=True, detail="all in place and enabled")


def row_security(connection: Connection) -> Finding:
    """Find out whether row-level security hides the app's rows from the functions' owner."""
    ledger = Ledger(connection, seconds=TIMEOUT_SECONDS)
    changed = set(ledger.installed().changed)
    told = ledger.row_security()
    owner = told["owner"]
    # Where the app looks by functions of its own, it may look elsewhere.
    ours = [table for table in told["tables"] if changed.isdisjoint(_LOOK_AT[table["name"]])]
    shut = [table for table in ours if table["rows"] == "none"]
    if shut:
        names = ", ".join(table["name"] for table in shut)
        detail = f"row-level security keeps role {owner}, as whom the bridge looks and writes, from {names}"
        remedy = f"as the tables' owner: {'; '.join(table['policy'] for table in shut)}"
        return Finding("row_security", ok=False, detail=detail, remedy=remedy)
    doubts = []
    if unsure := [table["name"] for table in ours if table["rows"] == "unsure"]:
        doubts.append(f"policies, or a view, decide which rows of {', '.join(unsure)} role {owner} sees")
    if replaced := sorted(changed & set().union(*_LOOK_AT.values())):
        doubts.append(f"the app replaced {', '.join(replaced)}")
    if doubts:
        return Finding("row_security", ok=True, detail=f"cannot tell: {'; '.join(doubts)}", remedy=VALIDATE)
    return Finding("row_security", ok=True, detail=f"role {owner} sees every row of the app's tables")
