"""The chat app: it writes its own tables, reads them, and knows nothing of the bridge."""

import threading
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from bridge_service.demo.screen import Screen
from bridge_service.errors import BridgeError
from bridge_service.machine.database import Connection

POLL_SECONDS: Final = 0.05


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
        rows = self._connection.execute(
            "SELECT m.id::text, p.first_name, b.first_name"
            " FROM matches m JOIN profiles p ON p.id = m.user1_id JOIN profiles b ON b.id = m.user2_id"
        )
        return [Chat(*row) for row in rows]

    def chat(self, person: str, bot: str) -> Chat:
        """Return the conversation of a person and a bot."""
        return next(chat for chat in self.chats() if (chat.person, chat.bot) == (person, bot))

    def write(self, chat: Chat, content: str, *, show: bool = True) -> str:
        """Write as the person; return the message's id. `show`: False if the screen shows it already."""
        message_id = str(uuid4())
        with self._lock:
            self._shown.add(message_id)
        if show:
            self._screen.said(chat.person, chat.bot, content, from_bot=False)
        self._connection.execute(
            "INSERT INTO messages (id, match_id, sender_id, content)"
            " SELECT %s::uuid, m.id, m.user1_id, %s FROM matches m WHERE m.id = %s",
            (message_id, content, chat.match_id),
        )
        return message_id

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
                self._screen.said(speaker, listener, content or "", from_bot=from_bot)

    def _watch(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            try:
                self.catch_up()
            except BridgeError:
                return  # PostgreSQL is gone; the first thread reports it
