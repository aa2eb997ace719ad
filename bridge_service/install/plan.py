"""Lays schema `bridge` into the app's database and brings it up to date.

A run looks at what is there and plans its statements, then executes them; `plan` shows the same statements. All of it
is one transaction, so a crash leaves the old schema or the new one. Only the trigger on `matches` follows in a second
transaction: a transaction that locks both of the app's tables can meet an app transaction that locks them the other
way round, and PostgreSQL would end one of the two.
"""

from collections.abc import Sequence

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.errors import DatabaseRefused
from bridge_service.install import binding, needs, proof, rights
from bridge_service.install.files import APP_TABLES, EDIT_TRIGGER, HAS_CONTENT, TRIGGERS, template
from bridge_service.install.functions import functions
from bridge_service.install.migrations import migrations
from bridge_service.install.report import Report
from bridge_service.install.transaction import SETTINGS, begin, filled, value
from bridge_service.install.waiting import LockTries


def migrate(
    url: str, *, runtime_role: str | None = None, reader_roles: Sequence[str] = (), app_role: str | None = None
) -> Report:
    """Bring schema `bridge` up to date.

    Parameters:
      url: the app's database, as a role that owns its tables or may create triggers on them.
      runtime_role: gets EXECUTE on the steps, and nothing else. Roles of earlier runs keep it, also on new steps.
      reader_roles: get SELECT on the bridge's tables, except on the drafts and tokens of turns. Roles of earlier runs
        keep it, also on new tables.
      app_role: gets EXECUTE on the functions that are there for the app.

    Raises:
      DatabaseUnavailable: PostgreSQL did not answer, or the app's tables stayed locked through every attempt.
      DatabaseRefused: a table, a column, a role or a right is missing; the text names it.
      TablesUnfit: the bridge cannot work on the app's tables as they are; it has a line for each cause.
    """
    report = Report()
    app: dict[str, str] = {}
    tries = LockTries(url, list(APP_TABLES))
    for attempt in tries.attempts():
        with attempt, begin(url) as cursor:
            report = Report()
            app, first, rest = _plan(cursor, report, runtime_role, reader_roles, app_role)
            for statement in first:
                cursor.execute(statement)
            for table in ("messages", "matches"):
                _refuse_missing_right(cursor, table, app)
            proof.prove(cursor, app, report.kept)
            for statement in rest:
                cursor.execute(statement)
    for attempt in tries.attempts():
        with attempt, begin(url) as cursor:
            for name, statement in _missing_triggers(cursor, "matches", app).items():
                cursor.execute(statement)
                report.triggers.append(name)
    return report


def plan(
    url: str, *, runtime_role: str | None = None, reader_roles: Sequence[str] = (), app_role: str | None = None
) -> tuple[Report, str]:
    """Tell what `migrate` would do, in a transaction that is read-only and locks no table.

    Returns:
      What it would do; and a script for psql that does it, empty if there is nothing to do. The script does not try
      again when one of the app's tables is locked.

    Raises:
      DatabaseUnavailable, DatabaseRefused: as for `migrate`, except for the rights to change anything.
    """
    report = Report()
    with begin(url, read_only=True) as cursor:
        app, first, rest = _plan(cursor, report, runtime_role, reader_roles, app_role)
        second = _missing_triggers(cursor, "matches", app)
        report.triggers += second
        cursor.execute("SELECT current_setting('search_path')")
        path = filled(cursor, "SELECT set_config('search_path', {}, true)", sql.Literal(value(cursor)))
    return report, "\n".join(
        f"{statement.strip().removesuffix(';')};\n"
        for statements in ([*first, *rest], [*second.values()])
        if statements
        for statement in ("BEGIN ISOLATION LEVEL READ COMMITTED", *SETTINGS, path, *statements, "COMMIT")
    )


