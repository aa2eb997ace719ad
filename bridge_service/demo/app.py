"""The chat app: it writes its own tables, reads them, and knows nothing of the bridge."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from bridge_service.demo.screen import Screen
from bridge_service.errors import DatabaseBusy, DatabaseUnavailable
from bridge_service.machine.database import CALL_SECONDS, Connection, Row

POLL_SECONDS: Final = 0.05
RESTART_SECONDS: Final = 15.0


class LastingConnection(Connection):
    """A connection that opens itself again after a restart of PostgreSQL; the call that met the restart fails."""

    def __init__(self, url: str, *, application: str) -> None:
        self._url = url
        self._application = application
        super().__init__(url, application=application)

    def execute(self, statement: str, parameters: Sequence[object] = (), *, seconds: float = CALL_SECONDS) -> list[Row]:
        """Run one statement; see Connection."""
        if self.closed:
            super().__init__(self._url, application=self._application)
        try:
            return super().execute(statement, parameters, seconds=seconds)
        except DatabaseUnavailable:
            self.close()
            raise


@dataclass(frozen=True, slots=True)
class Chat:
    """One conversation: a match, and the first names of its person and its bot."""

    match_id: str
    person: str
    bot: str


class App:
    """The app, for one thread. A second thread shows every message that is written to its tables.

    Parameters:
      connection: as the owner of the app's tables.
      watching: the same, for the second thread and for `catch_up`.
    """

    def __init__(self, connection: Connection, watching: Connection, screen: Screen) -> None:
        self._connection = connection
        self._watching = watching
        self._screen = screen
        self._shown: set[str] = set()
        self._shows: Callable[[str, str], bool] = lambda _speaker, _listener: True
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="conversations", daemon=True)

    def start(self) -> None:
        """Start to show messages."""
        self._watcher.start()

    def stop(self) -> None:
        """Show no more."""
        self._ended.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def match(self, person: str, bot: str) -> Chat:
        """Match a person with a bot."""
        [[match_id]] = self._connection.execute(
            "INSERT INTO matches (user1_id, user2_id)"
            " SELECT p.id, b.id FROM profiles p, profiles b WHERE p.first_name = %s AND b.first_name = %s"
            " RETURNING id::text",
            (person, bot),
        )
        return Chat(match_id, person, bot)

    def chats(self) -> list[Chat]:
        """Return every conversation."""
        rows = self._patiently(
            "SELECT m.id::text, p.first_name, b.first_name"
            " FROM matches m JOIN profiles p ON p.id = m.user1_id JOIN profiles b ON b.id = m.user2_id"
        )
        return [Chat(*row) for row in rows]

    def chat(self, person: str, bot: str) -> Chat:
        """Return the conversation of a person and a bot."""
        return next(chat for chat in self.chats() if (chat.person, chat.bot) == (person, bot))

    def write(self, chat: Chat, content: str, *, show: bool = True, as_bot: bool = False) -> str:
        """Write as the person; return the message's id.

        Parameters:
          show: False if the screen shows it already.
          as_bot: write as a human in the bot's name; the screen shows it as the bot's.
        """
        message_id = str(uuid4())
        if not as_bot:
            with self._lock:
                self._shown.add(message_id)
        if show and not as_bot:
            self._screen.said(chat.person, chat.bot, content, from_bot=False)
        self._patiently(
            "INSERT INTO messages (id, match_id, sender_id, content)"
            " SELECT %s::uuid, m.id, CASE WHEN %s THEN m.user2_id ELSE m.user1_id END, %s FROM matches m"
            " WHERE m.id = %s ON CONFLICT (id) DO NOTHING",
            (message_id, as_bot, content, chat.match_id),
        )
        return message_id

    def types(self, chat: Chat, *, on: bool = True) -> None:
        """Show whether the person types, as an app does on each key."""
        self._patiently(
            "INSERT INTO typing_events (match_id, user_id, is_typing, started_at, updated_at)"
            " SELECT m.id, m.user1_id, %s, now(), now() FROM matches m WHERE m.id = %s"
            " ON CONFLICT (match_id, user_id) DO UPDATE SET is_typing = EXCLUDED.is_typing, updated_at = now()",
            (on, chat.match_id),
        )

    def show_only(self, chat: Chat | None) -> None:
        """Show no other conversation from now on."""
        names = {chat.person, chat.bot} if chat else None
        self._shows = lambda speaker, listener: {speaker, listener} == names

    def catch_up(self) -> None:
        """Show what was written and is not shown yet."""
        with self._lock:
            rows = self._watching.execute(
                "SELECT m.id::text, s.is_bot, s.first_name, l.first_name, m.content FROM messages m"
                " JOIN matches c ON c.id = m.match_id JOIN profiles s ON s.id = m.sender_id"
                " JOIN profiles l ON l.id = CASE WHEN s.id = c.user1_id THEN c.user2_id ELSE c.user1_id END"
                " WHERE m.id <> ALL (%s::uuid[]) ORDER BY m.created_at",
                (list(self._shown),),
            )
            for message_id, from_bot, speaker, listener, content in rows:
                self._shown.add(message_id)
                if self._shows(speaker, listener):
                    self._screen.said(speaker, listener, content or "", from_bot=from_bot)

    def _patiently(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run a statement that may run twice; try again while PostgreSQL restarts, for at most RESTART_SECONDS."""
        deadline = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                return self._connection.execute(statement, parameters)
            except (DatabaseUnavailable, DatabaseBusy):
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    def _watch(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            with suppress(DatabaseUnavailable, DatabaseBusy):  # PostgreSQL restarts, or the demo ends
                self.catch_up()
