"""One look at PostgreSQL and Redis, shared by all visitors of the console."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

import redis

from bridge_service.checks import standing
from bridge_service.checks.standing import DOWN, Standing
from bridge_service.machine.alive import ALIVE, SILENCE_SECONDS, count_alive
from bridge_service.machine.database import Database
from bridge_service.web.question import Question

LOOK_SECONDS: Final = 2.0
"""How long a look holds for further visitors."""

LATEST_TURNS: Final = 20
DEAD_TURNS: Final = 20


@dataclass(frozen=True, slots=True)
class Process:
    """A process that lives.

    Attributes:
      cpu_share: of one processor, on average since the start.
    """

    role: str
    uptime_seconds: float
    rss_bytes: int
    rss_peak_bytes: int
    cpu_share: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What the whole bridge owes; see operate/metrics.sql. Times in seconds since the epoch; None if there is none.

    Attributes:
      processes: live processes, by role.
      alive: each live process.
      clock_offset: seconds by which PostgreSQL's clock is ahead of this machine's, as exact as the call is short.
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
    alive: Sequence[Process]


@dataclass(frozen=True, slots=True)
class Turn:
    """A row of the list of turns. Times are aware."""

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
class DeadTurn:
    """A line of the list of dead turns. Its error may quote anything, so it is not among it."""

    turn_id: int
    match_id: str
    messages: int
    attempts: int
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at `at`, in seconds since the epoch.

    Attributes:
      figures: None if PostgreSQL did not answer.
    """

    at: float
    postgresql: Standing
    redis: Standing
    figures: Figures | None

    @property
    def missing(self) -> list[str]:
        """What is missing, as /health/ready says it."""
        return standing.missing(self.postgresql, self.redis)


class Observer:
    """Looks at PostgreSQL and Redis; safe from any thread."""

    def __init__(self, database: Database, client: redis.Redis) -> None:
        self._database = database
        self._client = client
        self.look = Question(self._look, LOOK_SECONDS)
        self.latest_turns = Question(self._latest_turns, LOOK_SECONDS)
        self.dead_turns = Question(self._dead_turns, LOOK_SECONDS)

    def _look(self) -> Look:
        postgresql, figures = standing.ask_postgresql(self._figures)
        return Look(time.time(), postgresql, self._ask_redis(), figures)

    def _figures(self) -> Figures:
        asked_at = time.time()
        [[answer, processes, there]] = self._database.call(
            "SELECT bridge.metrics(), ARRAY(SELECT bridge.processes(%s, %s) WHERE bridge.assert_complete()),"
            " extract(epoch FROM clock_timestamp())::double precision",
            SILENCE_SECONDS,
            SILENCE_SECONDS,
        )
        offset = there - (asked_at + time.time()) / 2
        alive = [_process(each) for each in processes if each["state"] == ALIVE]
        return Figures(**answer, processes=count_alive(processes), clock_offset=offset, alive=alive)

    def _ask_redis(self) -> Standing:
        found = standing.of_redis(self._client.ping)
        if found.word == DOWN:
            self._client.connection_pool.disconnect()
        return found

    def _latest_turns(self) -> Sequence[Turn]:
        _, rows = standing.ask_postgresql(lambda: self._database.call("SELECT bridge.latest_turns(%s)", LATEST_TURNS))
        return tuple(_turn(answer) for [answer] in rows or ())

    def _dead_turns(self) -> Sequence[DeadTurn]:
        _, rows = standing.ask_postgresql(lambda: self._database.call("SELECT bridge.dead_turns(0, %s)", DEAD_TURNS))
        return tuple(
            DeadTurn(
                dead["turn_id"], dead["match_id"], len(dead["message_ids"]), dead["attempts"], _time(dead["ended_at"])
            )
            for [dead] in rows or ()
        )


def _process(answer: dict[str, Any]) -> Process:
    return Process(**{field.name: answer[field.name] for field in fields(Process)})


def _turn(answer: dict[str, Any]) -> Turn:
    times = {name: _time(value) for name, value in answer.items() if name.endswith("_at")}
    return Turn(**{**answer, **times})


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
