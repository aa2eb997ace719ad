"""People who write in bursts: a load of many conversations over several connections of the app, the same for a seed."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from threading import Event, Thread
from typing import TYPE_CHECKING, Final
from uuid import UUID

import psycopg2

from tests.support.app import CAMILLE, LEA, WRITE
from tests.support.ledger import Message, Sent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812 - as in waiting.py

LONGEST_BURST: Final = 4
PAUSE_SECONDS: Final = 0.4
"""Between two messages of a burst, at most."""

LATE_COMMIT_SECONDS: Final = 0.1
RECONNECT_SECONDS: Final = 0.1


class Manner(Enum):
    """How a transaction ends."""

    AT_ONCE = "committed at once"
    LATE = "committed a little later, when others have overtaken it"
    UNDONE = "rolled back"


# How bursts are written; most of them message by message, as people do.
_BURSTS: Final = (("each", 80), ("together", 8), ("late", 6), ("undone", 6))


@dataclass(frozen=True, slots=True)
class Writing:
    """One transaction: when (seconds from the start), where, what, and how it ends."""

    at: float
    match_id: str
    contents: tuple[str, ...]
    manner: Manner


def make_matches(url: str, count: int) -> list[str]:
    """Make new matches of a person and a bot in one transaction and return their ids."""
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO matches (user1_id, user2_id) SELECT %s, %s FROM generate_series(1, %s) RETURNING id::text",
                (LEA, CAMILLE, count),
            )
            return [match_id for (match_id,) in cursor.fetchall()]
    finally:
        connection.close()


def read_messages(url: str) -> list[Message]:
    """Return every row of the app's table, for the ledger."""
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT id::text, match_id::text, content, created_at FROM messages")
            return [Message(*row) for row in cursor.fetchall()]
    finally:
        connection.close()


def plan(
    matches: Sequence[str], *, rate: float, seconds: float, writers: int, seed: int, prefix: str = "m"
) -> list[list[Writing]]:
    """Plan what each of `writers` connections writes, in order of time.

    Parameters:
      rate: messages a second, in bursts of 1 to LONGEST_BURST at random moments.
      seed: the same seed and numbers give the same plan, but for the ids of the matches.
      prefix: begins every content, which then are unique among loads with different ones.
    """
    rng = random.Random(seed)  # noqa: S311 - a load is no secret
    plans: list[list[Writing]] = [[] for _ in range(writers)]
    left = round(rate * seconds)
    number = 0
    while left > 0:
        size = min(left, rng.randint(1, LONGEST_BURST))
        left -= size
        contents = tuple(f"{prefix}{number + place:06d}" for place in range(size))
        number += size
        at = rng.uniform(0, seconds)
        match_id = rng.choice(matches)
        # A burst has one connection, two bursts of a conversation mostly have two.
        writings = rng.choice(plans)
        [kind] = rng.choices([name for name, _ in _BURSTS], [weight for _, weight in _BURSTS])
        if kind == "each":
            for content in contents:
                writings.append(Writing(at, match_id, (content,), Manner.AT_ONCE))
                at += rng.uniform(0, PAUSE_SECONDS)
        else:
            manner = {"together": Manner.AT_ONCE, "late": Manner.LATE, "undone": Manner.UNDONE}[kind]
            writings.append(Writing(at, match_id, contents, manner))
    for writings in plans:
        writings.sort(key=lambda writing: writing.at)
    return plans


class Crowd:
    """Carries a plan out: one thread and one connection for each part of it.

    A statement that fails leaves its message in doubt and is not repeated; the writer connects again and goes on with
    the plan, late if it must. `errors` keeps what failed.
    """

    def __init__(self, url: str, plans: Sequence[Sequence[Writing]], *, seed: int = 0) -> None:
        """Prepare; nothing connects yet."""
        self.errors: list[psycopg2.Error] = []
        self._url = url
        self._stopping = Event()
        self._sent: list[Sent] = []
        self._threads = [
            Thread(target=self._write_all, args=(writings, random.Random(f"{seed} {number}")), daemon=True)  # noqa: S311
            for number, writings in enumerate(plans)
        ]
        self._began = 0.0

    def start(self) -> None:
        """Begin to write."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Leave the rest of the plan out."""
        self._stopping.set()

    def join(self) -> list[Sent]:
        """Wait until everything is written; return what was committed or is in doubt."""
        for thread in self._threads:
            thread.join()
        return self.sent

    @property
    def sent(self) -> list[Sent]:
        """What was committed or is in doubt so far."""
        return self._sent[:]

    def _write_all(self, writings: Sequence[Writing], rng: random.Random) -> None:
        connection: Connection | None = None
        for writing in writings:
            self._stopping.wait(max(0.0, self._began + writing.at - time.monotonic()))
            while connection is None and not self._stopping.is_set():
                connection = self._connect()
            if connection is None or self._stopping.is_set():
                break
            try:
                self._write(connection, writing, [str(UUID(int=rng.getrandbits(128))) for _ in writing.contents])
            except psycopg2.Error as error:
                self.errors.append(error)
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _connect(self) -> Connection | None:
        try:
            return psycopg2.connect(self._url, connect_timeout=2)
        except psycopg2.OperationalError:
            self._stopping.wait(RECONNECT_SECONDS)
            return None

    def _write(self, connection: Connection, writing: Writing, ids: Sequence[str]) -> None:
        began = _now()
        inserted: dict[str, datetime] = {}
        returned = None
        try:
            with connection.cursor() as cursor:
                for message_id, content in zip(ids, writing.contents, strict=True):
                    cursor.execute(WRITE, (message_id, writing.match_id, LEA, content))
                    inserted[message_id] = _now()
            if writing.manner is Manner.UNDONE:
                connection.rollback()
                return
            if writing.manner is Manner.LATE:
                self._stopping.wait(LATE_COMMIT_SECONDS)
            connection.commit()
            returned = _now()
        finally:
            if writing.manner is not Manner.UNDONE:
                self._sent.extend(
                    Sent(message_id, writing.match_id, content, began, inserted.get(message_id), returned)
                    for message_id, content in zip(ids, writing.contents, strict=True)
                )


def _now() -> datetime:
    return datetime.now(UTC)
