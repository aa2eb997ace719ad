"""What can happen, each a signal: a class with a name and fields.

The code reports once what happened, by an `Emit`. Subscribers turn it into lines, numbers and incidents. No signal
carries the text of a message: only ids, numbers, and the first line of an error.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, Final, TypeAlias, dataclass_transform

from bridge_service.errors import BridgeError, SchemaMissing, StepRefused


@dataclass_transform(frozen_default=True)
class Signal:
    """Something that happened. Each class that inherits from it is a frozen dataclass.

    Attributes:
      name: the class's name in snake_case. Logs and alerts know the signal by it, so a class is not renamed.
      level: how much it matters, a level of `logging`.
    """

    name: ClassVar[str]
    level: ClassVar[int]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls, *, level: int = logging.INFO) -> None:
        """Name the signal and make it a dataclass."""
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        cls.level = level
        dataclass(frozen=True)(cls)

    def __post_init__(self) -> None:
        """Keep the first line of an error or reason: in the next ones PostgreSQL quotes the row, so the message."""
        for text in ("error", "reason"):
            value = getattr(self, text, None)
            if isinstance(value, str):
                object.__setattr__(self, text, value.strip().partition("\n")[0].rstrip())

    def fields(self) -> dict[str, object]:
        """Return what the signal carries, by field name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


Emit: TypeAlias = Callable[[Signal], None]
"""Takes note of a signal: quick, from any thread, and never raises."""


class ProcessStarted(Signal):
    """A process has started with these settings, none of them secret."""

    summary: Mapping[str, str]
    role: str


class PlaintextUrl(Signal, level=logging.WARNING):
    """At the start: the connection of this variable leaves the machine, and its URL does not demand encryption."""

    variable: str


class PagesOpen(Signal, level=logging.WARNING):
    """At the start: this variable's port shows pages and numbers to other machines without a token."""

    variable: str


class CheckFailed(Signal, level=logging.WARNING):
    """At the start: a look of checks/ found a fault of PostgreSQL; `check` is the look's name."""

    check: str
    detail: str
    remedy: str


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


class RedisLost(Signal, level=logging.WARNING):
    """A consumer lost Redis and waits for it."""

    error: str


class FatalError(Signal, level=logging.CRITICAL):
    """The process ends because of this."""

    error: str


class WatchdogBarked(Signal, level=logging.CRITICAL):
    """A loop has not turned for `seconds`; the process ends."""

    loop: str
    seconds: float


class ParentLost(Signal, level=logging.WARNING):
    """Dramatiq's parent, which would end this worker, is gone; so the worker ends by itself."""


class Draining(Signal):
    """The process was told to end. It finishes what it holds, for at most `seconds`."""

    seconds: float


class Stopped(Signal):
    """The process has ended in order."""


def database_trouble(error: BridgeError) -> Signal:
    """Return the signal for a step that PostgreSQL did not carry out."""
    match error:
        case SchemaMissing():
            return SchemaAbsent()
        case StepRefused():
            return PostgresRefused(str(error))
        case _:
            return PostgresLost(str(error))


# Listening


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


class MatchDetected(Signal):
    """A new match with a bot was grouped."""

    match_id: str
    bot_id: str


class MessageGrouped(Signal):
    """A message joined a turn as its `position`-th, counted from 1; the first starts the delay."""

    match_id: str
    turn_id: int
    event_id: int
    position: int
    delay_seconds: float


class EventSetAside(Signal, level=logging.ERROR):
    """`count` captured events of a conversation could not be grouped and wait for an operator."""

    count: int
    match_id: str
    error: str


# Pushing


class GroupClosed(Signal):
    """A group of messages is due and about to be pushed."""

    turn_id: int
    match_id: str
    messages: int


class InitiationDue(Signal):
    """An opener is due and about to be pushed."""

    turn_id: int
    match_id: str


class TurnPushed(Signal):
    """A turn was pushed for the first time."""

    turn_id: int
    match_id: str
    kind: str


class PushesRepeated(Signal):
    """`count` pushes that were taken for lost were made again."""

    count: int


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


# Answering and upkeep


class TurnClaimed(Signal):
    """A worker has claimed a turn with `messages`."""

    turn_id: int
    match_id: str
    kind: str
    messages: int


class TurnTyping(Signal):
    """The draft is there; it is delivered after `seconds`."""

    turn_id: int
    match_id: str
    seconds: float


class ReplyDelivered(Signal):
    """A reply to `covered` messages, or an opener to none, was inserted; `lateness_seconds`: after its planned time."""

    turn_id: int
    match_id: str
    message_id: str
    kind: str
    characters: int
    covered: int
    lateness_seconds: float


class TurnSilent(Signal):
    """A turn that covers `covered` messages, or an opener, was answered with a chosen silence."""

    turn_id: int
    match_id: str
    kind: str
    covered: int


class TurnCancelled(Signal):
    """A turn ended without a reply, because none is owed any more."""

    turn_id: int
    match_id: str
    kind: str
    reason: str


class TurnSuperseded(Signal):
    """A reply was overtaken by new messages; the `merges`-th in its chain."""

    turn_id: int
    match_id: str
    merges: int


class TurnHeld(Signal):
    """A turn waits until the next day: `cause` is limit_calls or limit_tokens; it may be answered after `until`."""

    turn_id: int
    match_id: str
    cause: str
    until: str


class CallSettled(Signal, level=logging.DEBUG):
    """A call of a model is over: answered, refused or cancelled; a cancelled one counts what was reserved for it."""

    turn_id: int
    outcome: str
    tokens_in: int
    tokens_out: int


class ResponderAway(Signal, level=logging.WARNING):
    """The responder is away; the turn is tried again after `retry_seconds`."""

    turn_id: int
    match_id: str
    error_type: str
    retry_seconds: float


class TurnFailed(Signal, level=logging.WARNING):
    """A turn failed for the `attempts`-th time and is tried again."""

    turn_id: int
    match_id: str
    error_type: str
    attempts: int


class TurnDead(Signal, level=logging.ERROR):
    """A turn was given up; an operator decides."""

    turn_id: int
    match_id: str
    error_type: str


class DuplicatePrevented(Signal, level=logging.DEBUG):
    """A step (`claim`, `finish`, `hold`, `deliver`) found nothing to do: it was done, or was another worker's."""

    turn_id: int
    stage: str


class BadBrokerMessage(Signal, level=logging.WARNING):
    """A message from the broker was not understood, and dropped; `reason` never quotes it."""

    reason: str


class TurnsRecovered(Signal):
    """`count` turns were taken from workers that died, or were found without a push."""

    count: int
    reason: str


class Pruned(Signal):
    """`turns` finished turns were older than RETENTION_DAYS and were deleted, with their events."""

    turns: int


class LinesHeldBack(Signal):
    """The journal left out `count` lines of the signal `of`; only the journal reports this."""

    of: str
    count: int
