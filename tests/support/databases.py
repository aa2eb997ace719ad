"""Fresh databases of the app, copied from a template that is made once, with the roles of roles.py."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg2

from bridge_service import demo
from bridge_service.install.files import APP_TABLES
from tests.support.roles import APP, OTHERS, OWNER, ROOT, VALIDATOR_RIGHTS, Urls, by_hand, migrate_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import PostgresServer

DEMO_FOLDER: Final = Path(demo.__file__).parent

IN_PUBLIC: Final = {table: f"public.{table}" for table in APP_TABLES}
"""The app's tables, by the contract's names."""


def execute(url: str, *statements: str) -> None:
    """Run statements, each of them one or several in a row, in autocommit mode."""
    with closing(psycopg2.connect(url, client_encoding="UTF8")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def make_template(server: PostgresServer, name: str, *files: str, encoding: str = "UTF8") -> Urls:
    """Make database `name` with the app's tables and people, and all that has to be there before `install`.

    Nothing may be connected to a template while it is copied.

    Parameters:
      files: what is laid instead of the app's tables and people, as the app, from bridge_service/demo.
    """
    database = Urls(server.url(name))
    _make_roles(server)
    like = f"TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    execute(server.url(), f'CREATE DATABASE "{name}" OWNER {APP} {"" if encoding == "UTF8" else like}')
    texts = [(DEMO_FOLDER / file).read_text(encoding="utf-8") for file in files or ("app.sql", "people.sql")]
    execute(database.app, *texts)
    execute(database.admin, *by_hand("GRANT", name), VALIDATOR_RIGHTS)
    return database


def _make_roles(server: PostgresServer) -> None:
    """Make the roles, unless this server has them."""
    with closing(psycopg2.connect(server.url())) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (OWNER,))
        if not cursor.fetchall():
            for statement in (*by_hand("CREATE ROLE"), *OTHERS):
                cursor.execute(statement)


def install(database: Urls) -> None:
    """Install the bridge as the page has it: its owner, by the command line, for the page's two other roles."""
    done = subprocess.run(
        [sys.executable, *migrate_command()],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": database.owner, "REDIS_URL": "redis://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def copy(server: PostgresServer, template: str, name: str) -> Urls:
    """Make database `name` from a template."""
    # PostgreSQL's own choice writes each page to the WAL, which takes twice the CPU for a database of this size.
    create = f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER {APP} STRATEGY FILE_COPY'
    # A copy has the rights on what is in the database, and not those on the database itself.
    execute(server.url(), create, *by_hand("GRANT CREATE ON DATABASE", name))
    return Urls(server.url(name))


@contextmanager
def copy_of(server: PostgresServer, template: str) -> Iterator[Urls]:
    """Give a new database made from `template`, and drop it afterwards, whoever is still connected."""
    urls = copy(server, template, f"test_{uuid4().hex}")
    try:
        yield urls
    finally:
        execute(server.url(), f'DROP DATABASE "{urls.name}" WITH (FORCE)')
