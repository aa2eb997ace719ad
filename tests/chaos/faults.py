"""The kinds of fault. Each is a small class: `inject` does it, `again` repeats it meanwhile, `heal` undoes it.

A fault does not know of the others: the nemesis never plays two at once whose `target` is the same. Everything that
chance decides comes from the random numbers a fault is given.
"""

# ruff: noqa: D101, D102 - `Fault` says what inject, again and heal do; a class without a docstring is its base on one link

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
import time
from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final

import psutil
import psycopg2
import redis

from bridge_service.demo.servers import ServerFailed
from bridge_service.machine.steps import LEASE_SECONDS
from tests.chaos import responder
from tests.chaos.crew import send
from tests.chaos.proxy import FINE, Way, Weather
from tests.chaos.stage import DATABASE
from tests.support.roles import SERVICE

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 names as a function

    from tests.chaos.proxy import Proxy
    from tests.chaos.stage import Stage

_START_ATTEMPTS: Final = 3


class Target(Enum):
    """What a fault touches; one at a time each. The value is the lane's name in the picture."""

    REDIS = "Redis"
    REDIS_LINK = "link to Redis"
    POSTGRES = "PostgreSQL"
    POSTGRES_LINK = "link to PostgreSQL"
    WORKER = "worker"
    SCHEDULER = "scheduler"
    RESPONDER = "responder"
    MODEL = "model"
    MODEL_LINK = "link to the model"


class Fault(ABC):
    """One fault on one stage.

    Class attributes:
      name: as on the command line.
      target: what it touches.
      seconds: how long it lasts, from and to.
      every: seconds between two calls of `again`; None: it is not repeated.
      freezes_postgres: whether PostgreSQL as a whole stands still meanwhile.
    """

    name: ClassVar[str]
    target: ClassVar[Target]
    seconds: ClassVar[tuple[float, float]] = (2.0, 4.0)
    every: ClassVar[float | None] = None
    freezes_postgres: ClassVar[bool] = False

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        self.stage = stage
        self.rng = rng

    @abstractmethod
    def inject(self) -> None:
        """Begin."""

    def again(self) -> None:
        """Do it once more, if `every` says so."""
        self.inject()

    def heal(self) -> None:  # noqa: B027 - many faults are over by themselves
        """End, and leave everything as it was before."""


# --- Redis -----------------------------------------------------------------------------------------------------------


class RedisFault(Fault):
    """Something done to the Redis server itself."""

    target = Target.REDIS

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        super().__init__(stage, rng)
        self.client = stage.redis_client()
        self.queue, self.bodies, self.bell = stage.queue, f"{stage.queue}.msgs", f"{stage.queue}.bell"

    def config(self, name: str, value: str) -> None:
        """Set a parameter."""
        self.client.config_set(name, value)

    def drop_clients(self) -> None:
        """Close every connection but our own."""
        self.client.client_kill_filter(_type="normal", skipme=True)


class RedisKill(RedisFault):
    """SIGKILL; it comes back with what it had written to its log by then."""

    name = "redis-kill"

    def inject(self) -> None:
        self.stage.redis.kill()

    def heal(self) -> None:
        _start(self.stage.redis)


class RedisKillEmpty(RedisKill):
    """SIGKILL; it comes back with nothing, as one without persistence does."""

    name = "redis-kill-empty"

    def heal(self) -> None:
        shutil.rmtree(self.stage.redis.directory / "appendonlydir", ignore_errors=True)
        super().heal()


class RedisRestart(RedisFault):
    """Stopped and started in good order, at once."""

    name = "redis-restart"
    seconds = (0.5, 1.5)

    def inject(self) -> None:
        self.stage.redis.stop()
        _start(self.stage.redis)


class RedisFlush(RedisFault):
    """FLUSHALL, again and again."""

    name = "redis-flush"
    every = 0.15

    def inject(self) -> None:
        self.client.flushall()


class RedisDropQueue(RedisFault):
    """The queue's list is deleted, the bodies stay."""

    name = "redis-drop-queue"
    every = 0.1
    part: ClassVar[str] = ""

    def inject(self) -> None:
        self.client.delete(f"{self.queue}{self.part}")


