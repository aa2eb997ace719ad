"""The consumer that Dramatiq's consumer thread asks for messages: it waits for a bell instead of polling."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from dramatiq import Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed

from bridge_service.brokers.messages import message_for, rebuild
from bridge_service.brokers.redis_client import connect, describe, redis_call
from bridge_service.brokers.redis_queue import RedisQueue
from bridge_service.errors import BadMessage, BridgeError
from bridge_service.telemetry.signals import BadBrokerMessage, RedisConnected, RedisLost

BELL_SECONDS: Final = 15
"""How long one blocking wait lasts: two processes spend eight commands a minute on it (R1)."""

BELL_TIMEOUT_SECONDS: Final = 20.0
"""The socket's timeout during that wait: it notices a connection that died silently."""

RECONNECT_SECONDS: Final = 1.0
SAY_AGAIN_SECONDS: Final = 10.0
"""How often a consumer repeats that Redis is away."""

INTERRUPT_SECONDS: Final = 2.0
BOOT_LOOK_SECONDS: Final = 0.005


class WaitingConsumer(Consumer):
    """Hands out the messages of one queue: fetches when the bell rang, at the start and after a lost connection."""

    def __init__(self, queue: RedisQueue, queue_name: str, prefetch: int) -> None:
        self._queue = queue
        self._queue_name = queue_name
        self._prefetch = prefetch
        self._cache: deque[bytes] = deque()
        self._out = 0
        self._hungry = True
        self._booted = False
        self._queue_id: str | None = None  # that of the last look
        self._lost = True  # until the first fetch
        self._say_at = 0.0
        self._blocked = threading.Event()
        self._changed = threading.Condition()
        self._waiting = connect(queue.url, timeout=BELL_TIMEOUT_SECONDS)

    def __next__(self) -> MessageProxy | None:
        """Return a message, or None after a while without one, so that the caller can look whether to stop."""
        self._queue.beat()
        if not self._booted:
            self._booted = self._queue.booted()
            if not self._booted:
                self._pause(BOOT_LOOK_SECONDS)
                return None
        if self._cache:
            return self._hand_out(self._cache.popleft())
        if self._queue.draining.is_set():
            self._pause(0.1)
            return None
        with self._changed:
            room = self._prefetch - self._out
            composing = min(room, self._queue.room() - self._out)
            if composing <= 0 and (self._changed.wait(RECONNECT_SECONDS) or room <= 0):
                return None
        try:
            self._look(room, max(0, composing))
        except ConnectionClosed as error:
            if not self._queue.draining.is_set():
                self._hungry = True  # no bell was heard for what was pushed meanwhile
                self._lost = True
                self._waiting.go_home()
                self._queue.drop_connections()
                if time.monotonic() >= self._say_at:
                    self._say_at = time.monotonic() + SAY_AGAIN_SECONDS
                    self._queue.emit(RedisLost(describe(error)))
                self._pause(RECONNECT_SECONDS)
        return None

    def _look(self, room: int, composing: int) -> None:
        if not self._knows_queue():
            self._pause(RECONNECT_SECONDS)
        elif self._hungry or not composing:  # without room to compose it leaves the bell to another process
            self._cache.extend(self._queue.fetch(self._queue_name, room, composing=composing))
            self._hungry = len(self._cache) >= composing
            self._found()
        else:
            self._hungry = self._hear()

    def _knows_queue(self) -> bool:
        """Tell whether PostgreSQL has told the queue's ID. What waits under a new ID is fetched without a bell."""
        try:
            queue_id = self._queue.queue_id()
        except BridgeError:  # the process tells of PostgreSQL; of Redis it is told here
            if self._lost:
                redis_call(self._queue.client.ping)
                self._found()
            return False
        self._hungry |= queue_id != self._queue_id
        self._queue_id = queue_id
        return True

    def _hear(self) -> bool:
        """Wait for the bell and tell whether it rang. `interrupt` ends the wait from another thread."""
        self._blocked.set()  # before the look at `draining`, which `stop_waiting` sets before it looks at this
        try:
            if self._queue.draining.is_set():
                return False
            rung = redis_call(lambda: self._waiting.blpop([self._queue.bell(self._queue_name)], BELL_SECONDS))
        except Exception:
            # redis-py raises AttributeError, ValueError and others if another thread closes its connection.
            if not self._queue.draining.is_set():
                raise
            return False
        finally:
            self._blocked.clear()
        return rung is not None

    def _found(self) -> None:
        if self._lost:
            self._lost = False
            self._say_at = 0.0
            self._queue.emit(RedisConnected())

    def _hand_out(self, body: bytes) -> MessageProxy | None:
        try:
            message = rebuild(body, self._queue_name)
        except BadMessage as error:
            self._queue.emit(BadBrokerMessage(str(error)))
            return None
        with self._changed:
            self._out += 1
        return MessageProxy(message)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait(seconds)

    def ack(self, message: MessageProxy) -> None:
        """Note that a worker is done with a message; Redis has forgotten it long ago."""
        del message
        with self._changed:
            self._out -= 1
            self._changed.notify_all()

    nack = ack  # the turn's row is the dead letter

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give back what was fetched and not begun, for another worker; if Redis is away, the due times do it."""
        waiting = [message_for(message.actor_name, message.args[0]) for message in messages]
        while self._cache:
            proxy = self._hand_out(self._cache.popleft())
            if proxy is not None:
                waiting.append(message_for(proxy.actor_name, proxy.args[0]))
        try:
            self._queue.enqueue_many(waiting)
            if self._hungry and not self._lost and not waiting:
                self._queue.probe()  # this consumer heard a bell and did not follow it: ring it for another one
        except ConnectionClosed as error:
            self._queue.emit(RedisLost(describe(error)))
        except BridgeError:
            return  # the queue's ID was never known, so nothing was fetched

    def wake(self) -> None:
        """End a wait for room."""
        with self._changed:
            self._changed.notify_all()

    def interrupt(self) -> None:
        """End a wait under way in another thread."""
        deadline = time.monotonic() + INTERRUPT_SECONDS
        while self._blocked.is_set() and time.monotonic() < deadline:
            # Repeated, since a connection that is still being made cannot be closed.
            self._waiting.connection_pool.disconnect(inuse_connections=True)
            time.sleep(INTERRUPT_SECONDS / 200)
        self.wake()

    def close(self) -> None:
        """Close the consumer's own connection."""
        self._waiting.close()
