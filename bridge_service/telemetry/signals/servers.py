"""What happens between a process and its servers: connections, notifications, and what Redis takes and gives."""

import logging
import re
from collections.abc import Mapping
from typing import Final

from bridge_service.errors import BridgeError, SchemaMissing, StepRefused
from bridge_service.telemetry.signals.base import Signal


class PostgresConnected(Signal):
    """PostgreSQL answered."""


class RedisConnected(Signal):
    """Redis answered."""


class WaitingForPostgres(Signal, level=logging.WARNING):
    """A process that starts waits for PostgreSQL."""

    error: str


class WaitingForRedis(Signal, level=logging.WARNING):
    """A process that starts waits for Redis."""

    error: str


class SchemaAbsent(Signal, level=logging.WARNING):
    """A process that starts waits for `migrate`."""


class PostgresLost(Signal, level=logging.WARNING):
    """PostgreSQL was lost; the process connects again by itself."""

    error: str


class PostgresRefused(Signal, level=logging.ERROR):
    """PostgreSQL refused a step: a right or a table is missing. The process tries again until an operator acts."""

    error: str


def database_trouble(error: BridgeError) -> Signal:
    """Return the signal for a step that PostgreSQL did not carry out."""
    match error:
        case SchemaMissing():
            return SchemaAbsent()
        case StepRefused():
            return PostgresRefused(str(error))
        case _:
            return PostgresLost(str(error))


class ListenStarting(Signal):
    """The listener is about to LISTEN."""


class ListenActive(Signal):
    """The listener's notification to itself came back: listening works."""


class ListenSilent(Signal, level=logging.WARNING):
    """LISTEN was accepted and delivers nothing (a pooler in transaction mode): the scheduler polls instead."""

    reason: str


_SHOWN_KEYS: Final = ("match_id", "bot_id", "sender_id", "message_id", "id", "user1_id", "user2_id", "created_at")
_ID_OR_TIME: Final = re.compile(
    r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|[0-9]{4,6}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?"
)


class NotificationReceived(Signal):
    """A notification of PostgreSQL process `pid` was understood.

    Any role may send any payload, and a text may hide in any value. So `payload` keeps only the contract's keys, and
    "…" stands for a value that is neither an id nor a time.
    """

    pid: int
    channel: str
    payload: Mapping[str, object]
    match_id: str

    def __post_init__(self) -> None:
        """Forget what no subscriber may see."""
        shown = {key: self.payload[key] for key in _SHOWN_KEYS if key in self.payload}
        masked = {k: v if v is None or _ID_OR_TIME.fullmatch(str(v)) else "…" for k, v in shown.items()}
        object.__setattr__(self, "payload", masked)


class NotificationRejected(Signal, level=logging.WARNING):
    """A notification was malformed or forged, and ignored; `reason` never quotes it."""

    channel: str
    reason: str


class RedisLost(Signal, level=logging.WARNING):
    """A consumer lost Redis and waits for it."""

    error: str


class RedisAttemptFailed(Signal, level=logging.WARNING):
    """Redis did not take a push, at the `attempt`-th of `attempts`."""

    attempt: int
    attempts: int
    error: str


class RetryIn(Signal):
    """The next attempt comes after `seconds`."""

    seconds: float


class RedisReconnecting(Signal):
    """A new connection to Redis is being made."""


class RedisReconnected(Signal):
    """Redis is back."""


class RedisGivenUp(Signal, level=logging.ERROR):
    """All attempts of a push failed; the turns stay in PostgreSQL and are pushed when Redis is back."""

    attempts: int


class BadBrokerMessage(Signal, level=logging.WARNING):
    """A message from the broker was not understood, and dropped; `reason` never quotes it."""

    reason: str
