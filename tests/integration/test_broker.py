from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import dramatiq
import pytest
import redis
from dramatiq import Message, MessageProxy, Worker
from dramatiq.common import current_millis
from dramatiq.errors import ConnectionClosed, Retry
from dramatiq.middleware import Retries
from hypothesis import given
from hypothesis import strategies as st

from bridge_service.brokers import consumer as module
from bridge_service.brokers import redis_queue
from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.consumer import BELL_SECONDS, BELL_TIMEOUT_SECONDS, WaitingConsumer
from bridge_service.brokers.messages import ACTOR_NAMES, QUEUE_NAME, message_for, rebuild
from bridge_service.brokers.redis_client import describe
from bridge_service.demo.servers import RedisServer
from bridge_service.errors import BadMessage
from bridge_service.telemetry.signals import BadBrokerMessage, RedisConnected, RedisLost
from tests.chaos.proxy import FINE, Way, Weather
from tests.support.recorder import Recorder
from tests.support.waiting import eventually
from tests.support.weather import forgets_sockets, proxy_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.chaos.proxy import Proxy

ID: Final = "of the test"
QUEUE: Final = f"dramatiq:{{{ID}}}:{QUEUE_NAME}"
BODIES: Final = f"{QUEUE}.msgs"
BELL: Final = f"{QUEUE}.bell"

AT_ONCE: Final = 5.0
"""Seconds: far below BELL_SECONDS, far above what a busy machine takes."""


class Desk:
    """A broker on one Redis, a client to look and meddle with, and what was told."""

    def __init__(self, url: str, admin: redis.Redis) -> None:
        self.admin = admin
        self.told = Recorder()
        self._open = ExitStack()
        self.broker = self.another(url)

    def another(self, url: str) -> WaitingBroker:
        """Return a broker, as another process has it."""
        broker = WaitingBroker(url, emit=self.told, middleware=[], queue_id=lambda: ID)
        broker.declare_queue(QUEUE_NAME)
        self._open.callback(broker.close)
        return broker

    def close(self) -> None:
        """Close every broker."""
        self._open.close()

    def push(self, *turns: int, step: str = "compose") -> None:
        """Push turns."""
        self.broker.enqueue_many([message_for(step, turn) for turn in turns])

    def fetch(self, count: int = 100) -> list[str]:
        """Fetch, as `step:turn`."""
        return [name(rebuild(body, QUEUE_NAME)) for body in self.broker.fetch(QUEUE_NAME, count)]

    def consumer(self, prefetch: int = 10, broker: WaitingBroker | None = None) -> WaitingConsumer:
        """Return a consumer; nothing runs it yet."""
        consumer = (broker or self.broker).consume(QUEUE_NAME, prefetch=prefetch)
        assert isinstance(consumer, WaitingConsumer)
        self._open.callback(consumer.close)
        return consumer

    def consuming(self, prefetch: int = 10, broker: WaitingBroker | None = None, *, ack: bool = True) -> Consuming:
        """Return a consumer that a thread runs."""
        consuming = Consuming(self.consumer(prefetch, broker), broker or self.broker, ack=ack)
        self._open.callback(consuming.stop)
        return consuming

    def wait_until_blocked(self, count: int = 1) -> None:
        """Return once so many consumers wait for the bell."""
        eventually(lambda: self.admin.info("clients")["blocked_clients"] == count)


class Consuming:
    """What Dramatiq's consumer thread does with a consumer."""

    def __init__(self, consumer: WaitingConsumer, broker: WaitingBroker, *, ack: bool) -> None:
        self.consumer = consumer
        self.got: list[str] = []
        self.error: BaseException | None = None
        self._broker = broker
        self._ack = ack
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._broker.draining.is_set():
                message = next(self.consumer)
                if message is not None:
                    self.got.append(name(message))
                    if self._ack:
                        self.consumer.ack(message)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it would have killed the thread
            self.error = error

    def wait_for(self, *expected: str, timeout: float = AT_ONCE) -> None:
        """Return once exactly these were handed out, in any order."""

        def check() -> None:
            assert sorted(self.got) == sorted(expected)

        eventually(check, timeout)

    def stop(self) -> float:
        """Stop, and return how many seconds that took; fail if the thread had died."""
        began = time.monotonic()
        self._broker.stop_waiting()
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert self.error is None
        return time.monotonic() - began


def name(message: Message[Any] | MessageProxy) -> str:
    """Say `step:turn`."""
    return f"{message.actor_name}:{message.args[0]}"


