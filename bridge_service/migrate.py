"""Lays schema `bridge` into the app's database, and takes it out again.

Numbered migrations run once; functions are laid anew whenever their file changed; triggers are made where they are
missing. All of it is one transaction under an advisory lock, so that running it twice, five times at once, under load
or through a crash leaves the old schema or the new one and nothing between. Only the trigger on `matches` follows in a
transaction of its own: who locks both of the app's tables meets somebody who writes in both the other way round.

A run first looks at what is there and plans its statements, then executes them: `plan` shows the very same ones.
"""

import hashlib
from collections.abc import Iterator, Sequence
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

# The policy names every reader role: without it even a role that was granted a table finds no row there.
_READER_POLICY: Final = "bridge_reader"
_READABLE: Final = ("events", "turns", "installation", "migrations", "processes", "incidents")
_CREATE_POLICY: Final = "CREATE POLICY {policy} ON {table} FOR SELECT TO {roles} USING (true)"
_ALTER_POLICY: Final = "ALTER POLICY {policy} ON {table} TO {roles}"
_DROP_POLICY: Final = "DROP POLICY {policy} ON {table}"

# How many of the things that depend on the schema are named.
_NAMED: Final = 5

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
    """What a run did, or would do.

    Attributes:
      functions: those that were laid, for the first time or anew.
      kept: functions of the adapter that the app replaced and that were left alone.
    """

    migrations: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    triggers: list[str] = field(default_factory=list)


def migrate(url: str, *, runtime_role: str | None = None, reader_roles: Sequence[str] = ()) -> Report:
    """Bring schema `bridge` up to date.

    Parameters:
      url: the app's database, as a role that owns its tables or may create triggers on them.
      runtime_role: gets EXECUTE on the steps, and nothing else. Roles that got it before keep it, on new steps too.
      reader_roles: get SELECT on the bridge's tables, but for the drafts and tokens of turns. Roles that got it before
        keep it, on new tables too.

    Raises:
      DatabaseUnavailable: not reachable, or the app's tables stayed locked through every attempt.
      DatabaseRefused: a table, a column, a role or a right is missing; the text names it.
    """
    report = Report()
    app: dict[str, str] = {}
    for attempt in _attempts():
        with attempt, _transaction(url) as cursor:
            report = Report()
            app, statements = _plan(cursor, report, runtime_role, reader_roles)
            for statement in statements:
                cursor.execute(statement)
            _may_make_triggers(cursor, "matches", app)
    for attempt in _attempts():
        with attempt, _transaction(url) as cursor:
            for name, statement in _missing_triggers(cursor, "matches", app).items():
                cursor.execute(statement)
                report.triggers.append(name)
    return report


def plan(url: str, *, runtime_role: str | None = None, reader_roles: Sequence[str] = ()) -> tuple[Report, str]:
    """Tell what `migrate` would do, in a transaction that is read-only and locks no table.

    Returns:
      What it would do; and a script for psql that does it, empty if nothing is to be done. It does not try again when
      one of the app's tables is busy.

    Raises:
      DatabaseUnavailable, DatabaseRefused: as for `migrate`, but for the rights to change anything.
    """
    report = Report()
    with _transaction(url, read_only=True) as cursor:
        app, first = _plan(cursor, report, runtime_role, reader_roles)
        second = _missing_triggers(cursor, "matches", app)
        report.triggers += second
        cursor.execute("SELECT current_setting('search_path')")
        path = _filled(cursor, "SELECT set_config('search_path', {}, true)", sql.Literal(_value(cursor)))
    return report, "\n".join(
        f"{statement.strip().removesuffix(';')};\n"
        for statements in (first, [*second.values()])
        if statements
        for statement in ("BEGIN ISOLATION LEVEL READ COMMITTED", *_SETTINGS, path, *statements, "COMMIT")
    )


def uninstall(url: str) -> bool:
    """Take schema `bridge` and its triggers out; the app's tables are as they were. Works under running processes.

    The owner of the schema may: it drops the triggers' functions, and the triggers go with them.

    Returns:
      Whether there was anything to take out.

    Raises:
      DatabaseUnavailable: as for `migrate`.
      DatabaseRefused: the schema is somebody else's, or something else depends on it; the text names it.
    """
    found = False
    # Triggers first: that waits for every INSERT that is under way, so none of them meets half a schema. One at a time:
    # it locks readers out too, and who locks both tables meets somebody who uses both the other way round.
    for name in TRIGGERS:
        for attempt in _attempts():
            with attempt, _transaction(url) as cursor:
                _may_take_out(cursor)
                found |= _drop_trigger(cursor, name)
    for attempt in _attempts():
        with attempt, _transaction(url) as cursor:
            # Whoever makes a view of a table, or a reference to it, has to wait now, and is seen if he came before.
            _lock_tables(cursor)
            _may_take_out(cursor)
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


