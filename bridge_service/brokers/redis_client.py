"""Clients of Redis that try once, give up soon, and follow a cluster to the node that holds a key."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import redis
import redis.backoff
import redis.exceptions
import redis.retry
from dramatiq.errors import ConnectionClosed
from redis.crc import key_slot
from redis.maint_notifications import MaintNotificationsConfig

CALL_SECONDS: Final = 3.0
"""A command that has not answered by then is taken for lost; it may have been carried out all the same."""

HOPS: Final = 3
"""How often a command follows MOVED. One is enough, unless the cluster changes meanwhile."""

_SILENT: Final = MaintNotificationsConfig(enabled=False)

T = TypeVar("T")
Command = tuple[str, str, *tuple[str | int, ...]]
"""A command's name, its only key, and the rest."""


class Client(redis.Redis):
    """A client that goes on at the node that MOVED names.

    All keys of the queue lie in one slot, so this client speaks to one node at a time and needs no map of the cluster.
    After a failure `go_home` starts again at the URL's node: the node that MOVED named may be the cause.
    """

    def __init__(self, *args: Any, **named: Any) -> None:  # noqa: ANN401 - redis-py's own signature
        """Make a client; `connect` does."""
        super().__init__(*args, **named)
        self._home = self.connection_pool

    def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's own signature
        """Execute a command, at another node if this one does not hold its key."""
        for _ in range(HOPS):
            try:
                return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
            except redis.exceptions.MovedError as moved:
                self._move(_pool_at(self.connection_pool, moved))
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def go_home(self) -> None:
        """Drop the connections, and speak to the URL's node again."""
        self.connection_pool.disconnect()
        self.connection_pool = self._home
        self._home.disconnect()

    def close(self) -> None:
        """Drop the connections."""
        super().close()
        self._home.disconnect()

    def _move(self, pool: redis.ConnectionPool) -> None:
        # A thread that still speaks to the node before closes its own connection.
        before, self.connection_pool = self.connection_pool, pool
        before.disconnect(inuse_connections=False)


class Nodes:
    """Runs many commands of one key each in few round trips, in a cluster at the nodes that hold the keys."""

    def __init__(self, client: redis.Redis) -> None:
        """Use this client first, and for each slot that no MOVED told of."""
        self._client = client
        self._nodes: dict[tuple[str, int], redis.Redis] = {}
        self._places: dict[int, redis.Redis] = {}  # by slot

    def run(self, commands: Sequence[Command]) -> None:
        """Run the commands; those of one key in their order.

        Raises:
          redis.RedisError, OSError: not all of them were carried out.
        """
        for _ in range(HOPS):
            commands = [moved for node, group in self._by_node(commands) for moved in self._run_at(node, group)]
            if not commands:
                return
        raise redis.exceptions.ClusterError("the cluster moves its slots")

    def forget(self) -> None:
        """Drop all connections, and what was learned of the cluster."""
        for node in (self._client, *self._nodes.values()):
            node.connection_pool.disconnect()
        self._nodes.clear()
        self._places.clear()

    def _by_node(self, commands: Sequence[Command]) -> Iterator[tuple[redis.Redis, list[Command]]]:
        groups: dict[int, tuple[redis.Redis, list[Command]]] = {}
        for command in commands:
            place = self._places.get(key_slot(command[1].encode()), self._client) if self._places else self._client
            groups.setdefault(id(place), (place, []))[1].append(command)
        yield from groups.values()

    def _run_at(self, node: redis.Redis, commands: Sequence[Command]) -> Iterator[Command]:
        with node.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            answers = pipeline.execute(raise_on_error=False)
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, redis.exceptions.MovedError):
                self._places[answer.slot_id] = self._node(answer)
                yield command
            elif isinstance(answer, Exception):
                raise answer

    def _node(self, moved: redis.exceptions.MovedError) -> redis.Redis:
        address = (moved.host, moved.port)
        if address not in self._nodes:
            self._nodes[address] = redis.Redis(connection_pool=_pool_at(self._client.connection_pool, moved))
        return self._nodes[address]


def _pool_at(pool: redis.ConnectionPool, moved: redis.exceptions.MovedError) -> redis.ConnectionPool:
    """Return a pool of connections like these to the node that MOVED names; without a host it is the same host."""
    host = pool.connection_kwargs.get("host") if moved.host in {"", "?"} else moved.host
    there = {**pool.connection_kwargs, "host": host, "port": moved.port, "maint_notifications_config": _SILENT}
    return redis.ConnectionPool(pool.connection_class, pool.max_connections, **there)


def connect(url: str, *, timeout: float = CALL_SECONDS) -> Client:
    """Make a client that tries once and gives up after `timeout` seconds; connects at its first command.

    The Reconnect middleware tells of each attempt, so redis-py's own ten are switched off. So are two commands that
    redis-py sends to each server first: CLIENT SETINFO, which Redis before 7.2 does not know, not even in an ACL, and
    CLIENT MAINT_NOTIFICATIONS, by which a server could lengthen the time-outs.
    """
    client = Client.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=min(timeout, CALL_SECONDS),
        socket_keepalive=True,
        retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        health_check_interval=0,
        driver_info=None,
        maint_notifications_config=_SILENT,
    )
    assert isinstance(client, Client)  # noqa: S101 - redis-py's types do not know that `from_url` makes this class
    return client


def redis_call(operation: Callable[[], T]) -> T:
    """Run an operation on Redis; whatever goes wrong there becomes Dramatiq's ConnectionClosed.

    A stalled socket raises redis.TimeoutError, a full or read-only Redis a ResponseError. Dramatiq expects only
    redis.ConnectionError, and takes each other one for an unexpected error of its consumer (its issue 894).
    """
    try:
        return operation()
    except (redis.RedisError, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
        # The last four: redis-py stumbles over a garbled reply in its own code.
        raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]


def describe(error: BaseException) -> str:
    """Say what happened to Redis in a few words, on one line."""
    cause = error.args[0] if error.args and isinstance(error.args[0], BaseException) else error
    if isinstance(cause, redis.AuthenticationError) and str(cause).startswith("HELLO"):
        return "Authentication required."  # which Redis says at greater length to a client that begins with HELLO
    return " ".join(str(cause).split()) or type(cause).__name__