class RedisDropBodies(RedisDropQueue):
    """The bodies are deleted, the queue's list stays."""

    name = "redis-drop-bodies"
    part = ".msgs"


class RedisDropBell(RedisDropQueue):
    """The bell is deleted before anybody hears it."""

    name = "redis-drop-bell"
    part = ".bell"


class RedisDropClients(RedisFault):
    """CLIENT KILL of all, again and again."""

    name = "redis-drop-clients"
    every = 0.3

    def inject(self) -> None:
        self.drop_clients()


class RedisFull(RedisFault):
    """No memory left: reads work, writes fail with OOM."""

    name = "redis-full"

    def inject(self) -> None:
        self.config("maxmemory", "1")

    def heal(self) -> None:
        self.config("maxmemory", "0")


class RedisReadOnly(RedisFault):
    """It believes to be the replica of an unreachable master: writes fail with READONLY."""

    name = "redis-read-only"

    def inject(self) -> None:
        self.client.replicaof("127.0.0.1", "1")

    def heal(self) -> None:
        self.client.replicaof("NO", "ONE")


class RedisFreeze(RedisFault):
    """SIGSTOP: connections stay, nothing answers."""

    name = "redis-freeze"
    seconds = (4.0, 8.0)

    def inject(self) -> None:
        send(_family(self.stage.redis), signal.SIGSTOP)

    def heal(self) -> None:
        send(_family(self.stage.redis), signal.SIGCONT)


class RedisBusy(RedisFault):
    """A script that does not end: everybody else is told BUSY."""

    name = "redis-busy"

    def inject(self) -> None:
        client = self.stage.redis_client(timeout=60)

        def run() -> None:
            with contextlib.suppress(redis.RedisError):
                client.eval("while true do end", 0)

        threading.Thread(target=run, name=self.name, daemon=True).start()

    def heal(self) -> None:
        with contextlib.suppress(redis.ResponseError):
            self.client.script_kill()


class RedisPassword(RedisFault):
    """A password is set that nobody knows."""

    name = "redis-password"
    password: ClassVar[str] = "unknown"

    def inject(self) -> None:
        self.config("requirepass", self.password)
        self.client = self.stage.redis_client(password=self.password)
        self.drop_clients()

    def heal(self) -> None:
        self.config("requirepass", "")


class RedisTooManyClients(RedisFault):
    """Nobody else is let in."""

    name = "redis-too-many-clients"

    def inject(self) -> None:
        self.client = self.stage.redis_client()
        self.client.ping()  # ours is the one that stays
        self.config("maxclients", "1")
        self.drop_clients()

    def heal(self) -> None:
        self.config("maxclients", "10000")


class RedisForgetScripts(RedisFault):
    """SCRIPT FLUSH, again and again."""

    name = "redis-forget-scripts"
    every = 0.2

    def inject(self) -> None:
        self.client.script_flush()


class RedisJunk(RedisFault):
    """Whoever can write to Redis pushes nonsense and malice into the queue."""

    name = "redis-junk"
    every = 0.3

    def inject(self) -> None:
        with self.client.pipeline() as pipeline:
            for number, body in enumerate(self._bodies()):
                pipeline.hset(self.bodies, f"junk:{number}", body)
                pipeline.rpush(self.queue, f"junk:{number}")
            pipeline.rpush(self.queue, "no body", b"\xff\xfe", b"")
            pipeline.hset(self.bodies, "no place", "{}")
            pipeline.lpush(self.bell, *["ring"] * 50)
            pipeline.execute()

    def _bodies(self) -> list[bytes]:
        turn = self.rng.randint(1, 50)
        message: dict[str, Any] = {
            "queue_name": "bot_messages",
            "actor_name": "compose",
            "args": [turn],
            "kwargs": {},
            "options": {},
            "message_id": "junk",
            "message_timestamp": 0,
        }
        changes: list[dict[str, Any]] = [
            {"queue_name": "foreign"},
            {"queue_name": "bot_messages.DQ"},
            {"actor_name": "nobody"},
            {"actor_name": ["compose"]},
            {"args": []},
            {"args": ["1"]},
            {"args": [True]},
            {"args": [-1]},
            {"args": [2**70]},
            {"args": [1.5]},
            {"args": [2**62]},
            {"kwargs": {"turn_id": 1}},
            {"options": {"pipe_target": message, "retries": 10**6, "eta": 10**18, "redis_message_id": "x"}},
        ]
        forged = [json.dumps({**message, **change}).encode() for change in changes]
        return [
            *forged,
            *(b"", b"{", b"null", b"[]", b"\x80\x04\x95", b"\xff" * 100, b"[" * 100_000, b'"' + b"x" * 200_000 + b'"'),
        ]