# Of every transaction; the advisory lock is waited for without a limit.
_SETTINGS: Final = (
    "SET LOCAL client_min_messages = warning",
    f"SELECT pg_advisory_xact_lock({_ADVISORY_KEY})",
    f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'",
    # Bodies name functions that are laid later in the same run.
    "SET LOCAL check_function_bodies = off",
)


@contextmanager
def _transaction(url: str, *, read_only: bool = False) -> Iterator[Cursor]:
    try:
        connection = psycopg2.connect(
            url, connect_timeout=10, fallback_application_name="bridge migrate", client_encoding="UTF8"
        )
        try:
            # Who waited for another run has to see what that one did.
            connection.set_session(isolation_level="READ COMMITTED", readonly=read_only or None)
            with connection, connection.cursor() as cursor:
                for statement in _SETTINGS:
                    cursor.execute(statement)
                # For `deliver`, which keeps it: unless pg_temp is named last, a caller's temporary tables come first.
                cursor.execute("SELECT concat_ws(', ', nullif(current_setting('search_path'), ''), 'pg_temp')")
                cursor.execute("SELECT set_config('search_path', %s, true)", (_value(cursor),))
                yield cursor
        finally:
            connection.close()
    except psycopg2.Error as error:
        raise translate(error) from error


def _plan(
    cursor: Cursor, report: Report, runtime_role: str | None, reader_roles: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Plan all but the trigger on `matches`, and change nothing; return the app's tables, and the statements."""
    schema, app = _find_app_tables(cursor)
    _refuse_another_owner(cursor)
    _refuse_foreign_schema(cursor)
    _refuse_missing_roles(cursor, [*([runtime_role] if runtime_role else []), *reader_roles])
    statements = [
        *_schema(cursor),
        *_migrations(cursor, report),
        *_functions(cursor, schema, report),
    ]
    # They lock out the table's writers until the commit. What locks a table of the bridge's comes after them, as in the
    # app's own INSERT.
    triggers = _missing_triggers(cursor, "messages", app)
    report.triggers += triggers
    statements += triggers.values()
    if "0001_tables.sql" in report.migrations:
        # From here on everything is captured; what was written while this ran came before.
        statements.append("UPDATE bridge.installation SET installed_at = clock_timestamp()")
    statements += _rights_to_call(cursor, runtime_role, report)
    statements += _rights_to_read(cursor, reader_roles, report)
    return app, statements


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


def _refuse_another_owner(cursor: Cursor) -> None:
    """Say whose run it is: anybody else would be told of some right that is not to be granted."""
    cursor.execute(
        "SELECT pg_get_userbyid(c.relowner)::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'bridge' AND c.relname = 'migrations' AND NOT pg_has_role(c.relowner, 'USAGE')"
    )
    for (owner,) in cursor.fetchall():
        raise DatabaseRefused(f"schema `bridge` is kept up to date by {owner}: run it with that role in DATABASE_URL")


def _refuse_missing_roles(cursor: Cursor, roles: Sequence[str]) -> None:
    cursor.execute("SELECT r FROM unnest(%s::text[]) r WHERE r NOT IN (SELECT rolname FROM pg_roles)", (list(roles),))
    missing = [role for (role,) in cursor.fetchall()]
    if missing:
        raise DatabaseRefused(f"there is no role {', '.join(missing)}: CREATE ROLE makes it")


def _schema(cursor: Cursor) -> Iterator[str]:
    cursor.execute(
        "SELECT n.nspname IS NOT NULL, EXISTS (SELECT FROM aclexplode(n.nspacl) a WHERE a.grantee = 0)"
        " FROM (VALUES ('bridge')) AS wanted (name) LEFT JOIN pg_namespace n ON n.nspname = wanted.name"
    )
    [[there, public]] = cursor.fetchall()
    if not there:
        yield "CREATE SCHEMA bridge"
    if public or not there:
        yield "REVOKE ALL ON SCHEMA bridge FROM PUBLIC"


def _migrations(cursor: Cursor, report: Report) -> Iterator[str]:
    applied = 0
    if _is_table(cursor, "bridge.migrations"):
        cursor.execute("SELECT coalesce(max(number), 0) FROM bridge.migrations")
        applied = _value(cursor)
    else:
        yield (
            "CREATE TABLE bridge.migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        yield "ALTER TABLE bridge.migrations ENABLE ROW LEVEL SECURITY"
    for file in _sql_files("migrations"):
        number = _number(file)
        if number > applied:
            report.migrations.append(file.name)
            yield file.read_text(encoding="utf-8")
            note = "INSERT INTO bridge.migrations (number, name) VALUES ({}, {})"
            yield _filled(cursor, note, sql.Literal(number), sql.Literal(file.name))


def _functions(cursor: Cursor, app_schema: str, report: Report) -> Iterator[str]:
    """Lay every function whose file changed. An adapter function that the app replaced is left alone."""
    laid: dict[str, tuple[str, str]] = {}
    if _is_table(cursor, "bridge.laid_functions"):
        cursor.execute("SELECT name, digest, source FROM bridge.laid_functions")
        laid = {name: (digest, source) for name, digest, source in cursor.fetchall()}
    cursor.execute(
        "SELECT proname::text, md5(string_agg(pg_get_functiondef(oid), '' ORDER BY oid)) FROM pg_proc"
        " WHERE pronamespace = to_regnamespace('bridge') AND prokind = 'f' GROUP BY 1"
    )
    sources: dict[str, str] = dict(cursor.fetchall())
    for folder in _FUNCTION_FOLDERS:
        for file in _sql_files(folder):
            name = file.name.removesuffix(".sql")
            text = _text(file, app_schema)
            digest = _digest(text)
            replaced = name in laid and sources.get(name, laid[name][1]) != laid[name][1]
            if folder == "functions/app" and replaced:
                report.kept.append(name)
            elif name not in laid or laid[name][0] != digest or replaced or name not in sources:
                report.functions.append(name)
                yield _template("replace_function", name=name, definition=text.strip()) if name in sources else text
                yield f"REVOKE ALL ON FUNCTION bridge.{name} FROM PUBLIC"
                yield _template("note_function", name=name, digest=digest)


def _rights_to_call(cursor: Cursor, runtime_role: str | None, report: Report) -> Iterator[str]:
    """Let the run-time roles call the steps: the one that is named all, those of earlier runs what is new to them."""
    cursor.execute(
        "SELECT r.rolname::text, array_agg(p.proname::text)"
        " FROM pg_proc p CROSS JOIN aclexplode(p.proacl) a JOIN pg_roles r ON r.oid = a.grantee"
        " WHERE p.pronamespace = to_regnamespace('bridge') AND a.grantee <> p.proowner GROUP BY 1"
    )
    # A function that is dropped and made anew forgets who was allowed to call it.
    allowed = {role: set(names) - set(report.functions) for role, names in cursor.fetchall() if "claim" in names}
    if runtime_role:
        allowed[runtime_role] = set()
    for role, names in sorted(allowed.items()):
        missing = [sql.Identifier("bridge", step) for step in steps() if step not in names]
        if missing:
            to = sql.Identifier(role)
            yield _filled(cursor, "GRANT USAGE ON SCHEMA bridge TO {}", to)
            yield _filled(cursor, "GRANT EXECUTE ON FUNCTION {} TO {}", sql.SQL(", ").join(missing), to)


def _rights_to_read(cursor: Cursor, reader_roles: Sequence[str], report: Report) -> Iterator[str]:
    """Let the reader roles read: those that are named, and those of earlier runs from whom nobody has revoked it."""
    cursor.execute(
        "SELECT c.relname::text, ARRAY(SELECT r.rolname::text FROM pg_roles r WHERE r.oid = ANY (p.polroles)),"
        "  ARRAY(SELECT r.rolname::text FROM pg_roles r WHERE r.oid = ANY (p.polroles)"
        "        AND has_any_column_privilege(r.oid, c.oid, 'SELECT'))"
        " FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid"
        " WHERE p.polname = %s AND c.relnamespace = to_regnamespace('bridge')",
        (_READER_POLICY,),
    )
    rows = cursor.fetchall()
    policies = {table: set(roles) for table, roles, _ in rows}
    readers = sorted({*reader_roles, *(role for _, _, roles in rows for role in roles)})
    for role in readers:
        # To those who may read already only a migration brings something new.
        if role in reader_roles or report.migrations:
            yield _template("let_read", role=sql.Identifier(role).as_string(cursor))
    for table in _READABLE:
        # It locks the table, and with it captures: only where something changes.
        if policies.get(table, set()) != set(readers):
            statement = _DROP_POLICY if not readers else _ALTER_POLICY if table in policies else _CREATE_POLICY
            yield _filled(
                cursor,
                statement,
                policy=sql.Identifier(_READER_POLICY),
                table=sql.Identifier("bridge", table),
                roles=sql.SQL(", ").join(map(sql.Identifier, readers)),
            )


def _is_table(cursor: Cursor, name: str) -> bool:
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (name,))
    return bool(_value(cursor))


def _missing_triggers(cursor: Cursor, table: str, app: dict[str, str]) -> dict[str, str]:
    """Return the triggers of a table that are missing, by name, and how to make them."""
    cursor.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass", (app[table],))
    there = {name for (name,) in cursor.fetchall()}
    return {
        name: f"CREATE TRIGGER {name} {definition.format(**app)}"
        for name, definition in TRIGGERS.items()
        if f"{{{table}}}" in definition and name not in there
    }


def _may_make_triggers(cursor: Cursor, table: str, app: dict[str, str]) -> None:
    """Find out now what would else come to light in the next transaction."""
    cursor.execute("SELECT has_table_privilege(%s, 'TRIGGER')", (app[table],))
    if not _value(cursor) and _missing_triggers(cursor, table, app):
        raise DatabaseRefused(f"permission denied for table {table}: the role has to own it or to have TRIGGER on it")


def _may_take_out(cursor: Cursor) -> None:
    """Refuse before anything is dropped: what is not ours to drop, and what would take something else along."""
    cursor.execute(
        "SELECT DISTINCT pg_get_userbyid(owner)::text FROM ("
        "  SELECT nspowner FROM pg_namespace WHERE nspname = 'bridge' UNION"
        "  SELECT relowner FROM pg_class WHERE relnamespace = to_regnamespace('bridge') AND relkind IN ('r', 'p')"
        ") AS owners (owner) WHERE NOT pg_has_role(owner, 'USAGE') ORDER BY 1"
    )
    owners = [owner for (owner,) in cursor.fetchall()]
    if owners:
        raise DatabaseRefused(f"schema `bridge` belongs to {', '.join(owners)}: only its owner can take it out")
    _refuse_foreign_schema(cursor)
    cursor.execute(_template("dependents"), {"triggers": list(TRIGGERS)})
    found = [f"{what} (on {on})" for what, on in cursor.fetchall()]
    if found:
        named = ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
        raise DatabaseRefused(f"something else depends on schema `bridge`, drop it first: {named}")


def _drop_trigger(cursor: Cursor, name: str) -> bool:
    """Drop a trigger wherever it is, with the function that it calls; whether it was anywhere.

    DROP TRIGGER takes the owner of the app's table; a trigger that goes with its function takes the function's.
    """
    cursor.execute(
        "SELECT DISTINCT t.tgfoid::regprocedure::text FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
        " WHERE t.tgname = %s AND p.pronamespace = to_regnamespace('bridge')",
        (name,),
    )
    functions = cursor.fetchall()
    for (function,) in functions:
        cursor.execute(sql.SQL("DROP FUNCTION {} CASCADE").format(sql.SQL(function)))
    return bool(functions)


def _lock_tables(cursor: Cursor) -> None:
    cursor.execute(
        "SELECT relname::text FROM pg_class"
        " WHERE relnamespace = to_regnamespace('bridge') AND relkind IN ('r', 'p') ORDER BY relname"
    )
    tables = [sql.Identifier("bridge", table) for (table,) in cursor.fetchall()]
    if tables:
        cursor.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.SQL(", ").join(tables)))


def _filled(cursor: Cursor, statement: str, *values: sql.Composable, **names: sql.Composable) -> str:
    return sql.SQL(statement).format(*values, **names).as_string(cursor)


def _value(cursor: Cursor) -> Any:  # noqa: ANN401 - whatever the statement selects
    """Return the one value of the one row that a statement returned."""
    [[value]] = cursor.fetchall()
    return value


def _sql_files(folder: str) -> list[Path]:
    return sorted((SQL_FOLDER / folder).glob("*.sql"))


def _template(file: str, /, **values: str) -> str:
    text = (SQL_FOLDER / "installer" / f"{file}.sql").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def _number(file: Path) -> int:
    return int(file.name.partition("_")[0])


def _text(file: Path, app_schema: str) -> str:
    return file.read_text(encoding="utf-8").replace("{app}", app_schema)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
