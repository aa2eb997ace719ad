"""One look at PostgreSQL and Redis, shared by all visitors of the console."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import redis

from bridge_service.checks import standing
from bridge_service.checks.standing import DOWN, Standing
from bridge_service.machine.alive import ALIVE, SILENCE_SECONDS, count_alive
from bridge_service.machine.database import Database
from bridge_service.web.question import Question

LOOK_SECONDS: Final = 2.0
"""How long a look holds for further visitors."""


COUNTED: Final = 50_000
"""No count goes further: above it, it is an estimate."""


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
    """What the whole bridge owes; see operate/metrics.sql and on_hold.sql.

    Times in seconds since the epoch; None if there is none.

    Attributes:
      estimated: whether a count is an estimate.
      processes: live processes, by role.
      alive: each live process.
      held: open turns that are held, by cause.
      paused: paused conversations, without those of a paused bot; `taken_over`: of these by a human.
      clock_offset: seconds by which PostgreSQL's clock is ahead of this machine's, as exact as the call is short.
    """

    open: int
    queued: int
    composing: int
    typing: int
    overdue: int
    dead: int
    estimated: bool | None
    inbox_open: int
    captures: int
    notify_queue_usage: float
    oldest_unanswered_at: float | None
    overdue_since: float | None
    processes: Mapping[str, int]
    clock_offset: float
    alive: Sequence[Process]
    held: Mapping[str, int]
    paused: int
    taken_over: int
    bots_paused: int


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

    def _look(self) -> Look:
        postgresql, figures = standing.ask_postgresql(self._figures)
        return Look(time.time(), postgresql, self._ask_redis(), figures)

    def _figures(self) -> Figures:
        asked_at = time.time()
        [[answer, processes, there]] = self._database.call(
            "SELECT bridge.metrics(p_most => %s) || bridge.on_hold(%s),"
            " ARRAY(SELECT bridge.processes(%s, %s) WHERE bridge.assert_complete()),"
            " extract(epoch FROM clock_timestamp())::double precision",
            COUNTED,
            COUNTED,
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


def _process(answer: dict[str, Any]) -> Process:
    return Process(**{field.name: answer[field.name] for field in fields(Process)})
