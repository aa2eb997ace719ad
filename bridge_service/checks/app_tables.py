"""Where the app's tables are, and whether they have the columns that the bridge needs."""

from bridge_service import migrate
from bridge_service.checks.finding import Finding
from bridge_service.checks.look import row
from bridge_service.database import Connection


def app_tables(connection: Connection) -> Finding:
    """Look for the app's tables and their columns."""
    schema = app_schema(connection)
    faults = []
    for table, columns in migrate.APP_TABLES.items():
        [found] = row(
            connection,
            """
            SELECT array_agg(a.attname::text)
            FROM pg_catalog.pg_attribute a
            JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relname = %s AND quote_ident(n.nspname) = %s AND a.attnum > 0 AND NOT a.attisdropped
            """,
            table,
            schema,
        )
        if found is None:
            faults.append(f"no table {table}")
        elif missing := [column for column in columns if column not in found]:
            faults.append(f"{table} has no column {', '.join(missing)}")
    if faults:
        remedy = "create them, or add their schema to the search_path of DATABASE_URL's role"
        return Finding("app_tables", ok=False, detail="; ".join(faults), remedy=remedy)
    return Finding("app_tables", ok=True, detail=f"{', '.join(migrate.APP_TABLES)} in schema {schema}")


def app_schema(connection: Connection) -> str:
    """Quoted name of the schema with the app's tables: where the triggers are, else where the search path leads."""
    [schema] = row(
        connection,
        """
        SELECT coalesce(
            (SELECT quote_ident(n.nspname) FROM pg_catalog.pg_trigger t
             JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE t.tgname = 'bridge_after_message' AND t.tgparentid = 0 LIMIT 1),
            (SELECT quote_ident(n.nspname) FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass('messages')),
            'public')
        """,
    )
    return str(schema)
