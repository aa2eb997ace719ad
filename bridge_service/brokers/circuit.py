"""Dramatiq's hooks, one concern a class. Retries is Dramatiq's own; these stand beside it."""

import threading
from typing import Any

from dramatiq import Broker, Message, Middleware
from dramatiq.middleware import MiddlewareError

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.redis_client import describe
from bridge_service.telemetry.signals import Emit, RedisAttemptFailed, RedisGivenUp, RedisReconnected


class CircuitOpen(MiddlewareError):
    """Raised instead of waiting for a timeout, when a message is enqueued while Redis is known to be away."""


class Reconnect(Middleware):
    """Owns the circuit to Redis: closed while it answers, open from the last failed attempt until it is back.

    The scheduler's push makes the attempts and reports them here. Each failure drops the pool, so the next attempt
    makes a new connection. Each is told in the contract's words. While the circuit is open nothing is
    enqueued, so a thousand due turns do not each wait for a timeout.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._open = threading.Event()

    @property
    def is_open(self) -> bool:
        """Whether the scheduler has given Redis up for now."""
        return self._open.is_set()

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Refuse at once while the circuit is open."""
        del broker, message, delay
        if self.is_open:
            raise CircuitOpen("Redis is away")

    def failed(self, broker: WaitingBroker, error: BaseException, *, attempt: int, attempts: int) -> None:
        """Note that the `attempt`-th of `attempts` failed."""
        broker.drop_connections()
        self._emit(RedisAttemptFailed(attempt, attempts, describe(error)))

    def give_up(self, *, attempts: int) -> None:
        """Open the circuit, and tell of it once an outage."""
        if not self.is_open:
            self._open.set()
            self._emit(RedisGivenUp(attempts))

    def recovered(self) -> None:
        """Close the circuit."""
        self._open.clear()
        self._emit(RedisReconnected())
