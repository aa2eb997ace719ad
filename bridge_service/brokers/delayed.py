"""Messages that Dramatiq's Retries tries again later: they wait in this process, and Redis holds no copy of them."""

import heapq
import threading
import time
from collections.abc import Iterable
from typing import Any, Self

from dramatiq import Consumer, Message, MessageProxy
from dramatiq.common import current_millis


class DelayedMessages:
    """The messages of this process that are to be tried again later. If the process dies, so do they; no turn does."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Message[Any]]] = []
        self._changed = threading.Condition()
        self._number = 0

    def put(self, eta: int, message: Message[Any]) -> None:
        """Keep a message until `eta`, in milliseconds since the epoch."""
        with self._changed:
            self._number += 1
            heapq.heappush(self._heap, (eta, self._number, message))
            self._changed.notify_all()

    def get(self, timeout: float) -> Message[Any] | None:
        """Return the next message whose time has come, or None after at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                wait = deadline - time.monotonic()
                if self._heap:
                    until = (self._heap[0][0] - current_millis()) / 1000
                    if until <= 0:
                        return heapq.heappop(self._heap)[2]
                    wait = min(wait, until)
                if wait <= 0 or not self._changed.wait(wait):
                    if time.monotonic() >= deadline:
                        return None
                elif not self._heap:
                    return None

    def wake(self) -> None:
        """End a `get` under way."""
        with self._changed:
            self._changed.notify_all()


class DelayConsumer(Consumer):
    """Hands out delayed messages once their time has come; Redis is not asked."""

    def __init__(self, delayed: DelayedMessages, draining: threading.Event, queue_name: str) -> None:
        self._delayed = delayed
        self._draining = draining
        self._queue_name = queue_name

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MessageProxy | None:
        """Return a message that is due, or None after a while."""
        message = self._delayed.get(timeout=0.1 if self._draining.is_set() else 1.0)
        return None if message is None else MessageProxy(message.copy(queue_name=self._queue_name))

    def ack(self, message: MessageProxy) -> None:
        """Nothing to do."""

    nack = ack

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Nothing to do: the turns' due times bring them back."""

    def close(self) -> None:
        """Nothing to do."""
