"""The rights of the roles that call the bridge's functions, read its tables, or dump the app's database."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.errors import DatabaseRefused
from bridge_service.install.files import steps, template
from bridge_service.install.report import Report
from bridge_service.install.transaction import filled

APP_CALLS: Final = ("pause", "resume", "state")
"""What `--app-role` may call."""


def refuse_missing_roles(cursor: Cursor, roles: Sequence[str]) -> None:
    """Refuse roles that the server does not have.

    Raises:
      DatabaseRefused: names them.
    """
    cursor.execute("SELECT r FROM unnest(%s::text[]) r WHERE r NOT IN (SELECT rolname FROM pg_roles)", (list(roles),))
    missing = [role for (role,) in cursor.fetchall()]
    if missing:
        raise DatabaseRefused(f"there is no role {', '.join(missing)}: CREATE ROLE makes it")


def to_call(cursor: Cursor, runtime_role: str | None, report: Report) -> Iterator[str]:
    """Let the run-time roles call the steps: all steps for `runtime_role`, new steps for the roles of earlier runs."""
    cursor.execute(
        "SELECT r.rolname::text, array_agg(p.proname::text)"
        " FROM pg_proc p CROSS JOIN aclexplode(p.proacl) a JOIN pg_roles r ON r.oid = a.grantee"
        " WHERE p.pronamespace = to_regnamespace('bridge') AND a.grantee <> p.proowner GROUP BY 1"
    )
    # A function with a new signature is dropped first, and its grants are gone.
    allowed = {role: set(names) - set(report.functions) for role, names in cursor.fetchall() if "claim" in names}
    if runtime_role:
        allowed[runtime_role] = set()
    for role, names in sorted(allowed.items()):
        missing = [sql.Identifier("bridge", step) for step in steps() if step not in names]
        if missing:
            to = sql.Identifier(role)
            yield filled(cursor, "GRANT USAGE ON SCHEMA bridge TO {}", to)
            yield filled(cursor, "GRANT EXECUTE ON FUNCTION {} TO {}", sql.SQL(", ").join(missing), to)


def of_app(cursor: Cursor, app_role: str | None, report: Report) -> Iterator[str]:
    """Let the app call `APP_CALLS`: `app_role`, and after these functions were laid anew the roles of earlier runs."""
    cursor.execute(
        "SELECT r.rolname::text, array_agg(p.proname::text)"
        " FROM pg_proc p CROSS JOIN aclexplode(p.proacl) a JOIN pg_roles r ON r.oid = a.grantee"
        " WHERE p.pronamespace = to_regnamespace('bridge') AND a.grantee <> p.proowner GROUP BY 1"
    )
    allowed = {
        role: set(names) - set(report.functions)
        for role, names in cursor.fetchall()
        if "state" in names and "claim" not in names
    }
    if app_role:
        allowed[app_role] = set()
    for role, names in sorted(allowed.items()):
        missing = [sql.Identifier("bridge", name) for name in APP_CALLS if name not in names]
        if missing:
            to = sql.Identifier(role)
            yield filled(cursor, "GRANT USAGE ON SCHEMA bridge TO {}", to)
            yield filled(cursor, "GRANT EXECUTE ON FUNCTION {} TO {}", sql.SQL(", ").join(missing), to)


def to_read(cursor: Cursor, reader_roles: Sequence[str], report: Report) -> Iterator[str]:
    """Let the reader roles read: `reader_roles`, and after a migration those of earlier runs that still may."""
    if report.migrations:
        cursor.execute("SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace('bridge') ORDER BY 1")
        known = sql.Literal([name for (name,) in cursor.fetchall()]).as_string(cursor)
        yield template("close_new", known=known)
        cursor.execute(template("readers"))
        reader_roles = sorted({*reader_roles, *(role for (role,) in cursor.fetchall())})
    for role in reader_roles:
        yield template("let_read", role=sql.Identifier(role).as_string(cursor))


def to_back_up(cursor: Cursor, app: Mapping[str, str], *, changes: bool) -> Iterator[str]:
    """Let the owner of the app's tables read what its dump of the database has to read."""
    cursor.execute(template("backups_without_rights"), {"tables": [*app.values()], "changes": changes})
    for (role,) in cursor.fetchall():
        yield template("let_back_up", role=sql.Literal(role).as_string(cursor))
