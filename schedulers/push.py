"""One pass: takes the due turns from PostgreSQL and pushes their ids to Redis."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from dramatiq import Message
from dramatiq.errors import ConnectionClosed

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.circuit import CircuitOpen, Reconnect
from bridge_service.brokers.messages import message_for
from bridge_service.machine.answers import Push
from bridge_service.machine.steps import PUSH_WINDOW, Store
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


class Pusher:
    """Pushes due turns, and tries again while Redis does not take them."""

    def __init__(
        self,
        store: Store,
        broker: WaitingBroker,
        reconnect: Reconnect,
        *,
        on_pushed: Callable[[list[str]], None],
        emit: Emit,
        stopping: threading.Event,
        attempts: int,
    ) -> None:
        """Wire a pusher.

        Parameters:
          on_pushed: receives the conversations whose groups are pushed for the first time.
          stopping: ends every wait.
          attempts: how often a batch is tried before the circuit opens.
        """
        self._store = store
        self._broker = broker
        self._reconnect = reconnect
        self._on_pushed = on_pushed
        self._emit = emit
        self._stopping = stopping
        self._attempts = attempts
        self._probed_at = 0.0
        self._queue_id: str | None = None  # under which the last pass pushed
        self._unreported: set[int] = set()  # turns whose first push has not reached Redis yet

    def push_due(self, beat: Callable[[], None] = lambda: None) -> int:
        """Push until nothing is due or Redis is away; `beat` is called before each batch and each attempt.

        Returns:
          How many turns were taken from PostgreSQL. If they never reach Redis, or Redis loses them, their due times
          bring them back.

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
        """Make due what was pushed under another ID: no worker fetches there any more."""
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
        self._unreported.update(push.turn_id for push in first)
        if not self._enqueue(pushes, first, beat):
            # At most PUSH_WINDOW turns are queued (T9): the rest ended, or another scheduler pushed it again.
            self._unreported = set(sorted(self._unreported)[-PUSH_WINDOW:])
            return
        reached = [push for push in pushes if push.turn_id in self._unreported]
        for push in reached:
            self._emit(TurnPushed(push.turn_id, push.match_id, push.kind))
        self._unreported.difference_update(push.turn_id for push in reached)
        self._on_pushed([push.match_id for push in reached if push.kind is Kind.REPLY])
        recovered = sum(push.recovered for push in pushes)
        repeated = sum(push.step == "compose" and not push.first for push in pushes) - recovered
        if recovered:
            self._emit(TurnsRecovered(recovered, "lease"))
        if repeated:
            self._emit(PushesRepeated(repeated))

    def _report_due(self, first: Sequence[Push]) -> None:
        for push in first:
            if push.kind is Kind.REPLY:
                self._emit(GroupClosed(push.turn_id, push.match_id, push.messages))
            else:
                self._emit(InitiationDue(push.turn_id, push.match_id))

    def _enqueue(self, pushes: Sequence[Push], first: Sequence[Push], beat: Callable[[], None]) -> bool:
        """Make up to `attempts` attempts, and a last one after the last wait; then open the circuit.

        The `first` pushes of turns are reported after the first attempt, which is more urgent than a log line.
        """
        messages = [message_for("compose", push.turn_id) for push in pushes]
        for attempt in range(1, self._attempts + 2):
            beat()  # all attempts may take minutes, and the watchdog must not end the process for an outage of Redis
            error = self._attempt(messages, again=attempt > 1)
            if attempt == 1:
                self._report_due(first)
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
        """Enqueue, on a new connection from the second attempt on; return what went wrong with Redis, if anything."""
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
        """Return whether Redis takes pushes; an open circuit is probed, and closed once Redis takes a write."""
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
        self._store.reset_pushes()  # Redis may have come back empty
        self._reconnect.recovered()  # last: while PostgreSQL is away too, the circuit stays open

    @property
    def waits_for_redis(self) -> bool:
        """Whether the circuit is open: `push_due` then probes Redis, so call it every second."""
        return self._reconnect.is_open