class RedisDoubled(RedisFault):
    """Every step of every recent turn is pushed again, early, late and twice."""

    name = "redis-doubled"
    every = 0.3

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        super().__init__(stage, rng)
        self._last = 60

    def inject(self) -> None:
        with (
            contextlib.suppress(
                psycopg2.OperationalError
            ),  # another fault may have it: then the last known turns will do
            self.stage.admin() as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT coalesce(max(id), 0) FROM bridge.turns")
            [[self._last]] = cursor.fetchall()
        with self.client.pipeline() as pipeline:
            for turn in range(max(1, self._last - 60), self._last + 3):
                for step in ("compose", "deliver", "deliver", "compose"):
                    forged = f"{step}:{turn}:{self.rng.random()}"
                    body: dict[str, Any] = {
                        "queue_name": "bot_messages",
                        "actor_name": step,
                        "args": [turn],
                        "kwargs": {},
                    }
                    pipeline.hset(self.bodies, forged, json.dumps(body))
                    pipeline.rpush(self.queue, forged)
            pipeline.lpush(self.bell, *["ring"] * 4)
            pipeline.execute()


class RedisWrongType(RedisFault):
    """The queue's keys hold something else than what they are for, and nobody repairs them."""

    name = "redis-wrong-type"

    def inject(self) -> None:
        with self.client.pipeline() as pipeline:
            for key in (self.queue, self.bodies, self.bell):
                pipeline.delete(key)
                pipeline.set(key, "confused")
            pipeline.execute()


# --- the links -------------------------------------------------------------------------------------------------------


class LinkFault(Fault):
    """Something on the way from both processes to a server."""

    @property
    def link(self) -> Proxy:
        """The proxy on that way."""
        links = {Target.REDIS_LINK: self.stage.redis_link, Target.POSTGRES_LINK: self.stage.postgres_link}
        return links.get(self.target) or self.stage.model_link

    def heal(self) -> None:
        self.link.set(FINE)


class Cut(LinkFault):
    """All connections are reset, again and again."""

    every = 0.4

    def inject(self) -> None:
        self.link.cut()


class Refuse(LinkFault):
    """Nobody listens, and connections are reset."""

    def inject(self) -> None:
        self.link.set(Weather(refuse=True))
        self.link.cut()


class Stall(LinkFault):
    """A black hole in both directions. What was sent arrives afterwards, or never."""

    seconds = (4.0, 9.0)
    stalled: ClassVar[frozenset[Way]] = frozenset(Way)

    def inject(self) -> None:
        self.link.set(Weather(stalled=self.stalled))

    def heal(self) -> None:
        if self.rng.random() < 0.5:  # what is on its way is lost as often as it arrives
            self.link.cut()
        super().heal()


class StallAnswers(Stall):
    """Requests arrive and are carried out; no answer comes."""

    stalled = frozenset({Way.ANSWERS})


class Slow(LinkFault):
    """Every piece of data takes its time."""

    seconds = (3.0, 6.0)

    def inject(self) -> None:
        self.link.set(Weather(latency=self.rng.uniform(0.05, 0.3), rate=self.rng.choice((20_000.0, 200_000.0))))


class HalfClose(LinkFault):
    """The server's side of every connection ends, again and again, and the other side is still open."""

    every = 0.5

    def inject(self) -> None:
        self.link.half_close()


class CutMidMessage(LinkFault):
    """Each connection is reset after so many bytes, in the middle of a message."""

    every = 0.3

    def inject(self) -> None:
        way = self.rng.choice(list(Way))
        self.link.set(Weather(limits={way: int(2 ** self.rng.uniform(0, 11))}))


class RedisCut(Cut):
    name, target = "redis-cut", Target.REDIS_LINK


class RedisRefuse(Refuse):
    name, target = "redis-refuse", Target.REDIS_LINK


class RedisStall(Stall):
    name, target = "redis-stall", Target.REDIS_LINK


class RedisStallAnswers(StallAnswers):
    name, target = "redis-stall-answers", Target.REDIS_LINK


class RedisSlow(Slow):
    name, target = "redis-slow", Target.REDIS_LINK


class RedisHalfClose(HalfClose):
    name, target = "redis-half-close", Target.REDIS_LINK


class RedisCutMidMessage(CutMidMessage):
    name, target = "redis-cut-mid-message", Target.REDIS_LINK


class RedisGarbage(LinkFault):
    """Redis answers nonsense: broken protocol, answers of another type, answers to other questions."""

    name, target = "redis-garbage", Target.REDIS_LINK

    def inject(self) -> None:
        self.link.set(Weather(garble=self._garble))

    def heal(self) -> None:
        self.link.cut()  # a connection that has lost count would answer the wrong question for ever
        super().heal()

    def _garble(self, answer: bytes) -> bytes:
        return self.rng.choice((
            b"\x00\xff\x13garbage\r\n",
            b"-ERR nonsense\r\n",
            b"+PONG\r\n",
            b":7\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"*2\r\n$1\r\nx\r\n:3\r\n",
            b"$12\r\nnot a message",
            b"%1\r\n+a\r\n+b\r\n",
            answer + b"+OK\r\n",
            answer[: len(answer) // 2] + b"\r\n",
            answer[::-1],
            answer,
        ))  # fmt: skip


class PostgresCut(Cut):
    name, target = "postgres-cut", Target.POSTGRES_LINK


class PostgresRefuse(Refuse):
    name, target = "postgres-refuse", Target.POSTGRES_LINK


class PostgresStall(Stall):
    name, target = "postgres-stall", Target.POSTGRES_LINK


class PostgresStallAnswers(StallAnswers):
    name, target = "postgres-stall-answers", Target.POSTGRES_LINK


class PostgresSlow(Slow):
    name, target = "postgres-slow", Target.POSTGRES_LINK


class PostgresHalfClose(HalfClose):
    name, target = "postgres-half-close", Target.POSTGRES_LINK


class PostgresCutMidMessage(CutMidMessage):
    name, target = "postgres-cut-mid-message", Target.POSTGRES_LINK


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


class PostgresFault(Fault):
    """Something done to the PostgreSQL server itself."""

    target = Target.POSTGRES

    def run(self, statement: str, *parameters: object) -> None:
        """Run a statement as the superuser."""
        with self.stage.admin() as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)

    def drop_bridge(self, application: str = "%") -> None:
        """Terminate the service's backends whose application name is like this."""
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND application_name LIKE %s",
            SERVICE,
            application,
        )


