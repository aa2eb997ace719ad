"""Looks at schema `bridge`: its age, the rights to call it, and its triggers."""

from typing import Final

from bridge_service.checks.finding import TIMEOUT_SECONDS, Found, well, wrong
from bridge_service.checks.installation import app_tables, ledger, our_triggers, typing_table
from bridge_service.checks.look import ANOTHER_ROLE, MIGRATE, MIGRATE_FOR, REPLAY, VALIDATE, row
from bridge_service.errors import SchemaIncomplete, SchemaMissing, StepRefused
from bridge_service.install.files import EDIT_TRIGGER, HAS_CONTENT, TRIGGERS, TYPING_TABLE, adapter, digests, steps
from bridge_service.install.migrations import newest_migration
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Installed

_TABLES: Final = ("events", "turns", "installation", "migrations", "laid_functions", "processes")

_OWNER_NEEDS: Final = (
    ("conversation", "SELECT", "profiles"),
    ("conversation", "SELECT", "matches"),
    ("history", "SELECT", "messages"),
    ("deliver", "INSERT", "messages"),
)
"""What each function of the adapter does to which of the app's tables, with its owner's rights."""

_LOOK_AT: Final = {table: {name for name, _, on in _OWNER_NEEDS if on == table} for _, _, table in _OWNER_NEEDS}
"""The app's tables, and the functions of the adapter by which the bridge reads their rows and writes its own."""


def schema(connection: Connection) -> Found:
    """Compare schema `bridge` with this code."""
    if not _is_there(connection):
        return wrong("schema bridge is not there", MIGRATE)
    books = ledger(connection)
    try:
        books.assert_complete()
        return _compare(connection, books.installed())
    except SchemaIncomplete as error:
        return wrong(f"schema bridge is incomplete: {error}", MIGRATE)
    except SchemaMissing:
        return wrong("schema bridge is older than this code", MIGRATE)
    except StepRefused:
        return wrong("schema bridge is closed to this role", ANOTHER_ROLE.format("this role"))


def _is_there(connection: Connection) -> bool:
    [there] = row(connection, "SELECT pg_catalog.to_regnamespace('bridge') IS NOT NULL")
    return bool(there)


def _compare(connection: Connection, installed: Installed) -> Found:
    newest = newest_migration()
    if installed.migration is None or installed.installed_at is None:
        return wrong("its rows are missing, as after a restore without data", MIGRATE)
    detail = f"migration {installed.migration}"
    if installed.migration > newest:
        return well(f"{detail}, newer than this code's {newest}", "deploy the newer code here")
    names = {name: table.name for name, table in app_tables(connection).items()}
    if indicators := typing_table(connection):
        names[TYPING_TABLE] = indicators.laid_for
    expected = digests(names)
    app = adapter()
    own = [name for name in installed.changed if name in app]
    # A function that the app replaced stays as it is when this release's file changes.
    old = sorted(name for name in expected if installed.digests.get(name) != expected[name] and name not in own)
    if installed.migration < newest or old:
        return wrong(f"{detail} of {newest}, functions to lay again: {', '.join(old) or 'none'}", MIGRATE)
    [missing] = row(
        connection,
        "SELECT ARRAY(SELECT t FROM unnest(%s::text[]) t WHERE pg_catalog.to_regclass('bridge.' || t) IS NULL)",
        list(_TABLES),
    )
    if missing:
        return wrong(
            f"{detail}, its tables are missing: {', '.join(missing)}",
            "restore them from a backup, or run `python -m bridge_service uninstall` and `migrate` to begin again",
        )
    if changed := [name for name in installed.changed if name not in app]:
        detail = f"{detail}, functions changed by hand: {', '.join(changed)}"
        return wrong(detail, f"{MIGRATE}, which lays them as they were")
    return well(f"{detail}, replaced by the app: {', '.join(own)}" if own else detail)


def rights(connection: Connection) -> Found:
    """Look for the rights to call each step, and for those of the functions' owner to the app's tables."""
    called = steps()
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
        called,
    )
    if usage is None:
        return wrong("there is no schema to have rights on", MIGRATE)
    if usage and not missing:
        return _owner_rights(connection) or well(f"role {role} may call every step")
    detail = f"role {role} may not call {', '.join(missing)}" if usage else f"role {role} may not enter schema bridge"
    remedy = MIGRATE_FOR if usage and len(missing) < len(called) else ANOTHER_ROLE
    return wrong(detail, remedy.format(role))


def _owner_rights(connection: Connection) -> Found | None:
    """Find out what the owner of the adapter's functions may not do to the app's tables; None if all is well.

    A function that the app replaced may read and write elsewhere.
    """
    tables = app_tables(connection)
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
            list(ledger(connection).installed().changed),
        ),
        seconds=TIMEOUT_SECONDS,
    )
    if not rows:
        return None
    owner = rows[0][0]
    lacking = ", ".join(f"{privilege} on {table}" for _, privilege, table in rows)
    grants = "; ".join(f"GRANT {privilege} ON {table} TO {owner}" for _, privilege, table in rows)
    return wrong(f"role {owner}, which owns the bridge's functions, lacks {lacking}", f"as the tables' owner: {grants}")


def triggers(connection: Connection) -> Found:
    """Look for the capture triggers."""
    tables = {table.oid for table in app_tables(connection).values()}
    ours = [trigger for trigger in our_triggers(connection) if trigger.is_part or trigger.oid in tables]
    missing = sorted(set(TRIGGERS) - {trigger.name for trigger in ours if not trigger.is_part})
    messages = app_tables(connection).get("messages")
    if EDIT_TRIGGER in missing and messages is not None and row(connection, HAS_CONTENT, messages.oid) == (False,):
        missing.remove(EDIT_TRIGGER)
    if missing:
        remedy = f"{MIGRATE}, then {REPLAY}" if _is_there(connection) else MIGRATE
        return wrong(f"missing: {', '.join(missing)}", remedy)
    if asleep := [trigger for trigger in ours if not trigger.enabled]:
        statements = "; ".join(f"ALTER TABLE {each.table} ENABLE TRIGGER {each.name}" for each in asleep)
        detail = f"disabled: {', '.join(f'{each.name} on {each.table}' for each in asleep)}"
        return wrong(detail, f"{statements}, then {REPLAY}")
    return well("all in place and enabled")


def row_security(connection: Connection) -> Found:
    """Find out whether row-level security hides the app's rows from the functions' owner."""
    own = set(ledger(connection).installed().changed)
    told = ledger(connection).row_security()
    owner = told["owner"]
    # A function that the app replaced may read elsewhere.
    tables = [table for table in told["tables"] if own.isdisjoint(_LOOK_AT[table["name"]])]
    if shut := [table for table in tables if table["rows"] == "none"]:
        names = ", ".join(table["name"] for table in shut)
        return wrong(
            f"row-level security keeps role {owner}, which owns the bridge's functions, from {names}",
            f"as the tables' owner: {'; '.join(table['policy'] for table in shut)}",
        )
    doubts = []
    if unsure := [table["name"] for table in tables if table["rows"] == "unsure"]:
        doubts.append(f"policies, or a view, decide which rows of {', '.join(unsure)} role {owner} sees")
    if replaced := sorted(own & set().union(*_LOOK_AT.values())):
        doubts.append(f"the app replaced {', '.join(replaced)}")
    if doubts:
        return well(f"cannot tell: {'; '.join(doubts)}", VALIDATE)
    return well(f"role {owner} sees every row of the app's tables")
