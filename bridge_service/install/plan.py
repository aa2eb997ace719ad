"""Lays schema `bridge` into the app's database, and takes it out again.

Numbered migrations run once; functions are laid anew whenever their file changed; triggers are made where they are
missing. All of it is one transaction under an advisory lock, so that running it twice, five times at once, under load
or through a crash leaves the old schema or the new one and nothing between. Only the trigger on `matches` follows in a
transaction of its own: who locks both of the app's tables meets somebody who writes in both the other way round.

A run first looks at what is there and plans its statements, then executes them: `plan` shows the very same ones.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.errors import DatabaseRefused
from bridge_service.install import binding, proof, remains
from bridge_service.install.waiting import Turnstile
from bridge_service.machine import session
from bridge_service.machine.database import translate

SQL_FOLDER: Final = Path(__file__).parents[1] / "machine" / "sql"
"""The machine: migrations, and one folder of functions for each reader."""

_TEMPLATES: Final = Path(__file__).parent / "sql"

# "bridge" in ASCII: every migrate and uninstall of one database waits for the one before.
_ADVISORY_KEY: Final = 0x627269646765
# A waiting lock on `messages` makes every INSERT queue up behind it: give up soon, let them pass, try again. And before
# PostgreSQL looks for deadlocks (after 1 s), or it would be the app's transaction that it ends.
_LOCK_TIMEOUT: Final = "400ms"

# How many of the things that depend on the schema are named.
_NAMED: Final = 5

_CALLED: Final = ("steps", "policy", "operate", "upkeep")
"""Folders of the functions that the run-time role calls."""

_FUNCTION_FOLDERS: Final = ("parts", "app", "capture", *_CALLED)

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
      bound: the app's tables, if they were not noted before, or under other names.
      sequences: those that stood behind the ids in their tables and were set right.
      found: migrations that a restored schema holds already, though no row says so.
    """

    migrations: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    triggers: list[str] = field(default_factory=list)
    bound: list[str] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)


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
      TablesUnfit: the bridge cannot work on the app's tables as they are; it has a line for each cause.
    """
    report = Report()
    app: dict[str, str] = {}
    turnstile = Turnstile(url, list(APP_TABLES))
    for attempt in turnstile.attempts():
        with attempt, _transaction(url) as cursor:
            report = Report()
            app, functions, rest = _plan(cursor, report, runtime_role, reader_roles)
            for statement in functions:
                cursor.execute(statement)
            for table in ("messages", "matches"):
                _may_make_triggers(cursor, table, app)
            proof.prove(cursor, app, report.kept)
            for statement in rest:
                cursor.execute(statement)
    for attempt in turnstile.attempts():
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
        app, functions, rest = _plan(cursor, report, runtime_role, reader_roles)
        first = [*functions, *rest]
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
    turnstile = Turnstile(url, list(APP_TABLES), readers_matter=True)
    # Triggers first: that waits for every INSERT that is under way, so none of them meets half a schema. One at a time:
    # it locks readers out too, and who locks both tables meets somebody who uses both the other way round.
    for name in TRIGGERS:
        for attempt in turnstile.attempts():
            with attempt, _transaction(url) as cursor:
                _may_take_out(cursor)
                found |= _drop_trigger(cursor, name)
    for attempt in turnstile.attempts():
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


def digests(app: str | Mapping[str, str]) -> dict[str, str]:
    """Digest of each function's file, by its name, as it is laid for the app's tables.

    Parameters:
      app: the tables' names, quoted and qualified, by the contract's names; or the schema, quoted, that has them all.
    """
    names = {table: f"{app}.{table}" for table in APP_TABLES} if isinstance(app, str) else app
    return {
        file.name.removesuffix(".sql"): _digest(_text(file, names))
        for folder in _FUNCTION_FOLDERS
        for file in _sql_files(folder)
    }


def adapter() -> list[str]:
    """Names of the functions that an app with other tables may replace."""
    return [file.name.removesuffix(".sql") for file in _sql_files("app")]


def steps() -> list[str]:
    """Names of the functions that the run-time role has to be allowed to call."""
    return sorted(file.name.removesuffix(".sql") for folder in _CALLED for file in _sql_files(folder))


# Of every transaction; the advisory lock is waited for without a limit.
_SETTINGS: Final = (
    "SET LOCAL client_min_messages = warning",
    f"SELECT pg_advisory_xact_lock({_ADVISORY_KEY})",
    f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'",
    # Bodies name functions that are laid later in the same run.
    "SET LOCAL check_function_bodies = off",
)


def _open(url: str, options: str) -> psycopg2.extensions.connection:
    return psycopg2.connect(
        url, connect_timeout=10, fallback_application_name="bridge migrate", client_encoding="UTF8", options=options
    )


@contextmanager
def _transaction(url: str, *, read_only: bool = False) -> Iterator[Cursor]:
    try:
        connection, _ = session.connect(url, "", lambda options: _open(url, options))
        try:
            # Who waited for another run has to see what that one did.
            connection.set_session(isolation_level="READ COMMITTED", readonly=read_only or None)
            with connection, connection.cursor() as cursor:
                # A pooler refuses the options of the URL, or drops them.
                for name, value in session.user_settings(url):
                    cursor.execute(
                        "SELECT set_config(%s, %s, true) WHERE current_setting(%s, true) IS DISTINCT FROM %s",
                        (name, value, name, value),
                    )
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
) -> tuple[dict[str, str], list[str], list[str]]:
    """Plan all but the trigger on `matches`, and change nothing.

    Returns:
      The app's tables; the statements up to the last function, and those that may follow once the functions are proven.
    """
    _refuse_another_owner(cursor)
    bound = binding.bound_tables(cursor)
    app = binding.find_app_tables(cursor, APP_TABLES, bound)
    _refuse_foreign_schema(cursor)
    _refuse_missing_roles(cursor, [*([runtime_role] if runtime_role else []), *reader_roles])
    functions = [
        *_schema(cursor),
        *_migrations(cursor, report),
        *_functions(cursor, app, report),
    ]
    if bind := [*binding.bind(cursor, bound, app)]:
        report.bound = [*app.values()]
        functions += bind
    # Before the proof, which captures a message.
    behind = binding.sequences_behind(cursor)
    report.sequences += behind
    functions += behind.values()
    proof.refuse_unfit_columns(cursor, app, report.kept)
    statements: list[str] = []
    # They lock out the table's writers until the commit. What locks a table of the bridge's comes after them, as in the
    # app's own INSERT.
    triggers = _missing_triggers(cursor, "messages", app)
    report.triggers += triggers
    statements += triggers.values()
    if _begins_here(cursor, report):
        # From here on everything is captured; what was written while this ran came before.
        statements.append(_template("begin"))
    statements += _rights_to_call(cursor, runtime_role, report)
    statements += _rights_to_read(cursor, reader_roles, report)
    statements += _rights_to_back_up(cursor, app, changes=bool(report.migrations or reader_roles))
    return app, functions, statements


def _refuse_foreign_schema(cursor: Cursor) -> None:
    """Leave alone a schema `bridge` that is somebody else's."""
    cursor.execute(
        "SELECT to_regclass('bridge.migrations') IS NULL AND to_regclass('bridge.laid_functions') IS NULL"
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
    applied: set[int] = set()
    if _is_table(cursor, "bridge.migrations"):
        cursor.execute("SELECT number FROM bridge.migrations")
        applied = {number for (number,) in cursor.fetchall()}
    else:
        yield (
            "CREATE TABLE bridge.migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
    files = _sql_files("migrations")
    # Only where no row says what ran: a row knows better than the look of the schema.
    found = 0 if applied else remains.last_found(cursor, files)
    for count, file in enumerate(files, start=1):
        number = _number(file)
        if number not in applied:
            if count <= found:
                report.found.append(file.name)
            else:
                report.migrations.append(file.name)
                yield file.read_text(encoding="utf-8")
            note = "INSERT INTO bridge.migrations (number, name) VALUES ({}, {})"
            yield _filled(cursor, note, sql.Literal(number), sql.Literal(file.name))


def _begins_here(cursor: Cursor, report: Report) -> bool:
    """Tell whether the installation begins with this run: its schema is new, or a restore left the moment out."""
    if "0001_tables.sql" in report.migrations:
        return True
    cursor.execute("SELECT NOT EXISTS (SELECT FROM bridge.installation)")
    return bool(_value(cursor))


def _functions(cursor: Cursor, app: Mapping[str, str], report: Report) -> Iterator[str]:
    """Lay every function whose file changed. An adapter function that the app replaced is left alone."""
    laid: dict[str, tuple[str, str]] = {}
    if _is_table(cursor, "bridge.laid_functions"):
        cursor.execute("SELECT name, digest, source FROM bridge.laid_functions")
        laid = {name: (digest, source) for name, digest, source in cursor.fetchall()}
    cursor.execute(_template("found_functions"))
    there = {name: (source, mark, body, public) for name, source, mark, body, public in cursor.fetchall()}
    sources = {name: source for name, (source, *_) in there.items()}
    for folder in _FUNCTION_FOLDERS:
        for file in _sql_files(folder):
            name = file.name.removesuffix(".sql")
            text = _text(file, app)
            digest = _digest(text)
            replaced = name in laid and sources.get(name, laid[name][1]) != laid[name][1]
            adapter = folder == "app"
            if adapter and name in there and name not in laid and not _is_ours(file, app, there[name]):
                replaced = True
                yield _template("note_replaced", name=name, digest=digest, source=remains.UNKNOWN_SOURCE)
            if adapter and replaced:
                report.kept.append(name)
            elif name not in laid or laid[name][0] != digest or replaced or name not in sources:
                report.functions.append(name)
                yield _template("replace_function", name=name, definition=text.strip()) if name in sources else text
                yield f"REVOKE ALL ON FUNCTION bridge.{name} FROM PUBLIC"
                yield _template("note_function", name=name, digest=digest)
                if adapter:
                    yield _template("mark_function", name=name)
            elif there[name][-1]:
                yield f"REVOKE ALL ON FUNCTION bridge.{name} FROM PUBLIC"


def _is_ours(file: Path, app: Mapping[str, str], found: tuple[str, str | None, str, bool]) -> bool:
    """Tell whether a restored function of the adapter, as found_functions.sql returns it, is one that we laid."""
    source, mark, body, _ = found
    for table, name in app.items():
        body = body.replace(f" {name}", f" {{app}}.{table}")
    text = file.read_text(encoding="utf-8")
    name = file.name.removesuffix(".sql")
    return remains.is_ours(name, text, digest=source, mark=mark, source=body)


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
    if report.migrations:
        cursor.execute("SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace('bridge') ORDER BY 1")
        known = sql.Literal([name for (name,) in cursor.fetchall()]).as_string(cursor)
        yield _template("close_new", known=known)
        cursor.execute(_template("readers"))
        reader_roles = sorted({*reader_roles, *(role for (role,) in cursor.fetchall())})
    for role in reader_roles:
        yield _template("let_read", role=sql.Identifier(role).as_string(cursor))


def _rights_to_back_up(cursor: Cursor, app: Mapping[str, str], *, changes: bool) -> Iterator[str]:
    """Let the owner of the app's tables read what its dump of the database has to read."""
    cursor.execute(_template("backups_without_rights"), {"tables": [*app.values()], "changes": changes})
    for (role,) in cursor.fetchall():
        yield _template("let_back_up", role=sql.Literal(role).as_string(cursor))


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
    cursor.execute(
        "SELECT min(relid::regclass::text) FROM ("
        "  SELECT %(name)s::regclass::oid UNION SELECT relid FROM pg_partition_tree(%(name)s::regclass)) AS t (relid)"
        " WHERE NOT has_table_privilege(relid, 'TRIGGER')",
        {"name": app[table]},
    )
    closed = _value(cursor)
    if closed and _missing_triggers(cursor, table, app):
        raise DatabaseRefused(f"permission denied for table {closed}: the role has to own it or to have TRIGGER on it")


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
    text = (_TEMPLATES / f"{file}.sql").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def _number(file: Path) -> int:
    return int(file.name.partition("_")[0])


def _text(file: Path, app: Mapping[str, str]) -> str:
    """Return a function's definition, with the names of the app's tables in it."""
    text = file.read_text(encoding="utf-8")
    for table, name in app.items():
        text = text.replace(f"{{app}}.{table}", name)
    return text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
