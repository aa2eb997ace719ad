"""Lays schema `bridge` into the app's database, and takes it out again.

Numbered migrations run once; functions are laid anew whenever their file changed; triggers are made where they are
missing. All of it is one transaction under an advisory lock, so that running it twice, five times at once, under load
or through a crash leaves the old schema or the new one and nothing between. Only the trigger on `matches` follows in a
transaction of its own: who locks both of the app's tables meets somebody who writes in both the other way round.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg2
import psycopg2.errors
import tenacity
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.database import translate
from bridge_service.errors import DatabaseRefused

SQL_FOLDER: Final = Path(__file__).parent / "sql"

# "bridge" in ASCII: every migrate and uninstall of one database waits for the one before.
_ADVISORY_KEY: Final = 0x627269646765
# A waiting lock on `messages` makes every INSERT queue up behind it: give up soon, let them pass, try again. And before
# PostgreSQL looks for deadlocks (after 1 s), or it would be the app's transaction that it ends.
_LOCK_TIMEOUT: Final = "400ms"
_ATTEMPTS: Final = 100

# What a bot is about to say is no figure for a dashboard, and a worker's token is nobody else's business.
_UNREADABLE: Final = ("draft", "token")

_FUNCTION_FOLDERS: Final = ("functions/inner", "functions/app", "functions/triggers", "functions")

APP_TABLES: Final = {
    "profiles": ("id", "first_name", "is_bot"),
    "matches": ("id", "user1_id", "user2_id", "created_at"),
    "messages": ("id", "match_id", "sender_id", "content", "created_at"),
}
TRIGGERS: Final = {
    "bridge_before_message": "BEFORE INSERT ON {messages} FOR EACH ROW EXECUTE FUNCTION bridge.before_message()",
    "bridge_after_message": "AFTER INSERT ON {messages} FOR EACH ROW EXECUTE FUNCTION bridge.after_message()",
    "bridge_after_match": "AFTER INSERT ON {matches} FOR EACH ROW EXECUTE FUNCTION bridge.after_match()",
}


@dataclass(slots=True)
class Report:
    """What a run did, in words for the operator."""

    migrations: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    triggers: list[str] = field(default_factory=list)


def migrate(url: str, *, runtime_role: str | None = None, reader_role: str | None = None) -> Report:
    """Bring schema `bridge` up to date.

    Parameters:
      url: the app's database, as a role that owns its tables or may create triggers on them.
      runtime_role: gets EXECUTE on the steps, and nothing else. Roles that got it before keep it, on new steps too.
      reader_role: gets SELECT on the bridge's tables, but for the drafts and tokens of turns.

    Raises:
      DatabaseUnavailable: not reachable, or the app's tables stayed locked through every attempt.
      DatabaseRefused: a table, a column or a right is missing; the text names it.
    """
    report = Report()
    app: dict[str, str] = {}
    for attempt in _attempts():
        with attempt, _transaction(url) as cursor:
            report = Report()
            schema, app = _find_app_tables(cursor)
            _refuse_foreign_schema(cursor)
            runtime_roles = _runtime_roles(cursor) | ({runtime_role} if runtime_role else set())
            cursor.execute("CREATE SCHEMA IF NOT EXISTS bridge")
            cursor.execute("REVOKE ALL ON SCHEMA bridge FROM PUBLIC")
            _run_migrations(cursor, report)
            _lay_functions(cursor, schema, report)
            _make_triggers(cursor, "messages", app, report)
            _may_make_triggers(cursor, "matches", app)
            if "0001_tables.sql" in report.migrations:
                # From here on everything is captured; what was written while this ran came before.
                cursor.execute("UPDATE bridge.installation SET installed_at = clock_timestamp()")
            _grant(cursor, runtime_roles, reader_role)
    for attempt in _attempts():
        with attempt, _transaction(url) as cursor:
            _make_triggers(cursor, "matches", app, report)
    return report


def uninstall(url: str) -> bool:
    """Take schema `bridge` and its triggers out; the app's tables are as they were. Works under running processes.

    Returns:
      Whether there was anything to take out.

    Raises:
      DatabaseUnavailable, DatabaseRefused: as for `migrate`.
    """
    found = False
    # Triggers first: that waits for every INSERT that is under way, so none of them meets half a schema. One at a time:
    # it locks readers out too, and who locks both tables meets somebody who uses both the other way round.
    for name in TRIGGERS:
        for attempt in _attempts():
            with attempt, _transaction(url) as cursor:
                found |= _drop_trigger(cursor, name)
    for attempt in _attempts():
        with attempt, _transaction(url) as cursor:
            _refuse_foreign_schema(cursor)
            cursor.execute("SELECT to_regnamespace('bridge') IS NOT NULL")
            found |= _value(cursor)
            cursor.execute("DROP SCHEMA IF EXISTS bridge CASCADE")
    return found


def newest_migration() -> int:
    """Number of the last migration of this code."""
    return max(_number(file) for file in _sql_files("migrations"))


def digests(app_schema: str) -> dict[str, str]:
    """Digest of each function's file, by its name, as it is laid for an app whose tables are in `app_schema`."""
    return {
        file.name.removesuffix(".sql"): _digest(_text(file, app_schema))
        for folder in _FUNCTION_FOLDERS
        for file in _sql_files(folder)
    }


