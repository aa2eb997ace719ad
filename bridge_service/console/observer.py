"""What the console knows: one look at PostgreSQL and Redis, shared by all who ask within the same moment."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import redis

from bridge_service import standing
from bridge_service.database import Database
from bridge_service.errors import DatabaseRefused, DatabaseUnavailable, SchemaMissing
from bridge_service.health import DATABASE, REDIS, SCHEMA, Remembered
from bridge_service.heartbeat import SILENCE_SECONDS, count_alive
from bridge_service.standing import DOWN, NO_SCHEMA, OK

LOOK_SECONDS: Final = 2.0
"""How long a look is good: whoever asks in between is told the same, and costs the databases nothing."""

LATEST_TURNS: Final = 20


@dataclass(frozen=True, slots=True)
class Figures:
    """What the whole bridge owes; see sql/functions/metrics.sql. Times in seconds since the epoch, None for none.

    Attributes:
      processes: those that live, by role.
      clock_offset: seconds by which PostgreSQL's clock is ahead of this machine's, up to the time that a look takes.
    """

    open: int
    queued: int
    composing: int
    typing: int
    overdue: int
    dead: int
    inbox_open: int
    captures: int
    notify_queue_usage: float
    oldest_unanswered_at: float | None
    overdue_since: float | None
    processes: Mapping[str, int]
    clock_offset: float


@dataclass(frozen=True, slots=True)
class Turn:
    """A line of the list of turns. Times are aware."""

    turn_id: int
    kind: str
    state: str
    match_id: str
    messages: int
    attempts: int
    merges: int
    reason: str | None
    opened_at: datetime
    queued_at: datetime | None
    due_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at `at`, in seconds since the epoch.

    Attributes:
      postgresql: `ok`, `down`, `refused` or `no schema`.
      redis: `ok`, `down` or `refused`.
      figures: None if PostgreSQL did not tell.
    """

    at: float
    postgresql: str
    redis: str
    figures: Figures | None

    @property
    def missing(self) -> list[str]:
        """What is missing, in the words of /health/ready."""
        missing = []
        if self.postgresql != OK:
            missing.append(SCHEMA if self.postgresql == NO_SCHEMA else DATABASE)
        if self.redis != OK:
            missing.append(REDIS)
        return missing


class Observer:
    """Looks at PostgreSQL and Redis; safe from any thread.

    Parameters:
      database: the pool to ask.
      client: of the Redis to ask.
      grouping_delay: seconds, to tell what is overdue of what nobody has grouped.
    """

    def __init__(self, database: Database, client: redis.Redis, grouping_delay: float) -> None:
        self._database = database
        self._client = client
        self._grouping_delay = grouping_delay
        self.look = Remembered(self._look, LOOK_SECONDS)
        self.latest_turns = Remembered(self._latest_turns, LOOK_SECONDS)

    def _look(self) -> Look:
        figures, postgresql = self._ask_postgresql()
        return Look(time.time(), postgresql, self._ask_redis(), figures)

    def _ask_postgresql(self) -> tuple[Figures | None, str]:
        asked_at = time.time()
        try:
            [[answer, processes, there]] = self._database.call(
                "SELECT bridge.metrics(%s), ARRAY(SELECT bridge.processes(%s, %s) WHERE bridge.assert_complete()),"
                " extract(epoch FROM clock_timestamp())::double precision",
                self._grouping_delay,
                SILENCE_SECONDS,
                SILENCE_SECONDS,
            )
        except (DatabaseUnavailable, SchemaMissing, DatabaseRefused) as error:
            return None, standing.of_postgresql(error)
        offset = there - (asked_at + time.time()) / 2
        return Figures(**answer, processes=count_alive(processes), clock_offset=offset), OK

    def _ask_redis(self) -> str:
        word = standing.of_redis(self._client)
        if word == DOWN:
            self._client.connection_pool.disconnect()
        return word

    def _latest_turns(self) -> Sequence[Turn]:
        try:
            rows = self._database.call("SELECT bridge.latest_turns(%s)", LATEST_TURNS)
        except (DatabaseUnavailable, SchemaMissing, DatabaseRefused):
            return ()
        return tuple(_turn(answer) for [answer] in rows)


def _turn(answer: dict[str, Any]) -> Turn:
    times = {name: _time(value) for name, value in answer.items() if name.endswith("_at")}
    return Turn(**{**answer, **times})


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
