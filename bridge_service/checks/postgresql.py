"""The looks at PostgreSQL, in their order. A new look is a line of `_looks`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from bridge_service.checks import (
    app_columns,
    app_indexes,
    app_tables,
    app_triggers,
    app_typing,
    binding,
    notifications,
    processes,
    schema,
    server,
    standing,
)
from bridge_service.checks.finding import Finding, attempt
from bridge_service.checks.look import MIGRATE, Look, connect
from bridge_service.checks.remedies import postgresql_remedy
from bridge_service.errors import BridgeError, DatabaseUnavailable

CONNECTIONS_NEEDED: Final = 12
"""Those of a scheduler and of a worker with eight threads, and a few for commands."""


def check_postgresql(
    url: str,
    *,
    describe: Callable[[BaseException], str],
    wanted: Callable[[str], bool] = lambda _: True,
    connections: int = CONNECTIONS_NEEDED,
    running: bool = False,
) -> Iterator[Finding]:
    """Run one look after the other; only the first if PostgreSQL does not answer.

    Parameters:
      describe: says what went wrong, without a secret.
      wanted: chooses the looks by their names.
      connections: how many more have to be free.
      running: look at the running processes, too.
    """
    try:
        connection = connect(url)
    except BridgeError as error:
        detail = f"{standing.word_for(error)}: {describe(error)}"
        yield Finding("postgresql", ok=False, detail=detail, remedy=postgresql_remedy(error))
        return
    try:
        for look in _looks(url, connections, running=running):
            if not wanted(look.name):
                continue
            if connection.closed or connection.raw.isexecuting():
                # The look before timed out in the middle of a call.
                connection.close()
                connection = connect(url)
            yield attempt(look.name, partial(look.find, connection), look.remedy, describe)
    except DatabaseUnavailable:
        return
    finally:
        connection.close()


def _looks(url: str, connections: int, *, running: bool) -> Iterator[Look]:
    yield from (
        Look("postgresql", server.reachable, "DATABASE_URL"),
        Look("postgresql_version", server.version, "DATABASE_URL"),
        Look("postgresql_encoding", server.encoding, "DATABASE_URL"),
        Look("postgresql_writable", server.writable, "DATABASE_URL"),
        Look("postgresql_encryption", server.encrypted, "DATABASE_URL"),
        Look("postgresql_isolation", server.isolation, "DATABASE_URL"),
        Look("clock", server.clock, "DATABASE_URL"),
        Look("connections", lambda connection: server.connections(connection, connections), "DATABASE_URL"),
        Look("notify_queue", notifications.notify_queue, "DATABASE_URL"),
        Look("app_tables", app_tables.tables, "DATABASE_URL"),
        Look("app_columns", app_columns.app_columns, "DATABASE_URL"),
        Look("app_indexes", app_indexes.app_indexes, "DATABASE_URL"),
        Look("app_triggers", app_triggers.app_triggers, "DATABASE_URL"),
        Look("app_typing", app_typing.app_typing, "DATABASE_URL"),
        Look("schema", schema.schema, MIGRATE),
        Look("rights", schema.rights, MIGRATE),
        Look("row_security", schema.row_security, MIGRATE),
        Look("triggers", schema.triggers, MIGRATE),
        Look("sequences", binding.sequences, MIGRATE),
        Look("replication_role", server.replication_role, "DATABASE_URL"),
        Look("listen", lambda connection: notifications.listen(connection, url), "DATABASE_URL"),
    )
    if running:
        yield Look("processes", processes.processes, "see `schema` and `rights`")
        yield Look("policy", processes.policy, "see `schema` and `rights`")