def adapter() -> list[str]:
    """Names of the functions that an app with other tables may replace."""
    return [file.name.removesuffix(".sql") for file in _sql_files("functions/app")]


def steps() -> list[str]:
    """Names of the functions that the run-time role has to be allowed to call."""
    return [file.name.removesuffix(".sql") for file in _sql_files("functions")]


def _attempts() -> tenacity.Retrying:
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_busy),
        wait=tenacity.wait_random(0.1, 0.8),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        reraise=True,
    )


def _is_busy(error: BaseException) -> bool:
    return isinstance(error.__cause__, psycopg2.errors.LockNotAvailable | psycopg2.errors.DeadlockDetected)


@contextmanager
def _transaction(url: str) -> Iterator[Cursor]:
    try:
        connection = psycopg2.connect(url, connect_timeout=10, fallback_application_name="bridge migrate")
        try:
            # Who waited for another run has to see what that one did.
            connection.set_session(isolation_level="READ COMMITTED")
            with connection, connection.cursor() as cursor:
                cursor.execute("SET LOCAL client_min_messages = warning")
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_KEY,))
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))
                # For `deliver`, which keeps it: unless pg_temp is named last, a caller's temporary tables come first.
                cursor.execute("SELECT concat_ws(', ', nullif(current_setting('search_path'), ''), 'pg_temp')")
                cursor.execute("SELECT set_config('search_path', %s, true)", (_value(cursor),))
                # Bodies name functions that are laid later in the same run.
                cursor.execute("SET LOCAL check_function_bodies = off")
                yield cursor
        finally:
            connection.close()
    except psycopg2.Error as error:
        raise translate(error) from error


def _find_app_tables(cursor: Cursor) -> tuple[str, dict[str, str]]:
    """Find the app's tables by the search path: their schema, quoted, and their names, quoted and qualified."""
    found = {}
    schemas = []
    for table, columns in APP_TABLES.items():
        cursor.execute(
            "SELECT c.oid, quote_ident(n.nspname), quote_ident(c.relname) FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)",
            (table,),
        )
        row = cursor.fetchone()
        if row is None:
            message = f"the app's table `{table}` was not found: create it, or add its schema to the role's search_path"
            raise DatabaseRefused(message)
        oid, schema, name = row
        cursor.execute("SELECT attname FROM pg_attribute WHERE attrelid = %s AND NOT attisdropped", (oid,))
        missing = sorted(set(columns) - {name for (name,) in cursor.fetchall()})
        if missing:
            message = f"the app's table `{table}` has no column {', '.join(missing)}"
            raise DatabaseRefused(message)
        found[table] = f"{schema}.{name}"
        schemas.append(schema)
    if len(set(schemas)) > 1:
        message = f"the app's tables were found in several schemas ({', '.join(found.values())}): one is expected"
        raise DatabaseRefused(message)
    return schemas[0], found


