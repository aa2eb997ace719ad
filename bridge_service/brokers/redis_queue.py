"""The queue in Redis: a list of ids, a hash of their messages, and a list as a bell. Lua scripts push and fetch.

All keys are `dramatiq:{ID}:...`. The braces put the keys of a script into one slot of a cluster, and the ID keeps the
installations apart that share a Redis (see queue_id.py).
"""

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dramatiq import Message, Middleware
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed

from bridge_service.brokers.messages import QUEUE_NAME, redis_id
from bridge_service.brokers.redis_client import connect, redis_call
from bridge_service.telemetry.signals import Emit

OLD_KEYS_SECONDS: Final = 86_400
BATCH: Final = 500
_LUA_FOLDER: Final = Path(__file__).parent / "lua"


class RedisQueue(RedisBroker):
    """Dramatiq's Redis broker with a queue that trusts Redis with nothing: the half that speaks to Redis."""

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
        self.room: Callable[[], int] = lambda: sys.maxsize  # how many turns this process may begin to compose
        self.draining = threading.Event()
        self._ask_queue_id = queue_id
        self._queue_id: str | None = None
        self._push = self.client.register_script((_LUA_FOLDER / "push.lua").read_text(encoding="utf-8"))
        self._fetch = self.client.register_script((_LUA_FOLDER / "fetch.lua").read_text(encoding="utf-8"))

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
            arguments = [part for message in batch for part in (redis_id(message), message.encode())]
            redis_call(lambda arguments=arguments: self._push(keys=self._keys(QUEUE_NAME), args=arguments))  # type: ignore[misc]
            for message in batch:
                self.emit_after("enqueue", message, None)

    def fetch(self, queue_name: str, count: int, *, composing: int | None = None) -> list[bytes]:
        """Take up to `count` messages out of Redis; if `composing` is less, only so many that may be to compose."""
        arguments = [count, count if composing is None else composing]
        return redis_call(lambda: [_bytes(body) for body in self._fetch(keys=self._keys(queue_name), args=arguments)])

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


def _keys(name: str) -> list[str]:
    return [name, f"{name}.msgs", f"{name}.bell"]


def _bytes(reply: object) -> bytes:
    if not isinstance(reply, bytes):
        raise TypeError(f"Redis sent a {type(reply).__name__} in place of a message")
    return reply
