"""Who connects to a database in tests: the roles of docs/SECURITY.md, made by that page's own commands, and others'.

What is under test connects as SERVICE, which may call the bridge's steps and nothing else. ADMIN is for a test's own
hands: what it makes, plants and looks at.
"""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg2.extensions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.app import App

ADMIN: Final = "postgres"
"""The superuser of a test's server."""

OWNER: Final = "bridge_owner"
SERVICE: Final = "bridge"
READER: Final = "bridge_reader"
"""The three roles of the page: for `migrate` and `uninstall`, for processes and commands, for dashboards."""

APP: Final = "app"
"""Owns the app's tables, and writes in them."""

VALIDATOR: Final = "bridge_validator"
"""For `validate`: what SERVICE may, and to write and delete in the app's tables."""

OTHERS: Final = (
    f"CREATE ROLE {APP} LOGIN",
    f"CREATE ROLE {VALIDATOR} LOGIN IN ROLE {SERVICE}",
)
"""Makes the roles of which the page only says what they may."""

VALIDATOR_RIGHTS: Final = f"GRANT SELECT, INSERT, DELETE ON profiles, matches, messages TO {VALIDATOR}"

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Urls:
    """The URLs of one database, one for each who connects; which one is meant has to be said."""

    admin: str

    def of(self, role: str) -> str:
        """Return the URL for another role, which may have a password: `role:password`."""
        return self.admin.replace(f"//{ADMIN}@", f"//{role}@")

    @property
    def service(self) -> str:
        """For everything of ours that is under test."""
        return self.of(SERVICE)

    @property
    def owner(self) -> str:
        """For `migrate` and `uninstall`, and for nothing else."""
        return self.of(OWNER)

    @property
    def app(self) -> str:
        """For what people write."""
        return self.of(APP)

    @property
    def name(self) -> str:
        """The database's name."""
        return str(psycopg2.extensions.parse_dsn(self.admin)["dbname"])


@contextmanager
def role_of(app: App, *grants: str) -> Iterator[str]:
    """Give a role that logs in and has these grants, and take it away afterwards."""
    role = f"role_{uuid4().hex}"
    app.rows(f"CREATE ROLE {role} LOGIN")
    try:
        for grant in grants:
            app.rows(f"GRANT {grant} TO {role}")
        yield role
    finally:
        app.rows(f"DROP OWNED BY {role} CASCADE")
        app.rows(f"DROP ROLE {role}")


def assert_not(url: str, *roles: str) -> None:
    """Fail if something that is under test is about to connect as one of these roles."""
    for role in roles:
        assert not re.match(rf"\w+://{role}[:@]", url), f"what is under test must not be {role}: give it another URL"


def by_hand(beginning: str, database: str = "") -> list[str]:
    """Return the statements that the page lets one type into psql, of those that begin so.

    Parameters:
      database: the name of the one for which they are meant.
    """
    statements = (statement.strip() for statement in block("sql").split(";"))
    return [each.replace("DATABASE app", f'DATABASE "{database}"') for each in statements if each.startswith(beginning)]


def migrate_command() -> list[str]:
    """Return what the page lets one type to install the bridge, from behind `python` on."""
    [line] = re.findall(
        r"^DATABASE_URL=postgresql://bridge_owner:\S* python (.* migrate .*)$", block("bash"), re.MULTILINE
    )
    return shlex.split(line)


def block(language: str) -> str:
    """Return the page's code block of this language that stands first."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the page has no block of {language or 'commands'}"
    return found[1]
