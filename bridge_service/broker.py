"""A Redis broker whose consumers wait instead of polling, and which trusts Redis with nothing.

Redis carries ids from the scheduler to a worker, quickly; that is all. Every turn's truth and its due time are in
PostgreSQL, so a message may be lost, doubled, late or forged without harm. That allows three simplifications of
Dramatiq's stock broker:

- fetching takes a message out for good; acknowledging does nothing, so it can neither fail nor loop;
- a message delayed by the Retries middleware stays in this process: no copy in Redis to strand;
- consumers block on a *bell*, a list that every push rings, with a connection of their own. No message depends on the
  bell: an unheard push is pushed, and rung, again when its turn is due again.
"""

import heapq
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import redis
import redis.backoff
import redis.retry
from dramatiq import Consumer, Message, MessageProxy, Middleware
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import current_millis, dq_name, q_name
from dramatiq.errors import ConnectionClosed
from redis.maint_notifications import MaintNotificationsConfig

from bridge_service.errors import BadMessage
from bridge_service.events import BadBrokerMessage, Emit, RedisConnected, RedisLost

QUEUE_NAME: Final = "bot_messages"
ACTOR_NAMES: Final = frozenset({"compose", "deliver"})

CALL_SECONDS: Final = 3.0
"""A command that has not answered by then is taken for lost; it may have been carried out all the same."""

BELL_SECONDS: Final = 15
"""How long one blocking wait lasts: two processes spend eight commands a minute on it (R1)."""

BELL_TIMEOUT_SECONDS: Final = 20.0
"""The socket's patience during that wait; a connection that died silently is noticed by it."""

RECONNECT_SECONDS: Final = 1.0
SAY_AGAIN_SECONDS: Final = 10.0
"""How often a consumer repeats that Redis is away."""

INTERRUPT_SECONDS: Final = 2.0
BATCH: Final = 500
_LUA_FOLDER: Final = Path(__file__).parent / "lua"
_BODY_LIMIT: Final = 10_000

BOOT_LOOK_SECONDS: Final = 0.005

T = TypeVar("T")


def connect(url: str, *, timeout: float = CALL_SECONDS) -> redis.Redis:
    """Make a client that tries once and gives up after `timeout` seconds; connects at its first command.

    Attempts are the business of the Reconnect middleware, which tells of each: redis-py's own ten are switched off. So
    are two commands that it greets each server with: CLIENT SETINFO, which Redis before 7.2 does not know, not even in
    an ACL, and CLIENT MAINT_NOTIFICATIONS, by which a server could lengthen the time-outs.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=min(timeout, CALL_SECONDS),
        socket_keepalive=True,
        retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        health_check_interval=0,
        driver_info=None,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )


def redis_call(operation: Callable[[], T]) -> T:
    """Run an operation on Redis; whatever goes wrong there becomes Dramatiq's ConnectionClosed.

    A stalled socket raises redis.TimeoutError, a full or read-only Redis a ResponseError: none of them is a
    redis.ConnectionError, and each would kill a consumer thread for good.
    """
    try:
        return operation()
    except (redis.RedisError, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
        # The last four: redis-py stumbles over a garbled reply in its own code.
        raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]


def _bytes(reply: object) -> bytes:
    if not isinstance(reply, bytes):
        raise TypeError(f"Redis sent a {type(reply).__name__} in place of a message")
    return reply


def message_for(step: str, turn_id: int) -> Message[Any]:
    """Make the message that asks a worker for a turn's step (`compose` or `deliver`)."""
    # One id a step: Redis holds it once at most.
    options = {"redis_message_id": f"{step}:{turn_id}"}
    return Message(queue_name=QUEUE_NAME, actor_name=step, args=(turn_id,), kwargs={}, options=options)