def _refuse_foreign_schema(cursor: Cursor) -> None:
    """Leave alone a schema `bridge` that is somebody else's."""
    cursor.execute(
        "SELECT to_regclass('bridge.migrations') IS NULL"
        " AND EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('bridge'))"
    )
    if _value(cursor):
        raise DatabaseRefused("schema `bridge` holds tables that are not the bridge's: rename it, the name is needed")


def _run_migrations(cursor: Cursor, report: Report) -> None:
    cursor.execute(
        "CREATE TABLE IF NOT EXISTS bridge.migrations"
        " (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    cursor.execute("ALTER TABLE bridge.migrations ENABLE ROW LEVEL SECURITY")
    cursor.execute("SELECT coalesce(max(number), 0) FROM bridge.migrations")
    applied = _value(cursor)
    for file in _sql_files("migrations"):
        number = _number(file)
        if number > applied:
            cursor.execute(file.read_text(encoding="utf-8"))
            cursor.execute("INSERT INTO bridge.migrations (number, name) VALUES (%s, %s)", (number, file.name))
            report.migrations.append(file.name)


def _lay_functions(cursor: Cursor, app_schema: str, report: Report) -> None:
    """Lay every function whose file changed. An adapter function that the app replaced is left alone."""
    cursor.execute("SELECT name, digest, source FROM bridge.laid_functions")
    laid = {name: (digest, source) for name, digest, source in cursor.fetchall()}
    for folder in _FUNCTION_FOLDERS:
        for file in _sql_files(folder):
            name = file.name.removesuffix(".sql")
            text = _text(file, app_schema)
            digest = _digest(text)
            replaced = name in laid and _source(cursor, name) not in (None, laid[name][1])
            if folder == "functions/app" and replaced:
                report.kept.append(name)
            elif name not in laid or laid[name][0] != digest or replaced or _source(cursor, name) is None:
                _lay(cursor, name, text)
                cursor.execute(
                    "INSERT INTO bridge.laid_functions VALUES (%s, %s, %s)"
                    " ON CONFLICT (name) DO UPDATE SET digest = EXCLUDED.digest, source = EXCLUDED.source",
                    (name, digest, _source(cursor, name)),
                )
                report.functions.append(name)


def _lay(cursor: Cursor, name: str, text: str) -> None:
    """Replace in place, so that an INSERT that calls it just now finds it; drop first only if its signature changed."""
    cursor.execute("SAVEPOINT lay")
    try:
        cursor.execute(text)
        cursor.execute(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'bridge'::regnamespace AND proname = %s", (name,)
        )
        versions = _value(cursor)
    except psycopg2.errors.InvalidFunctionDefinition:
        cursor.execute("ROLLBACK TO lay")
        versions = 2
    if versions > 1:
        _drop(cursor, name)
        cursor.execute(text)
    cursor.execute(sql.SQL("REVOKE ALL ON FUNCTION bridge.{} FROM PUBLIC").format(sql.Identifier(name)))


def _drop(cursor: Cursor, name: str) -> None:
    cursor.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'bridge'::regnamespace AND proname = %s",
        (name,),
    )
    for (signature,) in cursor.fetchall():
        cursor.execute(sql.SQL("DROP FUNCTION {}").format(sql.SQL(signature)))


def _source(cursor: Cursor, name: str) -> str | None:
    """Digest of a function as PostgreSQL holds it; None if it does not."""
    cursor.execute(
        "SELECT md5(string_agg(pg_get_functiondef(oid), '' ORDER BY oid)) FROM pg_proc"
        " WHERE pronamespace = 'bridge'::regnamespace AND proname = %s",
        (name,),
    )
    digest = _value(cursor)
    return None if digest is None else str(digest)


