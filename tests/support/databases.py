"""Fresh databases, copied from a template that is made once."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bridge_service.demo.servers import PostgresServer


def execute(url: str, statement: str) -> None:
    """Run one or more statements in autocommit mode."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


def make_template(server: PostgresServer, name: str, *files: Path) -> str:
    """Make database `name` from SQL files, in order, for `copy_of`; return its URL.

    Nothing may be connected to a template while it is copied.
    """
    execute(server.url(), f'CREATE DATABASE "{name}"')
    url = server.url(name)
    for file in files:
        execute(url, file.read_text(encoding="utf-8"))
    return url


@contextmanager
def copy_of(server: PostgresServer, template: str) -> Iterator[str]:
    """Give the URL of a new database made from `template`, and drop it afterwards, whoever is still connected."""
    name = f"test_{uuid4().hex}"
    execute(server.url(), f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield server.url(name)
    finally:
        execute(server.url(), f'DROP DATABASE "{name}" WITH (FORCE)')
