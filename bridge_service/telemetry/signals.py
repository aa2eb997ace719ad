"""What can happen, each a named event with fields.

The code says once what happened, by an `Emit`; subscribers turn it into lines, numbers and pages. No event carries
the text of a message: ids, numbers, and the first line of an error.
"""

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Final, Generic, TypeAlias, TypeVar

from bridge_service.errors import BridgeError, SchemaMissing, StepRefused

_logger: Final = logging.getLogger("bridge.events")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
      name: stable English name, by which logs and alerts know the event.
      level: how much it matters, a level of `logging`.
    """

    name: ClassVar[str]
    level: ClassVar[int] = logging.INFO

    def __post_init__(self) -> None:
        """Keep the first line of an error or reason: PostgreSQL quotes the row, hence the message, in the next ones."""
        for text in ("error", "reason"):
            value = getattr(self, text, None)
            if isinstance(value, str):
                object.__setattr__(self, text, value.strip().partition("\n")[0].rstrip())

    def fields(self) -> dict[str, object]:
        """Return what the event carries, by field name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


Emit: TypeAlias = Callable[[Event], None]
"""Takes note of an event: quick, from any thread, and never raises."""


# --- Processes and their connections -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProcessStarted(Event):
    """A process has started with these settings, none of them secret."""

    name = "process_started"
    summary: Mapping[str, str]
    role: str


@dataclass(frozen=True, slots=True)
class PlaintextUrl(Event):
    """At the start: the connection that this variable names leaves the machine and need not be encrypted."""

    name = "plaintext_url"
    level = logging.WARNING
    variable: str


@dataclass(frozen=True, slots=True)
class PagesOpen(Event):
    """At the start: who reaches this variable's port from another machine sees pages and numbers, without a token."""

    name = "pages_open"
    level = logging.WARNING
    variable: str


@dataclass(frozen=True, slots=True)
class CheckFailed(Event):
    """At the start: a look at PostgreSQL found it not as the bridge needs it; see checks/.

    Attributes:
      check: name of the look, as `python -m bridge_service check` has it.
      detail: what was found.
      remedy: what to do.
    """

    name = "check_failed"
    level = logging.WARNING
    check: str
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class PostgresConnected(Event):
    """PostgreSQL answered."""

    name = "postgres_connected"


@dataclass(frozen=True, slots=True)
class RedisConnected(Event):
    """Redis answered."""

    name = "redis_connected"


@dataclass(frozen=True, slots=True)
class WaitingForPostgres(Event):
    """A process that starts waits for PostgreSQL."""

    name = "waiting_for_postgres"
    level = logging.WARNING
    error: str


@dataclass(frozen=True, slots=True)
class WaitingForRedis(Event):
    """A process that starts waits for Redis."""

    name = "waiting_for_redis"
    level = logging.WARNING
    error: str


@dataclass(frozen=True, slots=True)
class SchemaAbsent(Event):
    """A process that starts waits for somebody to migrate."""

    name = "schema_absent"
    level = logging.WARNING


@dataclass(frozen=True, slots=True)
class PostgresLost(Event):
    """PostgreSQL was lost; the process connects again by itself."""

    name = "postgres_lost"
    level = logging.WARNING
    error: str


@dataclass(frozen=True, slots=True)
class PostgresRefused(Event):
    """PostgreSQL refused a step: a right or a table is missing. The process tries again; an operator has to act."""

    name = "postgres_refused"
    level = logging.ERROR
    error: str


@dataclass(frozen=True, slots=True)
class RedisLost(Event):
    """A consumer lost Redis and waits for it."""

    name = "redis_lost"
    level = logging.WARNING
    error: str


@dataclass(frozen=True, slots=True)
class FatalError(Event):
    """The process ends because of this."""

    name = "fatal_error"
    level = logging.CRITICAL
    error: str