def _make_triggers(cursor: Cursor, table: str, app: dict[str, str], report: Report) -> None:
    """Make the triggers of a table that are missing, last of all: they lock out its writers until the commit."""
    for name in _missing_triggers(cursor, table, app):
        definition = TRIGGERS[name].format(**app)
        cursor.execute(sql.SQL("CREATE TRIGGER {} {}").format(sql.Identifier(name), sql.SQL(definition)))
        report.triggers.append(name)


def _missing_triggers(cursor: Cursor, table: str, app: dict[str, str]) -> list[str]:
    cursor.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass", (app[table],))
    there = {name for (name,) in cursor.fetchall()}
    return [name for name, definition in TRIGGERS.items() if f"{{{table}}}" in definition and name not in there]


def _may_make_triggers(cursor: Cursor, table: str, app: dict[str, str]) -> None:
    """Find out now what would else come to light in the next transaction."""
    cursor.execute("SELECT has_table_privilege(%s, 'TRIGGER')", (app[table],))
    if not _value(cursor) and _missing_triggers(cursor, table, app):
        raise DatabaseRefused(f"permission denied for table {table}: the role has to own it or to have TRIGGER on it")


def _drop_trigger(cursor: Cursor, name: str) -> bool:
    """Drop a trigger wherever it is; whether it was anywhere."""
    cursor.execute("SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = %s AND tgparentid = 0", (name,))
    tables = cursor.fetchall()
    for (table,) in tables:
        cursor.execute(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(name), sql.SQL(table)))
    return bool(tables)


def _runtime_roles(cursor: Cursor) -> set[str]:
    """Find the roles that an earlier run let call the steps: a function that is dropped and made anew forgets them."""
    cursor.execute(
        "SELECT pg_get_userbyid(a.grantee) FROM pg_proc p CROSS JOIN aclexplode(p.proacl) a"
        " WHERE p.pronamespace = to_regnamespace('bridge') AND p.proname = 'claim' AND a.grantee NOT IN (0, p.proowner)"
    )
    return {role for (role,) in cursor.fetchall()}


def _grant(cursor: Cursor, runtime_roles: set[str], reader_role: str | None) -> None:
    for runtime_role in sorted(runtime_roles):
        role = sql.Identifier(runtime_role)
        cursor.execute(sql.SQL("GRANT USAGE ON SCHEMA bridge TO {}").format(role))
        for step in steps():
            function = sql.Identifier(step)
            cursor.execute(sql.SQL("GRANT EXECUTE ON FUNCTION bridge.{} TO {}").format(function, role))
    if reader_role:
        role = sql.Identifier(reader_role)
        cursor.execute(sql.SQL("GRANT USAGE ON SCHEMA bridge TO {}").format(role))
        for table in ("events", "turns", "installation", "migrations", "processes", "incidents"):
            name = sql.Identifier(table)
            cursor.execute(sql.SQL("REVOKE SELECT ON bridge.{} FROM {}").format(name, role))
            cursor.execute(
                "SELECT attname FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL (%s)",
                (f"bridge.{table}", list(_UNREADABLE)),
            )
            columns = sql.SQL(", ").join(sql.Identifier(column) for (column,) in cursor.fetchall())
            cursor.execute(sql.SQL("GRANT SELECT ({}) ON bridge.{} TO {}").format(columns, name, role))
            cursor.execute(sql.SQL("DROP POLICY IF EXISTS bridge_reader ON bridge.{}").format(name))
            cursor.execute(
                sql.SQL("CREATE POLICY bridge_reader ON bridge.{} FOR SELECT TO {} USING (true)").format(name, role)
            )


def _value(cursor: Cursor) -> Any:  # noqa: ANN401 - whatever the statement selects
    """Return the one value of the one row that a statement returned."""
    [[value]] = cursor.fetchall()
    return value


def _sql_files(folder: str) -> list[Path]:
    return sorted((SQL_FOLDER / folder).glob("*.sql"))


def _number(file: Path) -> int:
    return int(file.name.partition("_")[0])


def _text(file: Path, app_schema: str) -> str:
    return file.read_text(encoding="utf-8").replace("{app}", app_schema)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