@contextmanager
def desk_on(server: RedisServer, url: str | None = None) -> Iterator[Desk]:
    """Give a desk on an emptied Redis, whose broker goes by `url` if there is one."""
    with closing(redis.Redis.from_url(server.url(), decode_responses=True)) as admin:
        admin.flushall()
        with closing(Desk(url or server.url(), admin)) as desk:
            yield desk


@pytest.fixture
def desk(redis_server: RedisServer) -> Iterator[Desk]:
    """Give a desk on an empty Redis of today."""
    with desk_on(redis_server) as desk:
        yield desk


@pytest.fixture
def any_desk(any_redis: RedisServer) -> Iterator[Desk]:
    """Give a desk on an empty Redis of today, then on one of 2021."""
    with desk_on(any_redis) as desk:
        yield desk


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """Give a way to the Redis of today that can be disturbed."""
    with proxy_to(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the waits of a consumer short."""
    monkeypatch.setattr(module, "BELL_SECONDS", 0.2)
    monkeypatch.setattr(module, "BELL_TIMEOUT_SECONDS", 0.6)
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.05)


# Pushing and fetching


def test_a_push_is_put_there_once_while_it_waits(any_desk: Desk) -> None:
    """However often a step is pushed, it is handed out once, and in the order of the first pushes."""
    any_desk.push(1, 2)
    any_desk.push(2, 1, 3)
    any_desk.push(1, step="deliver")
    assert any_desk.fetch() == ["compose:1", "compose:2", "compose:3", "deliver:1"]
    assert any_desk.fetch() == []
    assert any_desk.admin.keys(f"{QUEUE}*") == [BELL]


def test_what_was_fetched_can_be_pushed_again(any_desk: Desk) -> None:
    """A step whose worker died is pushed and handed out a second time."""
    any_desk.push(1)
    assert any_desk.fetch() == ["compose:1"]
    any_desk.push(1)
    assert any_desk.fetch() == ["compose:1"]


@pytest.mark.parametrize("lost", [QUEUE, BODIES])
def test_half_of_the_data_may_be_lost(any_desk: Desk, lost: str) -> None:
    """Without the list or without the bodies, a step that is pushed again is handed out once."""
    any_desk.push(1, 2)
    any_desk.admin.delete(lost)
    assert any_desk.broker.fetch(QUEUE_NAME, 1) == []
    any_desk.push(1, 2)
    assert sorted(any_desk.fetch()) == ["compose:1", "compose:2"]
    assert any_desk.fetch() == []


def test_either_half_may_lose_another_message(any_desk: Desk) -> None:
    """The numbers agree then, until a fetch comes upon what is left of one: the push after that queues both."""
    any_desk.push(1, 2)
    any_desk.admin.lrem(QUEUE, 1, "compose:1")
    any_desk.admin.hdel(BODIES, "compose:2")
    any_desk.push(1)
    assert any_desk.fetch() == []
    any_desk.push(1, 2)
    assert sorted(any_desk.fetch()) == ["compose:1", "compose:2"]
    assert any_desk.fetch() == []


def test_pushing_again_what_waits_looks_for_none_of_it(desk: Desk) -> None:
    """A backlog that is pushed again does not cost Redis the square of its length."""
    desk.push(*range(1, 9))
    desk.admin.config_resetstat()
    desk.push(*range(1, 9))
    assert "cmdstat_lpos" not in desk.admin.info("commandstats")
    assert len(desk.fetch()) == 8


@pytest.mark.parametrize("key", [QUEUE, BODIES, BELL])
@pytest.mark.parametrize("first", ["push", "fetch"])
def test_a_key_of_a_wrong_type_is_replaced(any_desk: Desk, key: str, first: str) -> None:
    """Whatever lies under our names, one push or fetch later all is well."""
    any_desk.admin.set(key, "not ours")
    if first == "fetch":
        assert any_desk.fetch() == []
    any_desk.push(1)
    assert any_desk.fetch() == ["compose:1"]
    assert any_desk.admin.type(BELL) == "list"


def test_more_than_a_batch_is_pushed_in_several(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of messages is taken, in their order."""
    monkeypatch.setattr(redis_queue, "BATCH", 3)
    desk.push(*range(1, 9))
    assert desk.fetch(5) + desk.fetch(5) == [f"compose:{turn}" for turn in range(1, 9)]


def test_bells_do_not_pile_up(desk: Desk) -> None:
    """With nobody listening the bell's list stays short."""
    for turn in range(1, 40):
        desk.push(turn)
    assert desk.admin.llen(BELL) == 16


def test_no_text_but_ids_lies_in_redis(desk: Desk) -> None:
    """A message holds the step and the turn's id, and nothing that somebody wrote."""
    desk.push(7)
    [body] = desk.admin.hvals(BODIES)
    assert json.loads(body)["args"] == [7]
    assert json.loads(body)["options"] == {"redis_message_id": "compose:7"}


def test_a_message_made_by_an_actor_is_pushed_under_its_step_and_turn(desk: Desk) -> None:
    """`actor.send(7)` and the scheduler's push are the same message."""
    message: Message[None] = Message(QUEUE_NAME, "compose", (7,), {}, {})
    desk.broker.enqueue(message)
    desk.push(7)
    assert desk.fetch() == ["compose:7"]


# The bell


def test_the_bell_wakes_a_waiting_consumer_at_once(any_desk: Desk) -> None:
    """A push reaches a consumer that has waited, long before its wait would have ended."""
    consuming = any_desk.consuming()
    any_desk.wait_until_blocked()
    any_desk.push(1)
    consuming.wait_for("compose:1")


def test_what_was_pushed_before_the_start_is_fetched_without_a_bell(desk: Desk) -> None:
    """A consumer looks at its start, and when it has lost Redis, whatever rang."""
    desk.push(1)
    desk.admin.delete(BELL)
    desk.consuming().wait_for("compose:1")


def test_ids_without_bodies_take_nobody_s_place(desk: Desk) -> None:
    """Whoever fills the queue with ids of his own holds up no message: one ring leads through all of them to it."""
    consuming = desk.consuming()
    desk.wait_until_blocked()
    desk.admin.rpush(QUEUE, *(f"junk:{number}" for number in range(20_000)))
    desk.push(1)
    consuming.wait_for("compose:1")
    assert desk.admin.exists(QUEUE) == 0


def test_an_unheard_push_is_heard_when_it_is_repeated(desk: Desk) -> None:
    """A message whose bell was lost is handed out, once, as soon as the same is pushed again."""
    consuming = desk.consuming()
    desk.wait_until_blocked()
    desk.admin.hset(BODIES, "compose:1", message_for("compose", 1).encode())
    desk.admin.rpush(QUEUE, "compose:1")
    desk.push(1)
    consuming.wait_for("compose:1")
    desk.wait_until_blocked()
    assert consuming.got == ["compose:1"]


def test_one_ring_wakes_as_many_processes_as_its_messages_need(desk: Desk, redis_server: RedisServer) -> None:
    """A process that is full leaves the rest of a batch to its waiting brothers."""
    full = desk.consuming(prefetch=2, ack=False)
    other = desk.consuming(prefetch=10, broker=desk.another(redis_server.url()), ack=False)
    desk.wait_until_blocked(2)
    desk.push(*range(1, 7))
    eventually(lambda: sorted(full.got + other.got) == [f"compose:{turn}" for turn in range(1, 7)], AT_ONCE)


def test_the_delivered_body_is_not_believed_beyond_its_id(desk: Desk) -> None:
    """A body that is no message, or none of ours, is told of and dropped; the next ones are handed out."""
    desk.push(1, 2, 3)
    desk.admin.hset(BODIES, "compose:1", b"\xff not JSON")
    desk.admin.hset(BODIES, "compose:2", b"x" * 10_001)
    desk.consuming().wait_for("compose:3")
    assert [event.reason for event in desk.told.of(BadBrokerMessage)] == [
        "not a message of ours",
        "a message of 10001 bytes",
    ]


# R1


def test_R1_an_idle_consumer_sends_one_command_a_wait(  # noqa: N802 - the rule's name
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle it does nothing but BLPOP, which at 15 s each makes four commands a minute for one process."""
    assert 60 / BELL_SECONDS <= 4
    assert BELL_TIMEOUT_SECONDS > BELL_SECONDS
    monkeypatch.setattr(module, "BELL_SECONDS", 0.1)
    waits = threading.Semaphore(0)
    desk.broker.beat = waits.release
    desk.consuming()
    for _ in range(3):  # connecting, fetching, first wait
        assert waits.acquire(timeout=5)
    desk.admin.config_resetstat()
    for _ in range(5):
        assert waits.acquire(timeout=5)
    commands = {
        command: stats["calls"]
        for command, stats in desk.admin.info("commandstats").items()
        if command not in ("cmdstat_config|resetstat", "cmdstat_config", "cmdstat_info")  # Redis before 7 has the short
    }
    assert set(commands) == {"cmdstat_blpop"}
    assert 3 <= commands["cmdstat_blpop"] <= 7


# R2

ACTORS = st.one_of(st.sampled_from(sorted(ACTOR_NAMES)), st.text(), st.integers(), st.none())
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
BODY = st.one_of(
    st.binary(),
    JUNK.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"actor_name": ACTORS, "args": st.one_of(JUNK, st.lists(st.integers(-(2**70), 2**70) | JUNK, max_size=2))},
        optional={
            "queue_name": JUNK,
            "kwargs": JUNK,
            "options": st.dictionaries(
                st.sampled_from(["eta", "pipe_target", "redis_message_id", "max_retries", "throws", "traceback"]), JUNK
            ),
            "message_id": JUNK,
            "message_timestamp": JUNK,
        },
    ).map(lambda value: json.dumps(value).encode()),
)


@given(BODY)
def test_R2_whatever_lies_in_redis_becomes_a_message_of_ours_or_none(body: bytes) -> None:  # noqa: N802
    """Only a turn's id and one of our two steps come through; queue, options and the rest are made anew."""
    try:
        message = rebuild(body, "our_queue")
    except BadMessage as error:
        assert body.decode("latin-1").strip() not in str(error) or len(body) < 5  # noqa: PT017 - it quotes nothing
        return
    data = json.loads(body)
    [turn] = message.args
    assert type(turn) is int
    assert 0 < turn < 2**63
    assert [turn] == data["args"]
    assert message.actor_name in ACTOR_NAMES
    assert message.actor_name == data["actor_name"]
    assert message.queue_name == "our_queue"
    assert message.kwargs == {}
    assert message.options == {"redis_message_id": f"{message.actor_name}:{turn}"}


@pytest.mark.parametrize("args", [[True], [0], [-1], [2**63], [1.0], ["1"], "1", {"1": 2}, [], [1, 2], [None], None])
def test_R2_only_a_whole_number_is_a_turn(args: object) -> None:  # noqa: N802
    """What is no id that PostgreSQL can have given is refused."""
    with pytest.raises(BadMessage):
        rebuild(json.dumps({"actor_name": "compose", "args": args}).encode(), QUEUE_NAME)


@given(st.sampled_from(sorted(ACTOR_NAMES)), st.integers(1, 2**63 - 1))
def test_R2_our_own_messages_come_through(step: str, turn: int) -> None:  # noqa: N802
    """What the scheduler pushes is what the worker gets."""
    message = rebuild(message_for(step, turn).encode(), QUEUE_NAME)
    assert (message.actor_name, message.args, message.queue_name) == (step, (turn,), QUEUE_NAME)


def test_R2_forged_messages_kill_no_thread(desk: Desk) -> None:  # noqa: N802
    """Messages that name a foreign queue, a later time or another actor leave a whole worker at work."""
    done: list[int] = []
    finished = threading.Event()

    @dramatiq.actor(broker=desk.broker, queue_name=QUEUE_NAME, actor_name="compose")
    def compose(turn: int) -> None:
        done.append(turn)
        if turn == 99:
            finished.set()

    forged: list[dict[str, Any]] = [
        {"queue_name": "elsewhere"},
        {"options": {"eta": current_millis() + 10**9}},
        {"options": {"pipe_target": {"queue_name": "x", "actor_name": "y", "args": [], "kwargs": {}, "options": {}}}},
        {"actor_name": "os.system"},
        {"kwargs": {"turn": 1}},
        {"args": [1, 2]},
    ]
    for number, change in enumerate(forged, start=1):
        body = {**message_for("compose", number).asdict(), **change}
        desk.admin.hset(BODIES, f"f{number}", json.dumps(body))
        desk.admin.rpush(QUEUE, f"f{number}")
    worker = Worker(desk.broker, worker_threads=2, worker_timeout=50)
    worker.start()
    try:
        eventually(lambda: len(done) == 4)
        desk.push(99)
        assert finished.wait(AT_ONCE)
        assert all(thread.is_alive() for thread in [*worker.workers, *worker.consumers.values()])
    finally:
        desk.broker.stop_waiting()
        worker.stop(5000)
    assert sorted(done) == [1, 2, 3, 5, 99]
    assert len(desk.told.of(BadBrokerMessage)) == 2


# Errors

LOADING: Final = b"-LOADING Redis is loading the dataset in memory\r\n"

WEATHERS: Final = {
    "refused": Weather(refuse=True),
    "reset": Weather(limits={Way.ANSWERS: 0, Way.REQUESTS: 0}),
    "stall": Weather(stalled=frozenset({Way.ANSWERS})),
    "loading": Weather(garble=lambda _: LOADING),
    "garbled": Weather(garble=lambda data: b"?" * len(data)),
}


@contextmanager
def out_of_memory(admin: redis.Redis) -> Iterator[None]:
    """Let Redis be full."""
    admin.config_set("maxmemory", "1")
    try:
        yield
    finally:
        admin.config_set("maxmemory", "0")


@contextmanager
def read_only(admin: redis.Redis) -> Iterator[None]:
    """Let Redis be somebody's replica, as after a failover."""
    admin.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        admin.replicaof("NO", "ONE")


@contextmanager
def password_wanted(admin: redis.Redis) -> Iterator[None]:
    """Let Redis want a password that we do not have."""
    admin.config_set("requirepass", "geheim")
    admin.client_kill_filter(_type="normal", skipme=True)
    try:
        yield
    finally:
        admin.config_set("requirepass", "")


@contextmanager
def no_such_function(admin: redis.Redis) -> Iterator[None]:
    """An ACL that forbids what we need, as hosted Redis has them."""
    admin.acl_setuser("default", enabled=True, nopass=True, commands=["+@all", "-evalsha", "-eval", "-blpop"])
    try:
        yield
    finally:
        admin.acl_setuser("default", enabled=True, nopass=True, commands=["+@all"])


@contextmanager
def busy(admin: redis.Redis) -> Iterator[None]:
    """Let Redis be busy with somebody's endless script."""
    admin.config_set("lua-time-limit", "1")
    url = admin.connection_pool.connection_kwargs
    other = redis.Redis(host=url["host"], port=url["port"], socket_timeout=20)

    def hog() -> None:
        with pytest.raises(redis.ResponseError):
            other.eval("while true do end", 0)

    thread = threading.Thread(target=hog)
    thread.start()
    try:

        def is_busy() -> bool:
            try:
                admin.ping()
            except redis.ResponseError:
                return True
            return False

        eventually(is_busy)
        yield
    finally:
        admin.script_kill()
        thread.join(5)
        other.close()


FAULTS: Final = {
    "oom": out_of_memory,
    "readonly": read_only,
    "noauth": password_wanted,
    "noperm": no_such_function,
    "busy": busy,
}


@forgets_sockets
@pytest.mark.parametrize("weather", WEATHERS)
def test_a_lost_connection_is_told_as_closed(redis_server: RedisServer, proxy: Proxy, weather: str) -> None:
    """Whatever happens to the connection, Dramatiq hears ConnectionClosed, soon, and the next push is a new attempt."""
    url = f"redis://127.0.0.1:{proxy.port}/0?socket_timeout=0.3&socket_connect_timeout=0.3"
    with desk_on(redis_server, url) as desk:
        desk.push(1)
        proxy.set(WEATHERS[weather])
        if weather == "refused":
            proxy.cut()
        began = time.monotonic()
        for operation in (
            lambda: desk.push(2),
            lambda: desk.broker.fetch(QUEUE_NAME, 1),
            desk.broker.probe,
            lambda: desk.broker.do_qsize(QUEUE_NAME),
        ):
            with pytest.raises(ConnectionClosed) as error:
                operation()
            assert describe(error.value)
            desk.broker.drop_connections()
        assert time.monotonic() - began < AT_ONCE
        proxy.set(FINE)
        # What stalled on the way arrives only now, the fetch too.
        eventually(lambda: _pushes(desk, 3) and "compose:3" in desk.fetch())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_redis_that_refuses_is_told_as_closed(desk: Desk, fault: str) -> None:
    """Whatever Redis refuses with, Dramatiq hears ConnectionClosed, the probe sees it too, and later all is well."""
    desk.push(1)
    with FAULTS[fault](desk.admin):
        with pytest.raises(ConnectionClosed) as error:
            desk.push(2)
        with pytest.raises(ConnectionClosed):
            desk.broker.probe()
        assert "\n" not in describe(error.value)
        assert "geheim" not in describe(error.value)
    desk.push(1, 2)
    assert sorted(desk.fetch()) == ["compose:1", "compose:2"]


@forgets_sockets
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("weather", WEATHERS)
def test_a_consumer_outlives_a_lost_connection(redis_server: RedisServer, proxy: Proxy, weather: str) -> None:
    """It says that Redis is lost, goes on by itself when it is back, and fetches what was pushed meanwhile."""
    with desk_on(redis_server, f"redis://127.0.0.1:{proxy.port}/0?socket_connect_timeout=0.5") as desk:
        consuming = desk.consuming()
        desk.told.wait_for(RedisConnected)
        proxy.set(WEATHERS[weather])
        if weather in ("refused", "reset"):
            proxy.cut()
        desk.told.wait_for(RedisLost)
        with closing(desk.another(redis_server.url())) as healthy:
            healthy.enqueue_many([message_for("compose", 1)])
        proxy.set(FINE)
        desk.told.wait_for(RedisConnected, 2)
        consuming.wait_for("compose:1")
        assert consuming.error is None


@forgets_sockets
def test_numbers_are_no_messages(redis_server: RedisServer, proxy: Proxy) -> None:
    """Another question's answer, well formed as it is, is a lost connection and no consumer's end."""
    with desk_on(redis_server, f"redis://127.0.0.1:{proxy.port}/0") as desk:
        assert desk.broker.fetch(QUEUE_NAME, 1) == []
        proxy.set(Weather(garble=lambda _: b"*2\r\n:7\r\n:8\r\n"))
        with pytest.raises(ConnectionClosed, match="int"):
            desk.broker.fetch(QUEUE_NAME, 1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["readonly", "noauth", "noperm", "busy"])
def test_a_consumer_outlives_a_redis_that_refuses(desk: Desk, fault: str) -> None:
    """It says that Redis is lost and goes on by itself as soon as it is served again."""
    consuming = desk.consuming()
    desk.told.wait_for(RedisConnected)
    with FAULTS[fault](desk.admin):
        desk.told.wait_for(RedisLost)
    desk.push(1)
    consuming.wait_for("compose:1")


def test_a_full_redis_can_still_be_emptied(desk: Desk) -> None:
    """Out of memory no push is taken, but what waits is handed out."""
    desk.push(1, 2)
    with out_of_memory(desk.admin):
        assert desk.fetch(1) == ["compose:1"]
        desk.consuming().wait_for("compose:2")


@pytest.mark.usefixtures("quick")
def test_a_consumer_outlives_a_redis_that_forgets_everything(servers_folder: Path) -> None:
    """A Redis that was killed and comes back empty, without our scripts, is used again without anybody's help."""
    with RedisServer(servers_folder / "forgetful-redis") as server, desk_on(server) as desk:
        consuming = desk.consuming()
        desk.told.wait_for(RedisConnected)
        server.kill()
        desk.told.wait_for(RedisLost)
        server.start()
        desk.told.wait_for(RedisConnected, 2)
        eventually(lambda: _pushes(desk, 1))
        consuming.wait_for("compose:1")


def _pushes(desk: Desk, turn: int) -> bool:
    try:
        desk.push(turn)
    except ConnectionClosed:
        return False
    return True


# Delayed messages


def test_delayed_messages_stay_in_this_process(desk: Desk) -> None:
    """Nothing of a delayed message is written to Redis, and its traceback, which may quote a reply, is dropped."""
    message = message_for("compose", 1).copy(options={"traceback": "he said: salut", "retries": 1})
    delayed = desk.broker.enqueue(message, delay=20)
    assert desk.admin.keys("*") == []
    assert delayed.queue_name == f"{QUEUE_NAME}.DQ"
    assert "traceback" not in delayed.options
    assert message.options["traceback"]
    proxy = next(desk.broker.consume(f"{QUEUE_NAME}.DQ"))
    assert proxy is not None
    assert (proxy.queue_name, proxy.args, dict(proxy.options)) == (f"{QUEUE_NAME}.DQ", (1,), delayed.options)


def test_delayed_messages_run_in_the_order_of_their_times() -> None:
    """Each runs when its time has come, the earliest first, and never early; without any Redis."""
    ran: list[tuple[int, int]] = []
    broker = WaitingBroker("redis://127.0.0.1:1/0", emit=Recorder(), middleware=[], queue_id=lambda: ID)

    @dramatiq.actor(broker=broker, queue_name=QUEUE_NAME, actor_name="compose")
    def compose(turn: int) -> None:
        ran.append((turn, current_millis()))

    worker = Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    began = current_millis()
    try:
        for turn, delay in ((1, 1200), (2, 400), (3, 800)):
            broker.enqueue(message_for("compose", turn), delay=delay)
        eventually(lambda: len(ran) == 3)
    finally:
        broker.stop_waiting()
        worker.stop(5000)
        broker.close()
    assert [turn for turn, _ in ran] == [2, 3, 1]
    assert all(at - began >= delay for (_, at), delay in zip(ran, (400, 800, 1200), strict=True))


def test_a_retry_needs_no_redis(servers_folder: Path) -> None:
    """A worker that fetched a message tries it again by itself, though Redis died meanwhile."""
    told = Recorder()
    tries: list[int] = []
    done = threading.Event()
    with RedisServer(servers_folder / "dying-redis") as server:
        broker = WaitingBroker(
            server.url(),
            emit=told,
            middleware=[Retries(max_retries=3, min_backoff=10, max_backoff=20)],
            queue_id=lambda: ID,
        )

        @dramatiq.actor(broker=broker, queue_name=QUEUE_NAME, actor_name="compose")
        def compose(turn: int) -> None:
            tries.append(turn)
            if len(tries) == 1:
                server.kill()
                raise Retry("again")
            done.set()

        broker.enqueue_many([message_for("compose", 5)])
        worker = Worker(broker, worker_threads=1, worker_timeout=50)
        worker.start()
        try:
            assert done.wait(5)
            assert tries == [5, 5]
        finally:
            broker.stop_waiting()
            worker.stop(5000)
            broker.close()


# How much is fetched, and the end


def test_no_more_is_fetched_than_may_be_out(desk: Desk) -> None:
    """With a prefetch of 3 three messages are out at most; each one that is done lets one in, at once."""
    desk.push(*range(1, 6))
    consumer = desk.consumer(prefetch=3)
    out = [message for message in (next(consumer) for _ in range(4)) if message is not None]
    assert [name(message) for message in out] == ["compose:1", "compose:2", "compose:3"]
    assert desk.admin.llen(QUEUE) == 2
    waiting = threading.Thread(target=lambda: next(consumer))
    waiting.start()
    consumer.ack(out[0])
    waiting.join(0.9)  # below RECONNECT_SECONDS, its own patience
    assert not waiting.is_alive()
    out += [message for message in (next(consumer) for _ in range(2)) if message is not None]
    assert name(out[-1]) == "compose:4"
    assert desk.admin.llen(QUEUE) == 1


def test_no_more_turns_are_fetched_than_can_be_composed(desk: Desk) -> None:
    """What is composed takes its place too; each turn that is over lets one in, at once."""
    composed = 1
    desk.broker.room = lambda: 3 - composed
    desk.push(*range(1, 6))
    consumer = desk.consumer()
    out = [message for message in (next(consumer) for _ in range(3)) if message is not None]
    assert [name(message) for message in out] == ["compose:1", "compose:2"]
    waiting = threading.Thread(target=lambda: next(consumer))
    waiting.start()
    composed += 1
    consumer.ack(out[0])  # it is composed now
    waiting.join(5)
    assert desk.admin.llen(QUEUE) == 3
    waiting = threading.Thread(target=lambda: next(consumer))
    waiting.start()
    composed -= 1
    desk.broker.wake()
    waiting.join(0.9)  # below RECONNECT_SECONDS, its own patience
    assert not waiting.is_alive()
    more = [message for message in (next(consumer) for _ in range(2)) if message is not None]
    assert [name(message) for message in more] == ["compose:3"]


@pytest.mark.usefixtures("quick")
def test_a_process_without_room_to_compose_delivers_all_the_same(any_desk: Desk) -> None:
    """Deliveries are taken from between the turns that wait, and these are rung for, for another process."""
    desk = any_desk
    desk.push(1, 2)
    desk.push(3, step="deliver")
    desk.push(4)
    desk.push(5, step="deliver")
    desk.broker.room = lambda: 0
    consuming = desk.consuming()
    consuming.wait_for("deliver:3", "deliver:5")
    assert desk.admin.llen(BELL) > 0
    with closing(desk.another(desk.broker.url)) as other:
        assert [name(rebuild(body, QUEUE_NAME)) for body in other.fetch(QUEUE_NAME, 9)] == [
            "compose:1",
            "compose:2",
            "compose:4",
        ]


def test_a_nack_makes_room_and_writes_nothing(desk: Desk) -> None:
    """The turn's row is the dead letter: a message that failed for good leaves no trace in Redis."""
    desk.push(1, 2)
    consumer = desk.consumer(prefetch=1)
    next(consumer)
    message = next(consumer)
    assert message is not None
    consumer.nack(message)
    next(consumer)
    assert desk.admin.keys(f"{QUEUE}*") == [BELL]


def test_the_end_gives_back_what_was_not_begun(desk: Desk) -> None:
    """What was fetched, handed out or not, and not begun lies in Redis again, once."""
    desk.push(1, 2, 3, 4)
    consumer = desk.consumer(prefetch=3)
    next(consumer)
    first, second = next(consumer), next(consumer)
    assert first is not None
    assert second is not None
    desk.broker.stop_waiting()
    consumer.requeue([second])
    consumer.requeue([])
    assert sorted(desk.fetch()) == ["compose:2", "compose:3", "compose:4"]


def test_nothing_is_fetched_any_more_at_the_end(desk: Desk) -> None:
    """A place that becomes free while the worker drains stays free."""
    desk.push(1, 2)
    consumer = desk.consumer(prefetch=1)
    next(consumer)
    message = next(consumer)
    assert message is not None
    desk.broker.stop_waiting()
    consumer.ack(message)
    assert [next(consumer), next(consumer)] == [None, None]
    assert desk.admin.llen(QUEUE) == 1


def test_a_heard_bell_is_passed_on_at_the_end(desk: Desk) -> None:
    """A consumer that is stopped between hearing the bell and fetching rings for its brothers."""
    consumer = desk.consumer()
    next(consumer)
    desk.push(1)
    next(consumer)
    assert desk.admin.llen(BELL) == 0
    desk.broker.stop_waiting()
    consumer.requeue([])
    assert desk.admin.llen(BELL) == 1


def test_giving_back_to_a_dead_redis_is_no_error() -> None:
    """What cannot be given back is told of; the due times bring it back."""
    told = Recorder()
    with closing(WaitingBroker("redis://127.0.0.1:1/0", emit=told, middleware=[], queue_id=lambda: ID)) as broker:
        broker.declare_queue(QUEUE_NAME)
        consumer = broker.consume(QUEUE_NAME)
        consumer.requeue([MessageProxy(message_for("compose", 1))])
        consumer.close()
    assert len(told.of(RedisLost)) == 1


@pytest.mark.parametrize("pause", [0.0, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01, 0.02, 0.05, None])
def test_an_interrupt_ends_a_wait_at_once(desk: Desk, pause: float | None) -> None:
    """Told to stop while it connects, fetches or waits, the consumer's thread ends in order and without a word."""
    consuming = desk.consuming()
    if pause is None:
        desk.wait_until_blocked()
    else:
        time.sleep(pause)
    assert consuming.stop() < AT_ONCE
    assert desk.told.of(RedisLost) == []


def test_no_interrupt_comes_too_early(desk: Desk) -> None:
    """One that comes just before the wait begins is heeded too."""
    consumer = desk.consumer()
    next(consumer)

    class Blocked(threading.Event):
        def set(self) -> None:
            desk.broker.stop_waiting()
            super().set()

    consumer._blocked = Blocked()
    began = time.monotonic()
    assert next(consumer) is None
    assert time.monotonic() - began < AT_ONCE


def test_a_worker_stops_at_once(desk: Desk) -> None:
    """Dramatiq's own worker, idle, is down long before the bell's wait would end."""

    @dramatiq.actor(broker=desk.broker, queue_name=QUEUE_NAME, actor_name="compose")
    def compose(turn: int) -> None:
        del turn

    worker = Worker(desk.broker, worker_threads=2, worker_timeout=50)
    worker.start()
    desk.wait_until_blocked()
    began = time.monotonic()
    desk.broker.stop_waiting()
    worker.stop(20_000)
    assert time.monotonic() - began < AT_ONCE + 1
    assert not any(thread.is_alive() for thread in [*worker.workers, *worker.consumers.values()])


def test_nothing_connects_before_the_first_command() -> None:
    """A broker for a Redis that is not there can be made, declared on and closed."""
    broker = WaitingBroker("redis://127.0.0.1:1/0", emit=Recorder(), middleware=[], queue_id=lambda: ID)
    broker.declare_queue(QUEUE_NAME)
    assert broker.get_declared_queues() == {QUEUE_NAME}
    broker.close()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ConnectionClosed(redis.TimeoutError("Timeout\nreading")), "Timeout reading"),  # type: ignore[no-untyped-call]
        (lambda: ConnectionClosed(OSError()), "OSError"),  # type: ignore[no-untyped-call]
        (lambda: redis.ConnectionError("gone"), "gone"),
    ],
)
def test_what_happened_to_redis_is_said_in_one_line(make: Callable[[], Exception], expected: str) -> None:
    """An error is described by its cause's words, or by its kind if it has none."""
    assert describe(make()) == expected
