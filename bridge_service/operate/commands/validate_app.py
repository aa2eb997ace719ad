"""The app's side of `validate`: its own people, bot and conversations in the app's tables, deleted afterwards."""

import time
from contextlib import closing
from typing import Final
from uuid import uuid4

from bridge_service.errors import BridgeError, DatabaseRefused, SchemaMissing, StepRefused
from bridge_service.install.files import APP_TABLES, TYPING_TABLE, steps
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from bridge_service.settings.policy import COLUMNS

NAME: Final = "bridge validate"
"""First name of every profile that `validate` makes, by which the app's people find what could not be deleted."""

RIGHTS: Final = ("SELECT", "INSERT", "DELETE")

_CLEAN_SECONDS: Final = 20.0
_CLEAN_PAUSE_SECONDS: Final = 0.5


def missing_rights(connection: Connection) -> list[str]:
    """Return what the role lacks to write into the app's tables, watch the bridge, and clean up; a line each."""
    [[may_call]] = connection.execute(
        "SELECT bool_and(has_schema_privilege(pronamespace, 'USAGE') AND has_function_privilege(oid, 'EXECUTE'))"
        " FROM pg_catalog.pg_proc WHERE pronamespace = to_regnamespace('bridge') AND proname = ANY (%s)",
        (steps(),),
    )
    if may_call is None:
        raise SchemaMissing("none of its functions is there")
    rows = connection.execute(
        "SELECT name, to_regclass(name) IS NULL, ARRAY("
        "  SELECT r FROM unnest(%s) AS r WHERE NOT has_table_privilege(to_regclass(name), r))"
        " FROM unnest(%s) AS name",
        (list(RIGHTS), list(APP_TABLES)),
    )
    lacking = [] if may_call else ["the role may not call the bridge's functions: GRANT the run-time role to it"]
    return lacking + [
        f"table {table} is not found: its schema has to stand in the role's search_path, and the role needs USAGE on it"
        if absent
        else f"the role may not {', '.join(refused)} in table {table}"
        for table, absent, refused in rows
        if absent or refused
    ]


class Guests:
    """One bot and some people, each with one conversation with it. Each statement commits at once, as an app's does.

    They write only the contract's columns. They raise what `Connection.execute` raises; a refusal names the table.
    """

    def __init__(self, connection: Connection, people: int) -> None:
        """Draw their ids; nothing is written yet."""
        self._connection = connection
        self.bot = str(uuid4())
        self.people = [str(uuid4()) for _ in range(people)]
        self.matches: list[str] = []
        self._sender: dict[str, str] = {}
        self._written = 0

    def arrive(self) -> None:
        """Write all profiles."""
        profiles = [self.bot, *self.people]
        self._write(
            "profiles",
            "INSERT INTO profiles (id, first_name, is_bot) SELECT id, %s, id = %s FROM unnest(%s::uuid[]) AS id",
            *(NAME, self.bot, profiles),
        )
        [[seen]] = self._connection.execute("SELECT count(*) FROM profiles WHERE id = ANY (%s::uuid[])", (profiles,))
        if seen != len(profiles):
            raise DatabaseRefused("row-level security hides from the role what it has written: use the tables' owner")

    def match(self) -> str:
        """Match the next person with the bot; return the match."""
        match, person = self._next_match()
        self._write("matches", _MATCH, match, person, self.bot)
        return match

    def match_and_write(self) -> str:
        """Match the next person, and write in the same transaction, before any opener; return the message."""
        match, person = self._next_match()
        message, text = self._next_message()
        self._write(
            "matches or messages", f"{_MATCH}; {_MESSAGE}", match, person, self.bot, message, match, person, text
        )
        return message

    def write(self, match: str) -> str:
        """Let a match's person write; return the message."""
        message, text = self._next_message()
        self._write("messages", _MESSAGE, message, match, self._sender[match], text)
        return message

    def write_as_bot(self, match: str) -> str:
        """Let a human write in the bot's name; return the message."""
        message, text = self._next_message()
        self._write("messages", _MESSAGE, message, match, self.bot, text)
        return message

    def types(self, match: str, *, on: bool) -> None:
        """Show whether a match's person types."""
        self._write(TYPING_TABLE, _TYPES[on], *((match, self._sender[match]) if on else (self._sender[match], match)))

    def _next_match(self) -> tuple[str, str]:
        match, person = str(uuid4()), self.people[len(self.matches)]
        self.matches.append(match)
        self._sender[match] = person
        return match, person

    def _next_message(self) -> tuple[str, str]:
        self._written += 1
        return str(uuid4()), f"{NAME} {self._written}"

    def _write(self, table: str, statement: str, *parameters: object) -> None:
        try:
            self._connection.execute(statement, parameters)
        except StepRefused as error:
            message = f"the app's table {table} takes no row with the contract's columns alone: {error}"
            raise DatabaseRefused(message) from None


_MATCH: Final = "INSERT INTO matches (id, user1_id, user2_id, created_at) VALUES (%s, %s, %s, now())"
_MESSAGE: Final = "INSERT INTO messages (id, match_id, sender_id, content, created_at) VALUES (%s, %s, %s, %s, now())"

_TYPES: Final = {
    False: f"UPDATE {TYPING_TABLE} SET is_typing = false, updated_at = now() WHERE user_id = %s AND match_id = %s",  # noqa: S608 - a constant
    True: f"INSERT INTO {TYPING_TABLE} (match_id, user_id, is_typing, started_at, updated_at)"  # noqa: S608 - as above
    " VALUES (%s, %s, true, now(), now())"
    " ON CONFLICT (match_id, user_id) DO UPDATE SET is_typing = true, updated_at = now()",
}


def clean_up(url: str, guests: Guests) -> BridgeError | None:
    """Delete all that the guests wrote and were told, and what the bridge knows of it.

    It opens its own connection, because theirs may be broken. It tries again for `_CLEAN_SECONDS`, because a worker may
    still deliver a reply. Returns the last error.
    """
    deadline = time.monotonic() + _CLEAN_SECONDS
    while True:
        try:
            with closing(Connection(url, application="bridge validate")) as connection:
                _delete(connection, guests)
        except BridgeError as error:
            if time.monotonic() > deadline:
                return error
        else:
            return None
        time.sleep(_CLEAN_PAUSE_SECONDS)


def _delete(connection: Connection, guests: Guests) -> None:
    [[has_indicators]] = connection.execute(
        "SELECT has_table_privilege(to_regclass(%s), 'DELETE') AND EXISTS (SELECT FROM pg_catalog.pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attname = 'match_id' AND atttypid = 'uuid'::regtype)",
        (TYPING_TABLE, TYPING_TABLE),
    )
    if has_indicators:  # without the right, an app's ON DELETE CASCADE does it
        connection.execute(f"DELETE FROM {TYPING_TABLE} WHERE match_id = ANY (%s::uuid[])", (guests.matches,))  # noqa: S608 - a constant
    connection.execute("DELETE FROM messages WHERE match_id = ANY (%s::uuid[])", (guests.matches,))
    connection.execute("DELETE FROM matches WHERE id = ANY (%s::uuid[])", (guests.matches,))
    connection.execute("DELETE FROM profiles WHERE id = ANY (%s::uuid[])", ([guests.bot, *guests.people],))
    ledger = Ledger(connection)
    ledger.set_bot(guests.bot, dict.fromkeys(COLUMNS))
    ledger.forget(guests.matches)
