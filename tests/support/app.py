"""The app: makes matches and writes messages as its own role, and reads what stands in the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg2

from tests.support.clock import advance
from tests.support.waiting import TIMEOUT_SECONDS, eventually

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 - as in waiting.py

    from tests.support.roles import Urls

# From people.sql.
CAMILLE: Final = "b0000000-0000-4000-8000-000000000001"
LEA: Final = "a0000000-0000-4000-8000-000000000001"
HUGO: Final = "a0000000-0000-4000-8000-000000000002"

MATCH: Final = "INSERT INTO matches (user1_id, user2_id) VALUES (%s, %s) RETURNING id"
WRITE: Final = "INSERT INTO messages (id, match_id, sender_id, content) VALUES (%s, %s, %s, %s)"


class Client:
    """One connection in autocommit mode."""

    def __init__(self, url: str) -> None:
        """Connect as whom the URL names."""
        self.connection: Connection = psycopg2.connect(url)
        self.connection.autocommit = True

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, if it has any."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *parameters: object) -> Any:  # noqa: ANN401
        """Run a statement that gives one row and return its first column."""
        [[value, *_]] = self.rows(statement, *parameters)
        return value


class App(Client):
    """The app on one database: people write as its own role; `rows` and `value` are a test's own hands."""

    def __init__(self, urls: Urls) -> None:
        """Connect as the superuser, and as the app."""
        super().__init__(urls.admin)
        self.urls = urls
        self.people = Client(urls.app)

    def close(self) -> None:
        """Close both connections."""
        super().close()
        self.people.close()

    def match(self, user: str = LEA, bot: str = CAMILLE) -> str:
        """Match a person and a bot, or whoever is given, and return the match's id."""
        return str(self.people.value(MATCH, user, bot))

    def old_match(self, user: str = LEA, bot: str = CAMILLE) -> str:
        """As `match`, from before the bridge was installed: it never gets a first word."""
        self.rows("SET session_replication_role = replica")
        match = str(self.value(MATCH, user, bot))
        self.rows("RESET session_replication_role")
        return match

    def write(self, match: str, text: str, *, sender: str = LEA) -> str:
        """Write one message and return its id."""
        message = str(uuid4())
        self.people.rows(WRITE, message, match, sender, text)
        return message

    def said(self, match: str, sender: str = CAMILLE) -> list[str]:
        """Return what one side said in a match, oldest first; the bot, unless another one is named."""
        rows = self.rows(
            "SELECT content FROM messages WHERE match_id = %s AND sender_id = %s ORDER BY created_at", match, sender
        )
        return [content for (content,) in rows]

    def wait_for_replies(self, match: str, *expected: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Return once the bot has said exactly this, in this order."""

        def check() -> None:
            assert self.said(match) == list(expected)

        eventually(check, timeout)

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass at once, in a database with `install_clock`, and wake the scheduler."""
        advance(self.urls, seconds)
        self.rows("NOTIFY bridge_due")
