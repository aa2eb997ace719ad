"""From due turns to Dramatiq messages: one pass takes what is due in PostgreSQL and enqueues it."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from dramatiq import Message
from dramatiq.errors import ConnectionClosed

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.circuit import CircuitOpen, Reconnect
from bridge_service.brokers.messages import message_for
from bridge_service.machine.steps import PUSH_WINDOW, Push, Store
from bridge_service.telemetry.signals import (
    Emit,
    GroupClosed,
    InitiationDue,
    PushesRepeated,
    RedisReconnecting,
    RetryIn,
    TurnDead,
    TurnPushed,
    TurnsRecovered,
)
from bridge_service.turns import Kind

BATCH: Final = 500
RETRY_MAX_SECONDS: Final = 4.0
PROBE_SECONDS: Final = 1.0


class Window(Protocol):
    """What shows the open groups to people; see window.ContextWindow."""

    def close(self, match_ids: Sequence[str]) -> None:
        """Forget groups that were pushed."""


class Pusher:
    """Pushes due turns, and makes the attempts when Redis does not take them."""

    def __init__(
        self,
        store: Store,
        broker: WaitingBroker,
        reconnect: Reconnect,
        *,
        window: Window,
        emit: Emit,
        stopping: threading.Event,
        attempts: int,
    ) -> None:
        """Wire a pusher.

        Parameters:
          attempts: pushes before Redis is given up for now.
          stopping: ends every wait.
        """
        self._store = store
        self._broker = broker
        self._reconnect = reconnect
        self._window = window
        self._emit = emit
        self._stopping = stopping
        self._attempts = attempts
        self._probed_at = 0.0
        self._queue_id: str | None = None  # under which the last pass pushed
        self._untold: set[int] = set()  # turns whose first push did not get through yet

    def push_due(self, beat: Callable[[], None] = lambda: None) -> int:
        """Push what is due, until nothing is or Redis is away; `beat` is called before each batch and each attempt.

        Returns:
          How many turns were taken from PostgreSQL. If the process dies before they are in Redis, or Redis loses them,
          their due times bring them back.

        Raises:
          DatabaseUnavailable, SchemaMissing, DatabaseRefused: nothing was pushed, or not all.
        """
        count = 0
        while not self._stopping.is_set() and self._redis_is_there():
            beat()
            self._follow_queue()
            pushes = self._store.push_due(BATCH)
            if pushes:
                self._push(pushes, beat)
            count += len(pushes)
            if len(pushes) < BATCH:
                break
        return count

    def _follow_queue(self) -> None:
        """Make due what was pushed under another ID: no worker looks there any more."""
        queue_id = self._broker.queue_id()
        if self._queue_id not in {None, queue_id}:
            self._store.reset_pushes()
        self._queue_id = queue_id

    def _push(self, due: Sequence[Push], beat: Callable[[], None]) -> None:
        for push in due:
            if push.step == "dead":
                self._emit(TurnDead(push.turn_id, push.match_id, "WorkerLost"))
        pushes = [push for push in due if push.step != "dead"]
        first = [push for push in pushes if push.first]
        self._untold.update(push.turn_id for push in first)
        if not self._enqueue(pushes, first, beat):
            # No more are queued at once (T9): the rest ended, or was pushed again by another scheduler.
            self._untold = set(sorted(self._untold)[-PUSH_WINDOW:])
            return
        told = [push for push in pushes if push.turn_id in self._untold]
        for push in told:
            self._emit(TurnPushed(push.turn_id, push.match_id, push.kind))
        self._untold.difference_update(push.turn_id for push in told)
        self._window.close([push.match_id for push in told if push.kind is Kind.REPLY])
        recovered = sum(push.recovered for push in pushes)
        repeated = sum(push.step == "compose" and not push.first for push in pushes) - recovered
        if recovered:
            self._emit(TurnsRecovered(recovered, "lease"))
        if repeated:
            self._emit(PushesRepeated(repeated))

    def _tell_of(self, first: Sequence[Push]) -> None:
        for push in first:
            if push.kind is Kind.REPLY:
                self._emit(GroupClosed(push.turn_id, push.match_id, push.messages))
            else:
                self._emit(InitiationDue(push.turn_id, push.match_id))

    def _enqueue(self, pushes: Sequence[Push], first: Sequence[Push], beat: Callable[[], None]) -> bool:
        """Make up to `attempts` attempts, and a last one after the last wait; then open the circuit.

        Those that are pushed for the `first` time are told of when an attempt was made: nobody waits for a line.
        """
        messages = [message_for(push.step, push.turn_id) for push in pushes]
        for attempt in range(1, self._attempts + 2):
            beat()  # all of them may take minutes, and no watchdog is to end a process for an outage of Redis
            error = self._attempt(messages, again=attempt > 1)
            if attempt == 1:
                self._tell_of(first)
            if error is None:
                return True
            if isinstance(error, CircuitOpen):
                return False
            if attempt > self._attempts:
                self._broker.drop_connections()
                break
            self._reconnect.failed(self._broker, error, attempt=attempt, attempts=self._attempts)
            seconds = min(2.0 ** (attempt - 1), RETRY_MAX_SECONDS)
            self._emit(RetryIn(seconds))
            if self._stopping.wait(seconds):
                return False
        self._reconnect.give_up(attempts=self._attempts)
        return False

    def _attempt(self, messages: Sequence[Message[Any]], *, again: bool) -> CircuitOpen | ConnectionClosed | None:
        """Enqueue, after a new connection if this is not the first attempt; what went wrong with Redis, if anything."""
        try:
            if again:
                self._emit(RedisReconnecting())
                self._broker.probe()
                self._recovered()
            self._broker.enqueue_many(messages)
        except (CircuitOpen, ConnectionClosed) as error:
            return error
        return None

    def _redis_is_there(self) -> bool:
        """Close the circuit again once Redis takes a write; then everything that may be lost is due at once."""
        if not self._reconnect.is_open:
            return True
        if time.monotonic() - self._probed_at < PROBE_SECONDS:
            return False
        try:
            self._broker.probe()
        except ConnectionClosed:
            self._broker.drop_connections()
            return False
        finally:
            self._probed_at = time.monotonic()
        self._recovered()
        return True

    def _recovered(self) -> None:
        self._store.reset_pushes()  # a Redis that was away may have come back empty
        self._reconnect.recovered()  # last: if PostgreSQL is away too, all of this has to be done again

    @property
    def waits_for_redis(self) -> bool:
        """Whether the circuit is open: call `push_due` every second, it probes."""
        return self._reconnect.is_open