class PostgresKill(PostgresFault):
    """SIGKILL of all its processes; it recovers from its log."""

    name = "postgres-kill"

    def inject(self) -> None:
        self.stage.postgres.kill()

    def heal(self) -> None:
        _start(self.stage.postgres)


class PostgresRestart(PostgresFault):
    """A fast shutdown and a start, at once."""

    name = "postgres-restart"
    seconds = (0.5, 1.5)

    def inject(self) -> None:
        self.stage.postgres.stop()
        _start(self.stage.postgres)


class PostgresFreeze(PostgresFault):
    """SIGSTOP of all its processes."""

    name = "postgres-freeze"
    seconds = (4.0, 9.0)
    freezes_postgres = True

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        super().__init__(stage, rng)
        self._frozen: list[int] = []

    def inject(self) -> None:
        self._frozen = _family(self.stage.postgres)
        send(self._frozen, signal.SIGSTOP)

    def heal(self) -> None:
        send(self._frozen, signal.SIGCONT)


class PostgresCrash(PostgresFault):
    """One of the service's backends dies of SIGKILL, so PostgreSQL ends all sessions and recovers."""

    name = "postgres-crash"
    seconds = (0.5, 1.0)

    def inject(self) -> None:
        with self.stage.admin() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pid FROM pg_stat_activity WHERE usename = %s", (SERVICE,))
            backends = [pid for (pid,) in cursor.fetchall()]
        if backends:
            send([self.rng.choice(backends)], signal.SIGKILL)

    def heal(self) -> None:
        _until_answering(self.stage)