def _plan(
    cursor: Cursor, report: Report, runtime_role: str | None, reader_roles: Sequence[str], app_role: str | None
) -> tuple[dict[str, str], list[str], list[str]]:
    """Plan everything except the trigger on `matches`, and change nothing.

    Returns:
      The app's tables; the statements before the proof; the statements after it.
    """
    _refuse_another_owner(cursor)
    bound = binding.bound_tables(cursor)
    app = binding.find_app_tables(cursor, bound)
    refuse_foreign_schema(cursor)
    rights.refuse_missing_roles(cursor, [*filter(None, (runtime_role, app_role)), *reader_roles])
    first = [*_schema(cursor), *migrations(cursor, report), *functions(cursor, app, report)]
    if bind := [*binding.bind(cursor, bound, app)]:
        report.bound = [*app.values()]
        first += bind
    # The proof captures a message, so it needs an id.
    behind = binding.sequences_behind(cursor)
    report.sequences += behind
    first += behind.values()
    needs.refuse_unmet(cursor, app, report.kept)
    # A trigger locks out the writers of `messages` until the commit. What locks a table of the bridge comes after it,
    # in the order of the app's own INSERT.
    triggers = _missing_triggers(cursor, "messages", app)
    report.triggers += triggers
    rest = [*triggers.values()]
    if _begins_here(cursor, report):
        # The triggers capture every message that commits after this statement.
        rest.append(template("begin"))
    rest += rights.to_call(cursor, runtime_role, report)
    rest += rights.of_app(cursor, app_role, report)
    rest += rights.to_read(cursor, reader_roles, report)
    rest += rights.to_back_up(cursor, app, changes=bool(report.migrations or reader_roles))
    return app, first, rest


def refuse_foreign_schema(cursor: Cursor) -> None:
    """Refuse a schema `bridge` whose tables are not the bridge's.

    Raises:
      DatabaseRefused: it is not the bridge's.
    """
    cursor.execute(
        "SELECT to_regclass('bridge.migrations') IS NULL AND to_regclass('bridge.laid_functions') IS NULL"
        " AND EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('bridge'))"
    )
    if value(cursor):
        raise DatabaseRefused("schema `bridge` holds tables that are not the bridge's: rename it, the name is needed")


def _refuse_another_owner(cursor: Cursor) -> None:
    """Name the owner of the schema. PostgreSQL would name a right that no GRANT gives."""
    cursor.execute(
        "SELECT pg_get_userbyid(c.relowner)::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'bridge' AND c.relname = 'migrations' AND NOT pg_has_role(c.relowner, 'USAGE')"
    )
    for (owner,) in cursor.fetchall():
        raise DatabaseRefused(f"schema `bridge` is kept up to date by {owner}: run it with that role in DATABASE_URL")


def _refuse_missing_right(cursor: Cursor, table: str, app: dict[str, str]) -> None:
    """Refuse before the first commit what the transaction of the trigger on `matches` would meet."""
    cursor.execute(
        "SELECT min(relid::regclass::text) FROM ("
        "  SELECT %(name)s::regclass::oid UNION SELECT relid FROM pg_partition_tree(%(name)s::regclass)) AS t (relid)"
        " WHERE NOT has_table_privilege(relid, 'TRIGGER')",
        {"name": app[table]},
    )
    closed = value(cursor)
    if closed and _missing_triggers(cursor, table, app):
        raise DatabaseRefused(f"permission denied for table {closed}: the role has to own it or to have TRIGGER on it")


def _schema(cursor: Cursor) -> list[str]:
    cursor.execute(
        "SELECT n.nspname IS NOT NULL, EXISTS (SELECT FROM aclexplode(n.nspacl) a WHERE a.grantee = 0)"
        " FROM (VALUES ('bridge')) AS wanted (name) LEFT JOIN pg_namespace n ON n.nspname = wanted.name"
    )
    [[there, public]] = cursor.fetchall()
    close = ["REVOKE ALL ON SCHEMA bridge FROM PUBLIC"]
    return (close if public else []) if there else ["CREATE SCHEMA bridge", *close]


def _begins_here(cursor: Cursor, report: Report) -> bool:
    """Tell whether the installation begins with this run: its schema is new, or a restore left its row out."""
    if "0001_tables.sql" in report.migrations:
        return True
    cursor.execute("SELECT NOT EXISTS (SELECT FROM bridge.installation)")
    return bool(value(cursor))


def _missing_triggers(cursor: Cursor, table: str, app: dict[str, str]) -> dict[str, str]:
    """Return the triggers that a table lacks, by name, and the statements that make them."""
    cursor.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass", (app[table],))
    there = {name for (name,) in cursor.fetchall()}
    if table == "messages" and EDIT_TRIGGER not in there:
        cursor.execute(HAS_CONTENT, (app[table],))
        there |= set() if value(cursor) else {EDIT_TRIGGER}
    return {
        name: f"CREATE TRIGGER {name} {definition.format(**app)}"
        for name, definition in TRIGGERS.items()
        if f"{{{table}}}" in definition and name not in there
    }
