"""A Redis broker whose consumers wait instead of polling, and which trusts Redis with nothing.

Redis carries ids from the scheduler to a worker, quickly; that is all. Every turn's truth and its due time are in
PostgreSQL, so a message may be lost, doubled, late or forged without harm. That allows three simplifications of
Dramatiq's stock broker:

- fetching takes a message out for good; acknowledging does nothing, so it can neither fail nor loop;
- a message delayed by the Retries middleware stays in this process: no copy in Redis to strand;
- consumers block on a *bell*, a list that every push rings, with a connection of their own. No message depends on the
  bell: an unheard push is pushed, and rung, again when its turn is due again.

All keys are `dramatiq:{ID}:...`. The braces put the keys of a script into one slot of a cluster, and the ID keeps the
installations apart that share a Redis (see queue_id.py).
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dramatiq import Consumer, Message, MessageProxy, Middleware
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import current_millis, dq_name, q_name
from dramatiq.errors import ConnectionClosed

from bridge_service.brokers.delayed import DelayConsumer, DelayedMessages
from bridge_service.brokers.redis_client import connect, describe, redis_call
from bridge_service.errors import BadMessage, BridgeError
from bridge_service.telemetry.signals import BadBrokerMessage, Emit, RedisConnected, RedisLost

QUEUE_NAME: Final = "bot_messages"
ACTOR_NAMES: Final = frozenset({"compose", "deliver"})

BELL_SECONDS: Final = 15
"""How long one blocking wait lasts: two processes spend eight commands a minute on it (R1)."""

BELL_TIMEOUT_SECONDS: Final = 20.0
"""The socket's patience during that wait; a connection that died silently is noticed by it."""

RECONNECT_SECONDS: Final = 1.0
SAY_AGAIN_SECONDS: Final = 10.0
"""How often a consumer repeats that Redis is away."""

INTERRUPT_SECONDS: Final = 2.0
OLD_KEYS_SECONDS: Final = 86_400
BATCH: Final = 500
_LUA_FOLDER: Final = Path(__file__).parent / "lua"
_BODY_LIMIT: Final = 10_000

BOOT_LOOK_SECONDS: Final = 0.005


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

    def __init__(self, url: str, *, emit: Emit, middleware: Sequence[Middleware], queue_id: Callable[[], str]) -> None:
        """Set up; nothing connects before the first command.

        Parameters:
          url: redis:// or rediss://
          queue_id: tells the ID in the names of the keys; see queue_id.QueueId. Every command on the queue raises what
            this raises.
          emit: hears of lost connections and of messages that are not understood.
          middleware: in order; this broker adds none of its own.
        """
        self._client = connect(url)
        super().__init__(client=self._client, middleware=list(middleware))  # type: ignore[no-untyped-call]
        self.url = url
        self.emit = emit
        self.beat: Callable[[], None] = lambda: None  # each time the consumer turns; for a watchdog
        self.booted: Callable[[], bool] = lambda: True  # whether messages may be handed out; asked until it says yes
        self.draining = threading.Event()
        self.delayed = DelayedMessages()
        self._ask_queue_id = queue_id
        self._queue_id: str | None = None
        self._consumers: list[WaitingConsumer] = []
        self._push = self.client.register_script((_LUA_FOLDER / "push.lua").read_text(encoding="utf-8"))
        self._fetch = self.client.register_script((_LUA_FOLDER / "fetch.lua").read_text(encoding="utf-8"))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Make a consumer; `timeout` is not needed, it waits."""
        del timeout
        if queue_name != q_name(queue_name):
            return DelayConsumer(self.delayed, self.draining, queue_name)
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

    def queue_id(self) -> str:
        """Return the ID in the names of the keys. If it changed, ring the old bell, so that consumers there ask."""
        before, self._queue_id = self._queue_id, self._ask_queue_id()
        if before not in {None, self._queue_id}:
            with suppress(ConnectionClosed):
                redis_call(lambda: self._push(keys=_keys(f"{self.namespace}:{{{before}}}:{QUEUE_NAME}"), args=[]))
        return self._queue_id

    def key(self, queue_name: str) -> str:
        """Name the list of the ids that wait; the names of the queue's other keys begin with it."""
        return f"{self.namespace}:{{{self.queue_id()}}}:{queue_name}"

    def bell(self, queue_name: str) -> str:
        """Name the list on which the consumers of a queue wait."""
        return _keys(self.key(queue_name))[2]

    def _keys(self, queue_name: str) -> list[str]:
        return _keys(self.key(queue_name))

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
        self._client.go_home()

    def expire_old_keys(self) -> None:
        """Let the keys of version 0.1.0, which had no ID, end by themselves; a process of that version makes new ones.

        Raises:
          ConnectionClosed: there was no answer.
        """
        for key in _keys(f"{self.namespace}:{QUEUE_NAME}"):
            redis_call(lambda key=key: self._client.expire(key, OLD_KEYS_SECONDS))  # type: ignore[misc]

    def stop_waiting(self) -> None:
        """Wake every consumer for the shutdown: none waits any more, none fetches any more."""
        self.draining.set()
        self.delayed.wake()
        for consumer in self._consumers:
            consumer.interrupt()

    def close(self) -> None:
        """Close all connections."""
        self.stop_waiting()
        self._client.close()


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
        self._queue_id: str | None = None  # that of the last look
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
            self._look(room)
        except ConnectionClosed as error:
            if not self._broker.draining.is_set():
                self._hungry = True  # what was pushed meanwhile rang unheard
                self._lost = True
                self._waiting.go_home()
                self._broker.drop_connections()
                if time.monotonic() >= self._say_at:
                    self._say_at = time.monotonic() + SAY_AGAIN_SECONDS
                    self._broker.emit(RedisLost(describe(error)))
                self._pause(RECONNECT_SECONDS)
        return None

    def _look(self, room: int) -> None:
        if not self._knows_queue():
            self._pause(RECONNECT_SECONDS)
        elif self._hungry:
            self._cache.extend(self._broker.fetch(self._queue_name, room))
            self._hungry = len(self._cache) == room
            self._found()
        else:
            self._hungry = self._hear()

    def _knows_queue(self) -> bool:
        """Whether PostgreSQL has told the queue's ID. What waits under a new ID is fetched without a bell."""
        try:
            queue_id = self._broker.queue_id()
        except BridgeError:  # the process tells of PostgreSQL; of Redis it is told here
            if self._lost:
                redis_call(self._broker.client.ping)
                self._found()
            return False
        self._hungry |= queue_id != self._queue_id
        self._queue_id = queue_id
        return True

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
                self._broker.probe()  # this consumer heard a bell and did not follow it: ring it for another one
        except ConnectionClosed as error:
            self._broker.emit(RedisLost(describe(error)))
        except BridgeError:
            return  # the queue's ID was never known, so nothing was fetched

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


def _redis_id(message: Message[Any]) -> str:
    return str(message.options.get("redis_message_id") or f"{message.actor_name}:{message.args[0]}")


def _keys(name: str) -> list[str]:
    return [name, f"{name}.msgs", f"{name}.bell"]