class PostgresDropListener(PostgresFault):
    """The listener's backend is terminated, again and again."""

    name = "postgres-drop-listener"
    every = 0.7

    def inject(self) -> None:
        self.drop_bridge("%listener%")


class PostgresDropBridge(PostgresFault):
    """All of the service's backends are terminated, again and again."""

    name = "postgres-drop-bridge"
    every = 0.3

    def inject(self) -> None:
        self.drop_bridge()


class PostgresReadOnly(PostgresFault):
    """The server takes no writes, as a standby after a failover does."""

    name = "postgres-read-only"

    def inject(self) -> None:
        self.run("ALTER SYSTEM SET default_transaction_read_only = on")
        self.run("SELECT pg_reload_conf()")

    def heal(self) -> None:
        self.run("ALTER SYSTEM RESET default_transaction_read_only")
        self.run("SELECT pg_reload_conf()")


class PostgresRoleLimit(PostgresFault):
    """The service's role may not connect any more, and its backends are terminated."""

    name = "postgres-role-limit"

    def inject(self) -> None:
        self.run(f"ALTER ROLE {SERVICE} CONNECTION LIMIT 0")
        self.drop_bridge()

    def heal(self) -> None:
        self.run(f"ALTER ROLE {SERVICE} CONNECTION LIMIT -1")


