"""The app's tables to which an installation is bound, and the sequences of the bridge's own tables: for `migrate`.

An installation is bound to its tables by their oids. If the search path finds other tables of the same names, `migrate`
refuses. If a bound table is gone, `migrate` binds again.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.errors import DatabaseRefused
from bridge_service.install.files import APP_TABLES, TYPING_TABLE, template
from bridge_service.install.transaction import value


class Bound(NamedTuple):
    """One of the app's tables, as the installation has noted it.

    Attributes:
      name: quoted and qualified; None if the table is gone.
      laid_for: the name in the functions; None if an older version laid them.
    """

    oid: int
    name: str | None
    laid_for: str | None


def bound_tables(cursor: Cursor) -> dict[str, Bound]:
    """Return the tables to which the installation is bound, by the contract's names; none before the first run."""
    cursor.execute(
        "SELECT attname::text FROM pg_attribute"
        " WHERE attrelid = to_regclass('bridge.installation') AND attnum > 0 AND NOT attisdropped"
    )
    columns = {column for (column,) in cursor.fetchall()}
    typing = "i.typing_events" if TYPING_TABLE in columns else "NULL"
    for file in ("bound", "bound_before") if "laid_for" in columns else ("bound_before",):
        cursor.execute(template(file, typing_events=typing))
        if rows := cursor.fetchall():
            return {table: Bound(*row) for table, *row in rows}
    return {}


def find_app_tables(cursor: Cursor, bound: Mapping[str, Bound]) -> dict[str, str]:
    """Find the app's tables: those that the installation is bound to, else by the search path.

    Returns:
      Their names, quoted and qualified, by the contract's names; TYPING_TABLE only if the bridge can use it.

    Raises:
      DatabaseRefused: the search path leads to other tables than the bound ones, or a table is missing.
    """
    cursor.execute(
        "SELECT w.name, c.oid, format('%%I.%%I', n.nspname, c.relname), c.relkind = 'v'"
        " FROM unnest(%s) WITH ORDINALITY AS w (name, place) JOIN pg_class c ON c.oid = to_regclass(w.name)"
        " JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY w.place DESC",
        (list(APP_TABLES),),
    )
    found: dict[str, tuple[int, str]] = {}
    for table, oid, name, is_view in cursor.fetchall():
        ours = bound.get(table)
        # A view with the old name of a bound table that was renamed shows that table's rows.
        if ours is not None and ours.name is not None and ours.oid != oid and not is_view:
            raise DatabaseRefused(
                f"the bridge is bound to {ours.name}, and the search_path finds {name}: set the search_path (of the"
                f" role, the database or DATABASE_URL) so that it finds {ours.name}; to move the bridge to {name},"
                f" run `uninstall` or drop {ours.name} first"
            )
        found[table] = (oid, name)
    found |= {
        table: (ours.oid, ours.name) for table, ours in bound.items() if table in APP_TABLES and ours.name is not None
    }
    for table in APP_TABLES:
        if table not in found:
            message = f"the app's table `{table}` was not found: create it, or add its schema to the role's search_path"
            raise DatabaseRefused(message)
    names = {table: found[table][1] for table in APP_TABLES}
    cursor.execute(
        "SELECT DISTINCT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = ANY (%s::oid[])",
        ([oid for oid, _ in found.values()],),
    )
    [(schema,), *others] = cursor.fetchall()
    if others:
        message = f"the app's tables were found in several schemas ({', '.join(names.values())}): one is expected"
        raise DatabaseRefused(message)
    names |= _typing_table(cursor, found["messages"][0], bound)
    # `deliver` keeps the search path of this session, and the app's own triggers find their tables by it.
    cursor.execute(
        "SELECT set_config('search_path', concat_ws(', ', %s, current_setting('search_path')), true)"
        " WHERE %s <> ALL (SELECT quote_ident(s) FROM unnest(current_schemas(false)) AS s)",
        (schema, schema),
    )
    return names


def _typing_table(cursor: Cursor, messages: int, bound: Mapping[str, Bound]) -> dict[str, str]:
    """Find the app's `typing_events`. If the app lacks it, or if it does not fit, the bridge shows no indicator."""
    noted = bound.get(TYPING_TABLE)
    cursor.execute("SELECT current_user::text")
    cursor.execute(template("typing_table"), (messages, noted and noted.oid, value(cursor)))
    fitting = [name for _, name, faults in cursor.fetchall() if not faults]
    return {TYPING_TABLE: fitting[0]} if fitting else {}


def bind(cursor: Cursor, bound: Mapping[str, Bound], app: Mapping[str, str]) -> Iterator[str]:
    """Yield the statement that notes the tables for which the functions are laid, unless they are noted."""
    if {table: (noted.name, noted.laid_for) for table, noted in bound.items()} != {t: (n, n) for t, n in app.items()}:
        names = {table: sql.Literal(name).as_string(cursor) for table, name in app.items()}
        yield template("bind", **{TYPING_TABLE: "NULL", **names})


def sequences_behind(cursor: Cursor) -> dict[str, str]:
    """Return the sequences that give out ids which their tables hold already, each with the statement that mends it."""
    behind = {}
    cursor.execute(template("owned_sequences"))
    for sequence, table, column in cursor.fetchall():
        cursor.execute(
            f"SELECT (SELECT max({column}) FROM {table}) >= last_value + is_called::integer FROM {sequence}"  # noqa: S608 - quoted by PostgreSQL
        )
        if value(cursor):
            behind[sequence] = template("set_sequence", sequence=sequence, table=table, column=column)
    return behind
