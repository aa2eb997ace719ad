"""A Redis broker whose consumers wait instead of polling, and which trusts Redis with nothing.

Redis carries ids from the scheduler to a worker, quickly; that is all. Every turn's truth and its due time are in
PostgreSQL, so a message may be lost, doubled, late or forged without harm. That allows three simplifications of
Dramatiq's stock broker:

- fetching takes a message out for good; acknowledging does nothing, so it can neither fail nor loop;
- a message delayed by the Retries middleware stays in this process (see `dramatiq_fixes.Retried`);
- each consumer blocks on a *bell*, a list that every push rings, with its own connection. A lost bell delays a turn and
  never loses it: when the turn is due again, the scheduler pushes and rings again.
"""

from collections.abc import Callable, Sequence
from typing import Any

from dramatiq import Consumer, Message, Middleware
from dramatiq.common import q_name

from bridge_service.brokers.consumer import WaitingConsumer
from bridge_service.brokers.dramatiq_fixes import Retried
from bridge_service.brokers.redis_queue import RedisQueue
from bridge_service.telemetry.signals import Emit


class WaitingBroker(RedisQueue):
    """Dramatiq's Redis broker with waiting consumers. See the module's docstring."""

    def __init__(self, url: str, *, emit: Emit, middleware: Sequence[Middleware], queue_id: Callable[[], str]) -> None:
        """Set up; nothing connects before the first command. See `RedisQueue` for the parameters."""
        super().__init__(url, emit=emit, middleware=middleware, queue_id=queue_id)
        self._retried = Retried()
        self._consumers: list[WaitingConsumer] = []

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Make a consumer; `timeout` is not needed, it waits."""
        del timeout
        if queue_name != q_name(queue_name):
            return self._retried
        consumer = WaitingConsumer(self, queue_name, prefetch)
        self._consumers.append(consumer)
        return consumer

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue one message; one with a `delay` (milliseconds) stays in this process, then and thereafter.

        Raises:
          ConnectionClosed: Redis did not take it, or did and its answer was lost. Enqueue it again.
        """
        if delay is not None or self._retried.is_kept(message):
            return self._retried.put(message, delay=delay)
        self.enqueue_many([message])
        return message

    def wake(self) -> None:
        """Let every consumer look how much room there is."""
        for consumer in self._consumers:
            consumer.wake()

    def stop_waiting(self) -> None:
        """Wake every consumer for the shutdown: none waits any more, none fetches any more."""
        self.draining.set()
        for consumer in self._consumers:
            consumer.interrupt()

    def close(self) -> None:
        """Close all connections."""
        self.stop_waiting()
        self._client.close()