class PostgresSlots(PostgresFault):
    """A crowd of strangers eats all connections."""

    name = "postgres-slots"
    every = 0.2

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        super().__init__(stage, rng)
        self._strangers: list[Connection] = []

    def inject(self) -> None:
        self.run("DO $$ BEGIN CREATE ROLE stranger LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
        self.again()
        self.drop_bridge()
        self.again()

    def again(self) -> None:
        with contextlib.suppress(psycopg2.OperationalError):
            while True:
                self._strangers.append(psycopg2.connect(self.stage.postgres.url(DATABASE, "stranger")))

    def heal(self) -> None:
        for stranger in self._strangers:
            stranger.close()


class HeldTransaction(PostgresFault):
    """Somebody's transaction that stays open for a while."""

    seconds = (3.0, 5.0)
    statements: ClassVar[tuple[str, ...]]

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        super().__init__(stage, rng)
        self._connection: Connection | None = None

    def inject(self) -> None:
        self._connection = psycopg2.connect(self.stage.admin_url)
        with self._connection.cursor() as cursor:
            for statement in self.statements:
                cursor.execute(statement)

    def heal(self) -> None:
        if self._connection is not None:
            self._connection.close()


class PostgresRowLocks(HeldTransaction):
    """An app's transaction holds rows of the conversations that are alive."""

    name = "postgres-row-locks"
    statements = (
        "SELECT 1 FROM matches ORDER BY created_at DESC LIMIT 20 FOR UPDATE",
        "SELECT 1 FROM messages ORDER BY created_at DESC LIMIT 200 FOR UPDATE",
    )


class PostgresTableLock(HeldTransaction):
    """Somebody builds an index: nobody may write messages."""

    name = "postgres-table-lock"
    statements = ("LOCK TABLE messages IN SHARE MODE",)


class PostgresTurnLocks(HeldTransaction):
    """An operator has forgotten to commit: every turn and every event is locked."""

    name = "postgres-turn-locks"
    statements = ("SELECT 1 FROM bridge.events FOR UPDATE", "SELECT 1 FROM bridge.turns FOR UPDATE")


class PostgresSnapshot(HeldTransaction):
    """A long-running report holds its snapshot, so nothing can be cleaned up."""

    name = "postgres-snapshot"
    seconds = (15.0, 20.0)
    statements = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM messages")


class PostgresRoleSettings(PostgresFault):
    """Somebody gives the service's role settings that would break it, and its backends are terminated."""

    name = "postgres-role-settings"
    settings: ClassVar[dict[str, str]] = {
        "statement_timeout": "1ms",
        "lock_timeout": "1ms",
        "idle_session_timeout": "200ms",
        "default_transaction_isolation": "serializable",
        "search_path": "nowhere",
    }

    def inject(self) -> None:
        for name, value in self.settings.items():
            self.run(f"ALTER ROLE {SERVICE} SET {name} = '{value}'")
        self.drop_bridge()

    def heal(self) -> None:
        self.run(f"ALTER ROLE {SERVICE} RESET ALL")
        self.drop_bridge()


class PostgresNoRights(PostgresFault):
    """Somebody takes the service's rights away."""

    name = "postgres-no-rights"

    def inject(self) -> None:
        self.run(f"REVOKE ALL ON ALL FUNCTIONS IN SCHEMA bridge FROM {SERVICE}")
        if self.rng.random() < 0.5:
            self.run(f"REVOKE ALL ON SCHEMA bridge FROM {SERVICE}")

    def heal(self) -> None:
        self.stage.migrate()


class PostgresForged(PostgresFault):
    """Strangers notify: nonsense, unknown ids, and true ids at the wrong time."""

    name = "postgres-forged"
    every = 0.2

    def inject(self) -> None:
        unknown = "00000000-0000-4000-8000-000000000000"
        payloads = ["", "x", "{}", "[]", "null", '{"match_id": 1}', '{"id": "x"}', "x" * 7900, "[" * 5000]
        payloads += [
            json.dumps({"match_id": unknown, "message_id": unknown}),
            json.dumps({"id": unknown}),
        ]
        with self.stage.admin() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT match_id::text, id::text FROM messages ORDER BY created_at DESC LIMIT 3")
            known = [{"match_id": match, "message_id": message, "id": match} for match, message in cursor.fetchall()]
            for payload in (*payloads, *map(json.dumps, known)):
                for channel in ("bot_events", "new_match", "bridge_due"):
                    cursor.execute("SELECT pg_notify(%s, %s)", (channel, payload))


class PostgresNotifyFull(PostgresFault):
    """Somebody listens and never reads, and the notification queue is full: every NOTIFY fails its COMMIT."""

    name = "postgres-notify-full"
    seconds = (5.0, 8.0)
    every = 0.5
    # A real queue takes a minute to fill: whoever rang while it was half empty has committed long before it is full.
    patience: ClassVar[float] = 2.5

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        super().__init__(stage, rng)
        self._deaf: Connection | None = None

    def inject(self) -> None:
        self._deaf = psycopg2.connect(self.stage.admin_url)
        with self._deaf.cursor() as cursor:
            cursor.execute("LISTEN nobody")
            self._deaf.commit()
            cursor.execute("SELECT 1")  # in a transaction from here on: nothing is read out of the queue
        self._fill(0.6)
        time.sleep(self.patience)
        self.again()

    def again(self) -> None:
        with contextlib.suppress(psycopg2.errors.ProgramLimitExceeded):
            self._fill(2.0)

    def _fill(self, share: float) -> None:
        with self.stage.admin() as connection, connection.cursor() as cursor:
            usage = 0.0
            while usage < share:
                cursor.execute("SELECT pg_notify('nobody', repeat('x', 7000) || random())")
                cursor.execute("SELECT pg_notification_queue_usage()")
                [[usage]] = cursor.fetchall()

    def heal(self) -> None:
        if self._deaf is not None:
            self._deaf.close()


class PostgresMigrate(PostgresFault):
    """The bridge is installed again under load, with every function laid anew."""

    name = "postgres-migrate"
    every = 1.0

    def inject(self) -> None:
        self.run("UPDATE bridge.laid_functions SET digest = 'old'")
        self.stage.migrate()


# --- the processes ---------------------------------------------------------------------------------------------------


class CrewFault(Fault):
    """Something done to the service's processes."""

    seconds = (1.0, 2.0)

    @property
    def role(self) -> str:
        """The role that is hit."""
        return self.target.value


class WorkerKillChild(CrewFault):
    """SIGKILL of one of the worker's children; its parent ends the others."""

    name, target = "worker-kill-child", Target.WORKER

    def inject(self) -> None:
        children = self.stage.crew.children(self.role)
        if children:
            send([self.rng.choice(children)], signal.SIGKILL)


class WorkerKillAll(CrewFault):
    """SIGKILL of the worker and all its children at once."""

    name, target = "worker-kill-all", Target.WORKER

    def inject(self) -> None:
        send(self.stage.crew.everyone(self.role), signal.SIGKILL)


class WorkerKillParent(CrewFault):
    """SIGKILL of the worker's parent: its children notice within a second and drain, beside the new ones."""

    name, target = "worker-kill-parent", Target.WORKER
    seconds = (5.0, 8.0)

    def inject(self) -> None:
        leader = self.stage.crew.leader(self.role)
        send([leader] if leader else [], signal.SIGKILL)

    def heal(self) -> None:
        self.stage.crew.bury()


class WorkerKillOften(WorkerKillAll):
    """SIGKILL as soon as it is up again, a few times."""

    name = "worker-kill-often"
    seconds = (8.0, 10.0)
    every = 2.5


class SchedulerKill(CrewFault):
    """SIGKILL of the scheduler."""

    name, target = "scheduler-kill", Target.SCHEDULER

    def inject(self) -> None:
        send(self.stage.crew.everyone(self.role), signal.SIGKILL)


class SchedulerKillOften(SchedulerKill):
    """SIGKILL as soon as it is up again, a few times."""

    name = "scheduler-kill-often"
    seconds = (8.0, 10.0)
    every = 2.2


class Freeze(CrewFault):
    """SIGSTOP, and SIGCONT when the world has gone on."""

    seconds = (LEASE_SECONDS + 2, LEASE_SECONDS + 4)

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        super().__init__(stage, rng)
        self._frozen: list[int] = []

    def whom(self) -> list[int]:
        """Choose whom to freeze."""
        return self.stage.crew.everyone(self.role)

    def inject(self) -> None:
        self._frozen = self.whom()
        send(self._frozen, signal.SIGSTOP)

    def heal(self) -> None:
        send(self._frozen, signal.SIGCONT)


class WorkerFreeze(Freeze):
    """The whole worker, for longer than a lease."""

    name, target = "worker-freeze", Target.WORKER


class WorkerFreezeChild(Freeze):
    """One of the worker's children, for longer than a lease, while its brother goes on."""

    name, target = "worker-freeze-child", Target.WORKER

    def whom(self) -> list[int]:
        children = self.stage.crew.children(self.role)
        return children[:1]


class SchedulerFreeze(Freeze):
    """The scheduler."""

    name, target = "scheduler-freeze", Target.SCHEDULER
    seconds = (5.0, 15.0)


class Rolling(CrewFault):
    """SIGTERM, and the platform starts the next one."""

    def inject(self) -> None:
        leader = self.stage.crew.leader(self.role)
        send([leader] if leader else [], signal.SIGTERM)


class WorkerRolling(Rolling):
    """SIGTERM to the worker's parent."""

    name, target = "worker-rolling", Target.WORKER
    seconds = (3.0, 5.0)


class SchedulerRolling(Rolling):
    """SIGTERM to the scheduler."""

    name, target = "scheduler-rolling", Target.SCHEDULER


class WorkerStopAll(CrewFault):
    """SIGTERM to the worker's parent and children alike, as systemd and Heroku do."""

    name, target = "worker-stop-all", Target.WORKER
    seconds = (3.0, 5.0)

    def inject(self) -> None:
        send(self.stage.crew.everyone(self.role), signal.SIGTERM)


class Second(CrewFault):
    """One more process of a role runs beside the first for a while."""

    seconds = (5.0, 8.0)

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        super().__init__(stage, rng)
        self._post: str | None = None

    def inject(self) -> None:
        self._post = self.stage.crew.hire(self.role)

    def heal(self) -> None:
        if self._post is not None:
            self.stage.crew.dismiss(self._post)


class WorkerSecond(Second):
    name, target = "worker-second", Target.WORKER


class SchedulerSecond(Second):
    name, target = "scheduler-second", Target.SCHEDULER


# --- the responder ---------------------------------------------------------------------------------------------------


class ResponderFault(Fault):
    """The responder misbehaves in a share of its calls."""

    target = Target.RESPONDER
    mood: ClassVar[str]
    share: ClassVar[float] = 1.0

    @property
    def control(self) -> Path:
        """What tells it its mood."""
        return self.stage.control

    def inject(self) -> None:
        responder.control(self.control, self.mood, self.share)

    def heal(self) -> None:
        responder.control(self.control)


class ResponderRaises(ResponderFault):
    """It fails. Not for so long that five attempts fail in a row."""

    name, mood, share = "responder-raises", "raises", 0.6
    seconds = (3.0, 5.0)


class ResponderBlank(ResponderFault):
    """It returns a blank text."""

    name, mood, share = "responder-blank", "is blank", 0.6


class ResponderAway(ResponderFault):
    """It says that it is away for a while."""

    name, mood = "responder-away", "is away"
    seconds = (8.0, 12.0)


class ResponderHangs(ResponderFault):
    """It does not return until it is over, for longer than a lease."""

    name, mood, share = "responder-hangs", "hangs", 0.3
    seconds = (LEASE_SECONDS + 2, LEASE_SECONDS + 4)


class ResponderDawdles(ResponderFault):
    """It takes a second, in which people write more."""

    name, mood = "responder-dawdles", "dawdles"
    seconds = (4.0, 8.0)


class ResponderDies(ResponderFault):
    """It kills its worker now and then."""

    name, mood, share = "responder-dies", "dies", 0.1
    seconds = (3.0, 5.0)


# --- a model ---------------------------------------------------------------------------------------------------------


class ModelFault(ResponderFault):
    """The model behind RESPONDER=openai misbehaves in a share of its calls."""

    target = Target.MODEL

    @property
    def control(self) -> Path:
        return self.stage.model_control


class ModelSlow(ModelFault):
    """It takes its time, in which people write more."""

    name, mood = "model-slow", "is slow"
    seconds = (4.0, 8.0)


class ModelTooSlow(ModelFault):
    """It takes longer than OPENAI_TIMEOUT, in silence or byte by byte."""

    name, mood, share = "model-too-slow", "is too slow", 0.7
    seconds = (5.0, 8.0)


class ModelAway(ModelFault):
    """It answers 429, 500 and 503, with Retry-After and without."""

    name, mood = "model-away", "is away"
    seconds = (5.0, 10.0)


class ModelLies(ModelFault):
    """It writes nonsense into `usage`."""

    name, mood = "model-lies", "lies"


class ModelBabbles(ModelFault):
    """Its answers are no answers: broken JSON, a tool call, its instructions. Not for five attempts in a row."""

    name, mood, share = "model-babbles", "babbles", 0.6
    seconds = (3.0, 5.0)


class ModelFloods(ModelFault):
    """It sends 10 MB, or does not end. Not for five attempts in a row."""

    name, mood, share = "model-floods", "floods", 0.5
    seconds = (3.0, 5.0)


class ModelCut(Cut):
    name, target = "model-cut", Target.MODEL_LINK


class ModelRefuse(Refuse):
    name, target = "model-refuse", Target.MODEL_LINK


class ModelStall(Stall):
    name, target = "model-stall", Target.MODEL_LINK


class ModelHalfClose(HalfClose):
    name, target = "model-half-close", Target.MODEL_LINK


class ModelCutMidMessage(CutMidMessage):
    name, target = "model-cut-mid-message", Target.MODEL_LINK


# --- all of them -----------------------------------------------------------------------------------------------------


def _kinds(of: type[Fault]) -> list[type[Fault]]:
    found = [of] if "name" in vars(of) else []
    for each in of.__subclasses__():
        found += _kinds(each)
    return found


KINDS: Final[dict[str, type[Fault]]] = {kind.name: kind for kind in _kinds(Fault)}  # type: ignore[type-abstract]
"""Every kind of fault, by name."""


def kinds_for(*, model: bool) -> tuple[str, ...]:
    """Return the kinds that can touch a run with RESPONDER=openai, or one with a responder of ours."""
    absent = {Target.RESPONDER} if model else {Target.MODEL, Target.MODEL_LINK}
    return tuple(name for name, kind in KINDS.items() if kind.target not in absent)


def _start(server: Any) -> None:  # noqa: ANN401 - PostgresServer or RedisServer
    for attempt in range(_START_ATTEMPTS):
        try:
            server.start()
        except ServerFailed:
            if attempt + 1 == _START_ATTEMPTS:
                raise
        else:
            return


def _until_answering(stage: Stage, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with stage.admin():
                return
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _family(server: Any) -> list[int]:  # noqa: ANN401 - PostgresServer or RedisServer
    process = server._process
    if process is None:
        return []
    return [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