@dataclass(frozen=True, slots=True)
class WatchdogBarked(Event):
    """A loop has not turned for so many seconds; the process ends."""

    name = "watchdog_barked"
    level = logging.CRITICAL
    loop: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ParentLost(Event):
    """The process that started this worker, Dramatiq's parent, is gone; this one ends, for nobody would end it."""

    name = "parent_lost"
    level = logging.WARNING


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """The process was told to end and finishes what it holds, for at most so many seconds."""

    name = "draining"
    seconds: float


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The process has ended in order."""

    name = "stopped"


def database_trouble(error: BridgeError) -> Event:
    """Return the event for a step that PostgreSQL did not carry out."""
    match error:
        case SchemaMissing():
            return SchemaAbsent()
        case StepRefused():
            return PostgresRefused(str(error))
        case _:
            return PostgresLost(str(error))


# --- Listening -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListenStarting(Event):
    """The listener is about to LISTEN."""

    name = "listen_starting"


@dataclass(frozen=True, slots=True)
class ListenActive(Event):
    """A notification to oneself came back: listening works."""

    name = "listen_active"


@dataclass(frozen=True, slots=True)
class ListenSilent(Event):
    """LISTEN was accepted and delivers nothing (a pooler in transaction mode): the scheduler polls instead."""

    name = "listen_silent"
    level = logging.WARNING
    reason: str


_SHOWN_KEYS: Final = (
    "match_id",
    "bot_id",
    "sender_id",
    "message_id",
    "id",
    "user1_id",
    "user2_id",
    "created_at",
)
_ID_OR_TIME: Final = re.compile(
    r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|[0-9]{4,6}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?"
)


@dataclass(frozen=True, slots=True)
class NotificationReceived(Event):
    """A notification was understood.

    Attributes:
      pid: the PostgreSQL process that sent it.
      channel: where it came in.
      payload: of its JSON object what the contract names and is no content, `match_id` first. What is no id and no time
        becomes "…": anybody may send any payload, and a message may hide anywhere in it, a name or a number included.
      match_id: the conversation.
    """

    name = "notification_received"
    pid: int
    channel: str
    payload: Mapping[str, object]
    match_id: str

    def __post_init__(self) -> None:
        """Forget at once what no subscriber may see."""
        shown = {key: _harmless(self.payload[key]) for key in _SHOWN_KEYS if key in self.payload}
        object.__setattr__(self, "payload", shown)


def _harmless(value: object) -> object:
    return value if value is None or (isinstance(value, str) and _ID_OR_TIME.fullmatch(value)) else "…"


@dataclass(frozen=True, slots=True)
class NotificationRejected(Event):
    """A notification was malformed or forged, and ignored; `reason` never quotes it."""

    name = "notification_rejected"
    level = logging.WARNING
    channel: str
    reason: str


@dataclass(frozen=True, slots=True)
class MatchDetected(Event):
    """A new match with a bot was grouped."""

    name = "match_detected"
    match_id: str
    bot_id: str


@dataclass(frozen=True, slots=True)
class MessageGrouped(Event):
    """A message joined a turn as its `position`-th, counted from 1; the first starts the delay."""

    name = "message_grouped"
    match_id: str
    turn_id: int
    event_id: int
    position: int
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class EventSetAside(Event):
    """So many captured events of a conversation could not be grouped and wait for an operator."""

    name = "event_set_aside"
    level = logging.ERROR
    count: int
    match_id: str
    error: str


# --- Pushing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GroupClosed(Event):
    """A group of messages is due and about to be pushed."""

    name = "group_closed"
    turn_id: int
    match_id: str
    messages: int


@dataclass(frozen=True, slots=True)
class InitiationDue(Event):
    """An initiation is due and about to be pushed."""

    name = "initiation_due"
    turn_id: int
    match_id: str


@dataclass(frozen=True, slots=True)
class TurnPushed(Event):
    """A turn was pushed for the first time."""

    name = "turn_pushed"
    turn_id: int
    match_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class PushesRepeated(Event):
    """So many pushes that were taken for lost were made again."""

    name = "pushes_repeated"
    count: int


@dataclass(frozen=True, slots=True)
class RedisAttemptFailed(Event):
    """Redis did not take a push, at the `attempt`-th of `attempts`."""

    name = "redis_attempt_failed"
    level = logging.WARNING
    attempt: int
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class RetryIn(Event):
    """The next attempt comes after so many seconds."""

    name = "retry_in"
    seconds: float


@dataclass(frozen=True, slots=True)
class RedisReconnecting(Event):
    """A new connection to Redis is being made."""

    name = "redis_reconnecting"


@dataclass(frozen=True, slots=True)
class RedisReconnected(Event):
    """Redis is back."""

    name = "redis_reconnected"


@dataclass(frozen=True, slots=True)
class RedisGivenUp(Event):
    """All attempts of a push failed; the turns stay in PostgreSQL and are pushed when Redis is back."""

    name = "redis_given_up"
    level = logging.ERROR
    attempts: int


# --- Answering -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TurnClaimed(Event):
    """A worker has taken a turn with so many messages."""

    name = "turn_claimed"
    turn_id: int
    match_id: str
    kind: str
    messages: int


@dataclass(frozen=True, slots=True)
class TurnTyping(Event):
    """The draft is there; it is delivered after so many seconds."""

    name = "turn_typing"
    turn_id: int
    match_id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ReplyDelivered(Event):
    """A reply or first word stands in the conversation.

    Attributes:
      message_id: the message that was inserted.
      characters: its length.
      covered: how many messages it answers; 0 for an initiation.
      lateness_seconds: how long after its planned time it was inserted.
    """

    name = "reply_delivered"
    turn_id: int
    match_id: str
    message_id: str
    kind: str
    characters: int
    covered: int
    lateness_seconds: float


@dataclass(frozen=True, slots=True)
class TurnCancelled(Event):
    """A turn ended without a reply, since none is owed any more."""

    name = "turn_cancelled"
    turn_id: int
    match_id: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class TurnSuperseded(Event):
    """A reply was overtaken by new messages; the `merges`-th in its chain."""

    name = "turn_superseded"
    turn_id: int
    match_id: str
    merges: int


@dataclass(frozen=True, slots=True)
class ResponderAway(Event):
    """The responder is away; the turn is tried again after so many seconds."""

    name = "responder_away"
    level = logging.WARNING
    turn_id: int
    match_id: str
    error_type: str
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class TurnFailed(Event):
    """A turn failed for the `attempts`-th time and is tried again."""

    name = "turn_failed"
    level = logging.WARNING
    turn_id: int
    match_id: str
    error_type: str
    attempts: int


@dataclass(frozen=True, slots=True)
class TurnDead(Event):
    """A turn was given up; an operator decides."""

    name = "turn_dead"
    level = logging.ERROR
    turn_id: int
    match_id: str
    error_type: str


@dataclass(frozen=True, slots=True)
class DuplicatePrevented(Event):
    """A step found nothing to do: it had been done already, or was another worker's.

    Attributes:
      stage: `claim`, `finish` or `deliver`.
    """

    name = "duplicate_prevented"
    level = logging.DEBUG
    turn_id: int
    stage: str


@dataclass(frozen=True, slots=True)
class BadBrokerMessage(Event):
    """A message from the broker was not understood, and dropped; `reason` never quotes it."""

    name = "bad_broker_message"
    level = logging.WARNING
    reason: str


# --- Upkeep --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TurnsRecovered(Event):
    """So many turns were taken from workers that died, or found without a push."""

    name = "turns_recovered"
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Pruned(Event):
    """So many finished turns were old enough to be deleted, with their events."""

    name = "pruned"
    turns: int


@dataclass(frozen=True, slots=True)
class LinesHeldBack(Event):
    """The journal left out `count` lines of the event `of`; only the journal makes this one."""

    name = "lines_held_back"
    of: str
    count: int


# --- What subscribers share ----------------------------------------------------------------------


def fan_out(*subscribers: Emit, clock: Callable[[], float] = time.monotonic) -> Emit:
    """Return an `Emit` that tells each of `subscribers` in turn.

    What one of them raises reaches neither the emitter nor the others: it is logged, for each at most once a second.
    """
    throttle: Throttle[int, Event] = Throttle(clock)

    def emit(event: Event) -> None:
        for place, subscriber in enumerate(subscribers):
            try:
                subscriber(event)
            except Exception:
                held_back = throttle.admit(place, event)
                if held_back is not None:
                    _logger.exception(
                        "subscriber %d failed on %s (and %d times unlogged before)", place, event.name, held_back
                    )

    return emit


KeyT = TypeVar("KeyT")
ItemT = TypeVar("ItemT")

_WINDOW_SECONDS: Final = 1.0


class Throttle(Generic[KeyT, ItemT]):
    """Let at most a limit of items of one key pass in any second, and count the others until that is reported.

    Parameters:
      clock: returns seconds, never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lanes: dict[KeyT, _Lane[ItemT]] = {}
        # Reentrant: a signal handler that logs may interrupt the thread that is in here.
        self._lock = threading.RLock()

    def admit(self, key: KeyT, item: ItemT, *, limit: int = 1) -> int | None:
        """Return None to hold `item` back, else how many were held back before it and are to be reported now.

        `limit` is fixed by the first call for `key`. Reports of one key are at least a second apart.
        """
        with self._lock:
            now = self._clock()
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = _Lane(limit)
            if not lane.has_room(now):
                lane.held += 1
                lane.latest = item
                return None
            lane.passed.append(now)
            return lane.report(now) if lane.may_report(now) else 0

    def release(self, *, everything: bool = False) -> list[tuple[KeyT, ItemT, int]]:
        """Return what is to be reported though no further item came: key, latest item held back, how many were.

        Each takes the place of an item that passes.

        Parameters:
          everything: do not wait for the end of the second, as when the process ends.
        """
        with self._lock:
            now = self._clock()
            released = []
            for key, lane in self._lanes.items():
                latest = lane.latest
                if latest is not None and (everything or (lane.has_room(now) and lane.may_report(now))):
                    lane.passed.append(now)
                    released.append((key, latest, lane.report(now)))
            return released


class _Lane(Generic[ItemT]):
    """The state of one key."""

    def __init__(self, limit: int) -> None:
        self.passed: deque[float] = deque(maxlen=limit)
        self.held = 0
        self.latest: ItemT | None = None
        self._reported = float("-inf")

    def has_room(self, now: float) -> bool:
        return len(self.passed) < (self.passed.maxlen or 0) or now - self.passed[0] >= _WINDOW_SECONDS

    def may_report(self, now: float) -> bool:
        return self.held > 0 and now - self._reported >= _WINDOW_SECONDS

    def report(self, now: float) -> int:
        held, self.held, self.latest, self._reported = self.held, 0, None, now
        return held