def rebuild(body: bytes, queue_name: str) -> Message[Any]:
    """Read a message from Redis, believing nothing but the turn's id and which of our actors it is for (R2).

    Whoever can write to Redis could otherwise name a foreign queue, which kills the worker's thread, or a pipe target.

    Raises:
      BadMessage: there is no turn id, or the actor is not ours.
    """
    if len(body) > _BODY_LIMIT:
        raise BadMessage(f"a message of {len(body)} bytes")
    try:
        data = json.loads(body)
        step, [turn_id] = data["actor_name"], data["args"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadMessage("not a message of ours") from None
    if not isinstance(step, str) or step not in ACTOR_NAMES:
        raise BadMessage("it names an unknown actor")
    if type(turn_id) is not int or not 0 < turn_id < 2**63:
        raise BadMessage("its argument is not a turn's id")
    return message_for(step, turn_id).copy(queue_name=queue_name)


class WaitingBroker(RedisBroker):
    """Dramatiq's Redis broker with waiting consumers. See the module's docstring."""

    def __init__(self, url: str, *, emit: Emit, middleware: Sequence[Middleware]) -> None:
        """Set up; nothing connects before the first command.

        Parameters:
          url: redis:// or rediss://
          emit: hears of lost connections and of messages that are not understood.
          middleware: in order; this broker adds none of its own.
        """
        super().__init__(client=connect(url), middleware=list(middleware))  # type: ignore[no-untyped-call]
        self.url = url
        self.emit = emit
        self.beat: Callable[[], None] = lambda: None  # each time the consumer turns; for a watchdog
        self.booted: Callable[[], bool] = lambda: True  # whether messages may be handed out; asked until it says yes
        self.draining = threading.Event()
        self.delayed = DelayedMessages()
        self._consumers: list[WaitingConsumer] = []
        self._push = self.client.register_script((_LUA_FOLDER / "push.lua").read_text(encoding="utf-8"))
        self._fetch = self.client.register_script((_LUA_FOLDER / "fetch.lua").read_text(encoding="utf-8"))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Make a consumer; `timeout` is not needed, it waits."""
        del timeout
        if queue_name != q_name(queue_name):
            return DelayConsumer(self, queue_name)
        consumer = WaitingConsumer(self, queue_name, prefetch)
        self._consumers.append(consumer)
        return consumer

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue one message; one with a `delay` (milliseconds) stays in this process until then.

        Raises:
          ConnectionClosed: Redis did not take it, or did and its answer was lost. Enqueue it again.
        """
        if delay is None:
            self.enqueue_many([message])
            return message
        # The traceback that Retries adds may quote a reply.
        options = {name: value for name, value in message.options.items() if name != "traceback"}
        message = message.copy(queue_name=dq_name(q_name(message.queue_name)))
        message.options.clear()
        message.options.update(options)
        self.emit_before("enqueue", message, delay)
        self.delayed.put(current_millis() + delay, message)
        self.emit_after("enqueue", message, delay)
        return message

    def enqueue_many(self, messages: Iterable[Message[Any]]) -> None:
        """Enqueue messages of `QUEUE_NAME` in as few round trips as it takes.

        Raises:
          ConnectionClosed: not all of them were taken, as far as is known. Enqueue all of them again: those that still
            wait in Redis are not doubled.
        """
        waiting = list(messages)
        for start in range(0, len(waiting), BATCH):
            batch = waiting[start : start + BATCH]
            for message in batch:
                self.emit_before("enqueue", message, None)
            arguments = [part for message in batch for part in (_redis_id(message), message.encode())]
            redis_call(lambda arguments=arguments: self._push(keys=self._keys(QUEUE_NAME), args=arguments))  # type: ignore[misc]
            for message in batch:
                self.emit_after("enqueue", message, None)

    def fetch(self, queue_name: str, count: int) -> list[bytes]:
        """Take up to `count` messages out of Redis."""
        return redis_call(lambda: [_bytes(body) for body in self._fetch(keys=self._keys(queue_name), args=[count])])

    def bell(self, queue_name: str) -> str:
        """Name the list on which the consumers of a queue wait."""
        return f"{self.namespace}:{queue_name}.bell"

    def _keys(self, queue_name: str) -> list[str]:
        name = f"{self.namespace}:{queue_name}"
        return [name, f"{name}.msgs", self.bell(queue_name)]

    def _dispatch(self, command: str) -> Callable[..., Any]:
        dispatch = super()._dispatch(command)  # type: ignore[no-untyped-call]
        return lambda *args: redis_call(lambda: dispatch(*args))

    def probe(self) -> None:
        """Write to Redis what a push writes, without a message: a Redis that is full or read-only fails it too.

        Raises:
          ConnectionClosed: it was refused, or there was no answer.
        """
        redis_call(lambda: self._push(keys=self._keys(QUEUE_NAME), args=[]))

    def drop_connections(self) -> None:
        """Forget the pool's connections: after one of them broke, the others are not worth a try."""
        self.client.connection_pool.disconnect()

    def stop_waiting(self) -> None:
        """Wake every consumer for the shutdown: none waits any more, none fetches any more."""
        self.draining.set()
        self.delayed.wake()
        for consumer in self._consumers:
            consumer.interrupt()

    def close(self) -> None:
        """Close all connections."""
        self.stop_waiting()
        self.client.close()


class WaitingConsumer(Consumer):
    """Hands out the messages of one queue: fetches when the bell rang, at the start and after a lost connection."""

    def __init__(self, broker: WaitingBroker, queue_name: str, prefetch: int) -> None:
        self._broker = broker
        self._queue_name = queue_name
        self._prefetch = prefetch
        self._cache: deque[bytes] = deque()
        self._out = 0
        self._hungry = True
        self._booted = False
        self._lost = True  # until the first fetch
        self._say_at = 0.0
        self._blocked = threading.Event()
        self._changed = threading.Condition()
        self._waiting = connect(broker.url, timeout=BELL_TIMEOUT_SECONDS)

    def __next__(self) -> MessageProxy | None:
        """Return a message, or None after a while without one, so that the caller can look whether to stop."""
        self._broker.beat()
        if not self._booted:
            self._booted = self._broker.booted()
            if not self._booted:
                self._pause(BOOT_LOOK_SECONDS)
                return None
        if self._cache:
            return self._hand_out(self._cache.popleft())
        if self._broker.draining.is_set():
            self._pause(0.1)
            return None
        with self._changed:
            room = self._prefetch - self._out
            if room <= 0:
                self._changed.wait(RECONNECT_SECONDS)
                return None
        try:
            if self._hungry:
                self._cache.extend(self._broker.fetch(self._queue_name, room))
                self._hungry = len(self._cache) == room
                self._found()
            else:
                self._hungry = self._hear()
        except ConnectionClosed as error:
            if not self._broker.draining.is_set():
                self._hungry = True  # what was pushed meanwhile rang unheard
                self._lost = True
                self._waiting.connection_pool.disconnect()
                self._broker.drop_connections()
                if time.monotonic() >= self._say_at:
                    self._say_at = time.monotonic() + SAY_AGAIN_SECONDS
                    self._broker.emit(RedisLost(describe(error)))
                self._pause(RECONNECT_SECONDS)
        return None

    def _hear(self) -> bool:
        """Wait for the bell; whether it rang. `interrupt` ends the wait from another thread."""
        self._blocked.set()  # before the look at `draining`: who sets that looks at this afterwards
        try:
            if self._broker.draining.is_set():
                return False
            rung = redis_call(lambda: self._waiting.blpop([self._broker.bell(self._queue_name)], BELL_SECONDS))
        except Exception:
            # A connection that is closed under its feet makes redis-py raise AttributeError, ValueError and others.
            if not self._broker.draining.is_set():
                raise
            return False
        finally:
            self._blocked.clear()
        return rung is not None

    def _found(self) -> None:
        if self._lost:
            self._lost = False
            self._say_at = 0.0
            self._broker.emit(RedisConnected())

    def _hand_out(self, body: bytes) -> MessageProxy | None:
        try:
            message = rebuild(body, self._queue_name)
        except BadMessage as error:
            self._broker.emit(BadBrokerMessage(str(error)))
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
            self._broker.enqueue_many(waiting)
            if self._hungry and not self._lost and not waiting:
                self._broker.probe()  # a bell was heard and not followed: it rings for somebody else
        except ConnectionClosed as error:
            self._broker.emit(RedisLost(describe(error)))

    def interrupt(self) -> None:
        """End a wait under way in another thread."""
        deadline = time.monotonic() + INTERRUPT_SECONDS
        while self._blocked.is_set() and time.monotonic() < deadline:
            # More than once, perhaps: a connection that is only being made is not there to be closed.
            self._waiting.connection_pool.disconnect(inuse_connections=True)
            time.sleep(INTERRUPT_SECONDS / 200)
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Close the consumer's own connection."""
        self._waiting.close()


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

    def __init__(self, broker: WaitingBroker, queue_name: str) -> None:
        self._broker = broker
        self._queue_name = queue_name

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MessageProxy | None:
        """Return a message that is due, or None after a while."""
        message = self._broker.delayed.get(timeout=0.1 if self._broker.draining.is_set() else 1.0)
        return None if message is None else MessageProxy(message.copy(queue_name=self._queue_name))

    def ack(self, message: MessageProxy) -> None:
        """Nothing to do."""

    nack = ack

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Nothing to do: the turns' due times bring them back."""

    def close(self) -> None:
        """Nothing to do."""


def describe(error: BaseException) -> str:
    """Say what happened to Redis in a few words, on one line."""
    cause = error.args[0] if error.args and isinstance(error.args[0], BaseException) else error
    if isinstance(cause, redis.AuthenticationError) and str(cause).startswith("HELLO"):
        return "Authentication required."  # which Redis says at greater length to who begins with HELLO
    return " ".join(str(cause).split()) or type(cause).__name__


def _redis_id(message: Message[Any]) -> str:
    return str(message.options.get("redis_message_id") or f"{message.actor_name}:{message.args[0]}")
