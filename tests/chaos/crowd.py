"""The people: threads that act out a script against PostgreSQL itself, as an app does, and note what came of it.

PostgreSQL may die under them at any moment. Whatever was not committed for sure is written anew, under another id and
another content; a COMMIT without an answer is noted as in doubt, and the table decides afterwards.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import psycopg2
import psycopg2.errors

from tests.chaos.script import BOTS, PEOPLE, Deed
from tests.support.ledger import Change, Sent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 names as a function
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - as above

    from tests.chaos.script import Act, Match

QUICK_DEVICES: Final = 6
SLOW_DEVICES: Final = 6
"""Transactions that stay open have devices of their own, so that they overlap with others of their conversation."""

RETRY_SECONDS: Final = 0.2

# What says that PostgreSQL is down, full or closed for writing; all else is something that was done to the app.
_AWAY: Final = ("08", "53", "57")
_READ_ONLY: Final = "25006"

PEOPLE_SQL: Final = (
    "INSERT INTO profiles (id, first_name, is_bot) SELECT id, 'somebody', is_bot"
    " FROM unnest(%s::uuid[], %s::boolean[]) AS p (id, is_bot)"
)
_MEET: Final = "INSERT INTO matches (id, user1_id, user2_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_WRITE: Final = "INSERT INTO messages (id, match_id, sender_id, content) VALUES (%s, %s, %s, %s)"
_EDIT: Final = "UPDATE messages SET content = %s WHERE id = %s"
_DELETE: Final = "DELETE FROM messages WHERE id = %s"
_HOLD: Final = "SELECT FROM typing_events WHERE match_id = %s AND user_id = %s FOR UPDATE"

_RECENT: Final = 500
"""Of the messages that were sent, so many are looked through for one to change."""


def person_id(number: int) -> str:
    """Return the id of a person."""
    return str(UUID(int=number + 1, version=4))


def bot_id(number: int) -> str:
    """Return the id of a bot."""
    return str(UUID(int=2**64 + number, version=4))


def settle(connection: Connection) -> None:
    """Put all bots and people into `profiles`."""
    bots = [bot_id(number) for number in range(BOTS)]
    people = [person_id(number) for number in range(PEOPLE + 1)]
    with connection.cursor() as cursor:
        cursor.execute(PEOPLE_SQL, (bots + people, [True] * len(bots) + [False] * len(people)))


class Crowd:
    """Acts a script out. All that it noted grows meanwhile.

    Attributes:
      sent: messages to bots.
      met: matches.
      humans: messages in a bot's name.
      changes: edits and deletions of what was sent.
      held: when a transaction of the app held a bot's indicator, by match.
      hurt: errors that an app should never meet, by SQLSTATE.
    """

    def __init__(self, url: str, script: Sequence[Act]) -> None:
        self.sent: list[Sent] = []
        self.met: list[Match] = []
        self.humans: list[Sent] = []
        self.changes: list[Change] = []
        self.held: list[tuple[str, float, float]] = []
        self.hurt: Counter[str] = Counter()
        self._url = url
        self._script = script
        self._numbers = itertools.count(1)
        self._made: dict[int, threading.Event] = {act.match.number: threading.Event() for act in script}
        self._stopping = threading.Event()
        self._slow: queue.SimpleQueue[Act | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._started_at = 0.0

    def start(self) -> None:
        """Begin."""
        self._started_at = time.monotonic()
        for device in range(QUICK_DEVICES):
            mine = [act for act in self._script if act.hold == 0 and act.match.number % QUICK_DEVICES == device]
            self._threads.append(
                threading.Thread(target=self._play, args=(mine,), name=f"device {device}", daemon=True)
            )
        self._threads.append(threading.Thread(target=self._hand_out, name="slow devices", daemon=True))
        self._threads += [
            threading.Thread(target=self._play_slow, name=f"slow device {number}", daemon=True)
            for number in range(SLOW_DEVICES)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Leave the rest of the script, and return once nobody is in a transaction."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _wait_for(self, act: Act) -> None:
        self._stopping.wait(max(0.0, self._started_at + act.at - time.monotonic()))

    def _play(self, acts: Sequence[Act]) -> None:
        device = _Device(self._url)
        for act in acts:
            self._wait_for(act)
            self._do(device, act)
        device.close()

    def _hand_out(self) -> None:
        for act in self._script:
            if act.hold > 0:
                self._wait_for(act)
                self._slow.put(act)
        for _ in range(SLOW_DEVICES):
            self._slow.put(None)

    def _play_slow(self) -> None:
        device = _Device(self._url)
        while (act := self._slow.get()) is not None:
            self._do(device, act)
        device.close()

    def _do(self, device: _Device, act: Act) -> None:
        made = {match.number for match in act.meets}
        for match in (*act.writes, *act.on):
            if match.number not in made:
                while not self._made[match.number].wait(RETRY_SECONDS):
                    if self._stopping.is_set():
                        return
        while not self._stopping.is_set():
            try:
                if self._try(device, act):
                    return
            except psycopg2.Error as error:
                if not _is_away(error):
                    self.hurt[error.pgcode or type(error).__name__] += 1
                device.close()
            self._stopping.wait(RETRY_SECONDS)

    def _try(self, device: _Device, act: Act) -> bool:
        """Try a transaction once; False if it has to be tried again.

        Raises:
          psycopg2.Error: for sure nothing was committed.
        """
        connection = device.connection(act.isolation)
        began = datetime.now(UTC)
        notes: list[Sent] = []
        with connection.cursor() as cursor:
            for match in act.meets:
                other = person_id(PEOPLE) if match.two_people else bot_id(match.bot)
                cursor.execute(_MEET, (match.match_id, person_id(match.person), other))
            for match in act.writes:
                message, content = str(uuid4()), f"{match.number}.{next(self._numbers)}"
                cursor.execute(_WRITE, (message, match.match_id, person_id(match.person), content))
                notes.append(Sent(message, match.match_id, content, began, datetime.now(UTC), None))
            note = self._do_deed(cursor, act, began)
        if act.hold:
            self._stopping.wait(act.hold)
        if act.rolls_back:
            connection.rollback()
            self._note_held(act, began)
            return True
        returned = None
        try:
            connection.commit()
            returned = datetime.now(UTC)
        except (psycopg2.errors.SerializationFailure, psycopg2.errors.ReadOnlySqlTransaction):
            raise
        except psycopg2.Error as error:
            if error.pgcode is not None and not _is_away(error):
                raise  # such as a full notification queue: PostgreSQL says that it was rolled back
            device.close()
        self.sent += [
            Sent(note.message_id, note.match_id, note.content, note.began, note.inserted, returned) for note in notes
        ]
        self._note_held(act, began)
        self._note(note, returned)
        if act.meets and returned is None:
            return False  # a match is made again until it is there
        for match in act.meets:
            self.met.append(match)
            self._made[match.number].set()
        return True

    def _do_deed(self, cursor: Cursor, act: Act, began: datetime) -> Sent | Change | None:
        """Do what an act does beside new messages; returns what it was, if anything was done."""
        for match in act.on:
            bot = bot_id(match.bot)
            if act.deed is Deed.HOLD:
                cursor.execute(_HOLD, (match.match_id, bot))
                return None
            content = f"{match.number}.{next(self._numbers)}"
            if act.deed is Deed.SPEAK:
                message = str(uuid4())
                cursor.execute(_WRITE, (message, match.match_id, bot, f"human {content}"))
                return Sent(message, match.match_id, f"human {content}", began, datetime.now(UTC), None)
            gone = {change.message_id for change in self.changes[-_RECENT:] if change.content is None}
            newest = next(
                (
                    sent.message_id
                    for sent in reversed(self.sent[-_RECENT:])
                    if sent.match_id == match.match_id and sent.returned is not None and sent.message_id not in gone
                ),
                None,
            )
            if newest is None:
                return None
            if act.deed is Deed.EDIT:
                cursor.execute(_EDIT, (content, newest))
            else:
                cursor.execute(_DELETE, (newest,))
            if cursor.rowcount == 1:
                text = content if act.deed is Deed.EDIT else None
                return Change(newest, text, began, datetime.now(UTC), None)
        return None

    def _note(self, deed: Sent | Change | None, returned: datetime | None) -> None:
        if isinstance(deed, Change):
            self.changes.append(replace(deed, returned=returned))
        elif deed is not None:
            self.humans.append(replace(deed, returned=returned))

    def _note_held(self, act: Act, began: datetime) -> None:
        if act.deed is Deed.HOLD:
            self.held += [(match.match_id, began.timestamp(), time.time()) for match in act.on]


class _Device:
    """One connection that is made anew whenever it broke."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None

    def connection(self, isolation: str | None) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg2.connect(self._url, connect_timeout=5)
        self._connection.rollback()
        self._connection.set_session(isolation_level=isolation or "DEFAULT")
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            with suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None


def _is_away(error: psycopg2.Error) -> bool:
    return error.pgcode is None or error.pgcode.startswith(_AWAY) or error.pgcode == _READ_ONLY
