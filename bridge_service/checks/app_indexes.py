"""The look for the indexes of the app's tables by which the bridge finds rows."""

from typing import Final

from bridge_service.checks.finding import Found, well
from bridge_service.checks.installation import found_tables
from bridge_service.checks.look import ask
from bridge_service.machine.database import Connection

_NEEDED: Final = (("messages", "match_id"), ("messages", "id"), ("matches", "id"), ("profiles", "id"))


def app_indexes(connection: Connection) -> Found:
    """Look for columns by which the bridge finds rows and that begin no index."""
    tables = found_tables(connection)
    needed = [(name, tables[name].oid, column) for name, column in _NEEDED if name in tables]
    if not needed:
        return well("not known while the app's tables are missing")
    rows = ask(connection, "app_indexes", *map(list, zip(*needed, strict=True)))
    if not rows:
        return well("each look at the app's tables has an index")
    missing = ", ".join(f"{name}({column})" for name, column, *_ in rows)
    statements = "; ".join(_statement(table, column, partitioned=partitioned) for _, column, table, partitioned in rows)
    if any(partitioned for *_, partitioned in rows):
        # PostgreSQL builds no index of a partitioned table CONCURRENTLY.
        statements += " (on a partitioned table it holds up the app's INSERTs while it builds)"
    return well(f"no index begins with {missing}: each step reads the whole table", statements)


def _statement(table: str, column: str, *, partitioned: bool) -> str:
    # The unique index of a partitioned table would have to hold its partition key.
    unique = "UNIQUE " if column == "id" and not partitioned else ""
    how = "" if partitioned else "CONCURRENTLY "
    columns = "id" if column == "id" else f"{column}, created_at"
    return f"CREATE {unique}INDEX {how}ON {table} ({columns})"
