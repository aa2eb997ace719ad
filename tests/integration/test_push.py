from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.circuit import Reconnect
from bridge_service.brokers.messages import QUEUE_NAME, rebuild
from bridge_service.demo.servers import RedisServer
from bridge_service.errors import DatabaseUnavailable
from bridge_service.machine.answers import Push
from bridge_service.machine.steps import PUSH_WINDOW, Store
from bridge_service.telemetry.signals import (
    GroupClosed,
    InitiationDue,
    PushesRepeated,
    RedisAttemptFailed,
    RedisGivenUp,
    RedisReconnected,
    RedisReconnecting,
    RetryIn,
    TurnDead,
    TurnPushed,
    TurnsRecovered,
)
from bridge_service.turns import Kind
from schedulers import push as module
from schedulers.push import Pusher
from tests.support.app import HUGO, App
from tests.support.clock import advance, install_clock
from tests.support.policy import MAX_TAKEOVERS, set_grouping
from tests.support.recorder import Recorder
from tests.support.store import store_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.roles import Urls

DELAY: Final = 15.0
LATER: Final = 21.0
"""Seconds after which every push is believed lost and every lease has run out."""


class Waits(threading.Event):
    """Notes how long it would have waited, and does not wait; `during` runs in the wait of that number, from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.during: dict[int, Callable[[], None]] = {}

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in no time."""
        assert timeout is not None
        self.seconds.append(timeout)
        self.during.get(len(self.seconds), lambda: None)()
        return self.is_set()


class Desk:
    """A pusher on a real database and a Redis that may be away."""

    def __init__(self, urls: Urls, redis: RedisServer, stack: ExitStack, attempts: int = 3) -> None:
        self.urls = urls
        set_grouping(urls, DELAY)
        self.app = stack.enter_context(closing(App(urls)))
        self.store = stack.enter_context(store_on(urls))
        self.told = Recorder()
        self.waits = Waits()
        self.pushed: list[str] = []  # conversations whose groups were pushed
        self.redis = redis
        self.reconnect = Reconnect(self.told)
        self.broker = stack.enter_context(
            closing(
                WaitingBroker(redis.url(), emit=self.told, middleware=[self.reconnect], queue_id=self.store.queue_id)
            )
        )
        self.broker.declare_queue(QUEUE_NAME)
        self.pusher = self.another(attempts)

    def another(self, attempts: int, store: Store | None = None) -> Pusher:
        """Return a pusher."""
        return Pusher(
            store or self.store,
            self.broker,
            self.reconnect,
            on_pushed=self.pushed.extend,
            emit=self.told,
            stopping=self.waits,
            attempts=attempts,
        )

    def due(self, *texts: str) -> str:
        """Write messages in a match of their own, which are due; its id."""
        match = self.app.old_match()
        for text in texts or ("salut",):
            self.app.write(match, text)
        self.group()
        advance(self.urls, DELAY)
        return match

    def group(self) -> None:
        """Group everything."""
        self.store.group()

    def fetched(self) -> list[str]:
        """Take what lies in Redis, as `step:turn`."""
        bodies = self.broker.fetch(QUEUE_NAME, 10_000)
        return [f"{m.actor_name}:{m.args[0]}" for m in (rebuild(body, QUEUE_NAME) for body in bodies)]

    def turn(self, match: str) -> int:
        """Return the id of the only turn of a match."""
        return int(self.app.value("SELECT id FROM bridge.turns WHERE match_id = %s", match))

    def state(self, match: str) -> str:
        """Return the state of the only turn of a match."""
        return str(self.app.value("SELECT state FROM bridge.turns WHERE match_id = %s", match))


@pytest.fixture(scope="module")
def own_redis(servers_folder: Path) -> Iterator[RedisServer]:
    """Give a Redis that the tests of this module may kill."""
    with RedisServer(servers_folder / "push-redis") as server:
        yield server


@pytest.fixture
def desk(bridge_database: Urls, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Give a pusher that probes as often as it is asked to."""
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.0)
    install_clock(bridge_database)
    own_redis.restart()
    with ExitStack() as stack:
        yield Desk(bridge_database, own_redis, stack)


def test_a_group_that_is_due_is_pushed_and_told_of(desk: Desk) -> None:
    """One 📦 with the number of messages, then one ✅, and the message in the queue names the turn."""
    match = desk.due("salut", "ça va ?", "tu fais quoi ?")
    turn = desk.turn(match)
    assert desk.pusher.push_due() == 1
    assert desk.told.signals == [GroupClosed(turn, match, 3), TurnPushed(turn, match, Kind.REPLY)]
    assert desk.fetched() == [f"compose:{turn}"]
    assert desk.pushed == [match]


def test_nothing_is_pushed_early(desk: Desk) -> None:
    """A group that is still open is left alone, and nothing is said."""
    match = desk.app.old_match()
    desk.app.write(match, "salut")
    desk.group()
    advance(desk.urls, DELAY - 1)
    assert desk.pusher.push_due() == 0
    assert (desk.state(match), desk.told.signals, desk.fetched()) == ("open", [], [])


def test_an_opener_is_told_of_as_what_it_is(desk: Desk) -> None:
    """💬 instead of 📦, then ✅; the window, which shows groups, is not concerned."""
    match = desk.app.match(HUGO)
    desk.group()
    advance(desk.urls, 60)
    desk.pusher.push_due()
    turn = desk.turn(match)
    assert desk.told.signals == [InitiationDue(turn, match), TurnPushed(turn, match, Kind.INITIATION)]
    assert desk.pushed == []


def test_a_repeated_push_has_no_line_of_its_own(desk: Desk) -> None:
    """✅ comes at the first push only; pushes that are made again are counted together."""
    desk.due()
    desk.due()
    desk.pusher.push_due()
    desk.told.clear()
    advance(desk.urls, LATER)
    assert desk.pusher.push_due() == 2
    assert desk.told.signals == [PushesRepeated(2)]
    assert len(desk.fetched()) == 2


def test_a_turn_taken_from_a_dead_worker_is_told_of(desk: Desk) -> None:
    """Its push counts as recovered, not as repeated."""
    match = desk.due()
    desk.pusher.push_due()
    desk.store.claim(desk.turn(match), uuid4())
    desk.fetched()
    desk.told.clear()
    advance(desk.urls, LATER)
    desk.pusher.push_due()
    assert desk.told.signals == [TurnsRecovered(1, "lease")]
    assert desk.fetched() == [f"compose:{desk.turn(match)}"]


def test_a_delivery_that_is_due_is_not_pushed(desk: Desk) -> None:
    """The deliverer takes it."""
    match = desk.due()
    desk.pusher.push_due()
    turn, token = desk.turn(match), uuid4()
    desk.store.claim(turn, token)
    desk.store.finish(turn, token, "coucou", pause=3.0)
    desk.fetched()
    desk.told.clear()
    advance(desk.urls, 3)
    assert desk.pusher.push_due() == 0
    assert desk.fetched() == []


def test_a_turn_that_kills_its_workers_is_given_up_and_told_of(desk: Desk) -> None:
    """After too many takeovers it is dead, said in one line, and nothing is pushed."""
    match = desk.due()
    desk.app.rows("UPDATE bridge.turns SET takeovers = %s", MAX_TAKEOVERS - 1)
    desk.pusher.push_due()
    desk.store.claim(desk.turn(match), uuid4())
    desk.fetched()
    desk.told.clear()
    advance(desk.urls, LATER)
    desk.pusher.push_due()
    assert desk.told.signals == [TurnDead(desk.turn(match), match, "WorkerLost")]
    assert (desk.state(match), desk.fetched()) == ("dead", [])


def test_more_than_a_batch_is_pushed_in_one_pass(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass ends when nothing is due any more, and the loop's beat is heard at each batch."""
    monkeypatch.setattr(module, "BATCH", 2)
    for _ in range(5):
        desk.due()
    beats: list[int] = []
    assert desk.pusher.push_due(lambda: beats.append(1)) == 5
    assert len(beats) >= 3
    assert len(desk.fetched()) == 5


def test_the_push_is_committed_before_it_is_enqueued(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets the message finds the turn queued, however quick it is."""
    match = desk.due()
    seen: list[str] = []
    monkeypatch.setattr(desk.broker, "enqueue_many", lambda _: seen.append(desk.state(match)))
    desk.pusher.push_due()
    assert seen == ["queued"]


# Redis is away


def test_three_attempts_and_one_more_come_before_giving_up(desk: Desk) -> None:
    """Waits of 1 and 2 s between the three, 4 s more, then the definitive line: all in the contract's order."""
    match = desk.due()
    turn = desk.turn(match)
    desk.redis.kill()
    desk.pusher.push_due()
    errors = [event.error for event in desk.told.of(RedisAttemptFailed)]
    assert desk.told.signals == [
        GroupClosed(turn, match, 1),
        RedisAttemptFailed(1, 3, errors[0]),
        RetryIn(1.0),
        RedisReconnecting(),
        RedisAttemptFailed(2, 3, errors[1]),
        RetryIn(2.0),
        RedisReconnecting(),
        RedisAttemptFailed(3, 3, errors[2]),
        RetryIn(4.0),
        RedisReconnecting(),
        RedisGivenUp(3),
    ]
    assert desk.waits.seconds == [1.0, 2.0, 4.0]
    assert all("refused" in error.lower() for error in errors)


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, [1.0]), (2, [1.0, 2.0]), (5, [1.0, 2.0, 4.0, 4.0, 4.0])], ids=["1", "2", "5"]
)
def test_the_number_of_attempts_is_a_setting(desk: Desk, attempts: int, seconds: list[float]) -> None:
    """REDIS_MAX_ATTEMPTS says how many ⚠️ lines there are; no wait is longer than 4 s."""
    desk.due()
    desk.redis.kill()
    desk.another(attempts).push_due()
    assert desk.waits.seconds == seconds
    assert [(event.attempt, event.attempts) for event in desk.told.of(RedisAttemptFailed)] == [
        (attempt, attempts) for attempt in range(1, attempts + 1)
    ]
    assert desk.told.of(RedisGivenUp) == [RedisGivenUp(attempts)]


def test_each_attempt_is_a_beat(desk: Desk) -> None:
    """However many are asked for: they go on for minutes, and the loop that makes them does not stand still."""
    desk.due()
    desk.redis.kill()
    beats: list[int] = []
    desk.another(9).push_due(lambda: beats.append(len(desk.waits.seconds)))
    assert set(beats) == set(range(10))


@pytest.mark.parametrize("wait", [1, 2, 3])
def test_a_redis_that_comes_back_between_the_attempts_gets_the_push(desk: Desk, wait: int) -> None:
    """The lines end with the reconnection and the push, as the guide shows them, and nothing is given up."""
    match = desk.due()
    desk.redis.kill()
    desk.waits.during[wait] = desk.redis.start
    desk.pusher.push_due()
    assert desk.told.names()[-3:] == ["redis_reconnecting", "redis_reconnected", "turn_pushed"]
    assert desk.told.of(RedisGivenUp) == []
    assert not desk.pusher.waits_for_redis
    desk.pusher.push_due()  # a Redis that was away may have lost what it had: all is pushed again, this one too
    assert desk.fetched() == [f"compose:{desk.turn(match)}"]


def test_an_open_circuit_takes_nothing_from_postgresql(desk: Desk) -> None:
    """While Redis is away turns stay open in the table, no attempt is made and nothing more is said."""
    desk.due()
    desk.redis.kill()
    desk.pusher.push_due()
    assert desk.pusher.waits_for_redis
    desk.told.clear()
    second = desk.due()
    assert desk.pusher.push_due() == 0
    assert desk.pusher.push_due() == 0
    assert (desk.state(second), desk.told.signals) == ("open", [])
    assert desk.waits.seconds == [1.0, 2.0, 4.0]


def test_an_open_circuit_is_probed_once_a_second(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the planner asks, Redis is not hammered."""
    monkeypatch.setattr(module, "PROBE_SECONDS", 3600.0)
    desk.reconnect.give_up(attempts=3)
    probes: list[int] = []
    monkeypatch.setattr(time, "monotonic", lambda: 10_000.0)
    monkeypatch.setattr(desk.broker, "probe", lambda: probes.append(1))
    monkeypatch.setattr(desk.reconnect, "recovered", lambda: None)
    for _ in range(5):
        desk.pusher.push_due()
    assert len(probes) == 1


def test_after_an_outage_everything_is_pushed_at_once(desk: Desk) -> None:
    """What was pushed and may be lost, and what became due meanwhile; and each turn gets its one ✅ line."""
    lost, failed = desk.due(), None
    desk.pusher.push_due()
    failed = desk.due()
    desk.redis.kill()  # it had the first one
    desk.pusher.push_due()
    late = desk.due()
    desk.redis.start()
    desk.told.clear()
    desk.pusher.push_due()
    assert not desk.pusher.waits_for_redis
    assert sorted(desk.fetched()) == sorted(f"compose:{desk.turn(match)}" for match in (lost, failed, late))
    assert desk.told.signals[0] == RedisReconnected()
    assert {event.match_id for event in desk.told.of(TurnPushed)} == {failed, late}
    assert desk.pushed.count(failed) == 1
    desk.told.clear()
    advance(desk.urls, LATER)
    desk.pusher.push_due()
    assert desk.told.of(TurnPushed) == []


def test_each_outage_is_given_up_once(desk: Desk) -> None:
    """Two outages have two definitive lines, whatever is due during each."""
    for _ in range(2):
        desk.due()
        desk.redis.kill()
        for _ in range(3):
            desk.pusher.push_due()
            advance(desk.urls, LATER)
        desk.redis.start()
        desk.pusher.push_due()
    assert len(desk.told.of(RedisGivenUp)) == 2


def test_a_stop_ends_the_attempts(desk: Desk) -> None:
    """Told to stop during a wait, it makes no further attempt and gives nothing up; the turn's due time remains."""
    match = desk.due()
    desk.redis.kill()
    desk.waits.during[2] = desk.waits.set
    desk.pusher.push_due()
    assert desk.waits.seconds == [1.0, 2.0]
    assert desk.told.of(RedisGivenUp) == []
    late = desk.due()
    assert desk.pusher.push_due() == 0
    assert (desk.state(match), desk.state(late)) == ("queued", "open")


def test_when_postgresql_is_away_too_the_recovery_is_made_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the lost pushes could not be made due, the circuit stays open."""
    lost = desk.due()
    desk.pusher.push_due()
    desk.redis.kill()
    desk.due()
    desk.pusher.push_due()
    desk.redis.start()

    def away() -> Any:  # noqa: ANN401
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "reset_pushes", away)
        with pytest.raises(DatabaseUnavailable):
            desk.pusher.push_due()
    assert desk.pusher.waits_for_redis
    desk.pusher.push_due()
    assert f"compose:{desk.turn(lost)}" in desk.fetched()


@pytest.mark.parametrize("refusal", ["maxmemory", "readonly"])
def test_a_redis_that_refuses_writes_is_away(desk: Desk, refusal: str) -> None:
    """Full or read-only, it is tried, given up, probed with a write and taken back like one that is down."""
    match = desk.due()
    if refusal == "maxmemory":
        desk.broker.client.config_set("maxmemory", "1")
    else:
        desk.broker.client.replicaof("127.0.0.1", "1")
    desk.pusher.push_due()
    assert len(desk.told.of(RedisGivenUp)) == 1
    desk.pusher.push_due()
    assert desk.pusher.waits_for_redis
    if refusal == "maxmemory":
        desk.broker.client.config_set("maxmemory", "0")
    else:
        desk.broker.client.replicaof("NO", "ONE")
    desk.pusher.push_due()
    assert desk.fetched() == [f"compose:{desk.turn(match)}"]


def test_turns_that_another_scheduler_pushed_are_forgotten(desk: Desk) -> None:
    """Outage after outage no more is remembered than may be queued at once, and of that the newest is told of."""
    turns = [
        Push(number, "compose", Kind.REPLY, "match", 1, first=True, recovered=False, due_at=datetime.now(UTC))
        for number in range(1, PUSH_WINDOW + 2)
    ]
    batches: list[list[Push]] = [turns[:-1], turns[-1:], [replace(turn, first=False) for turn in turns], []]
    store: Any = SimpleNamespace(push_due=lambda _: batches.pop(0), reset_pushes=lambda: 0)
    pusher = desk.another(3, store)
    for _ in range(2):  # Redis is known to be away by the time that they are to be enqueued
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pusher, "_redis_is_there", iter([True, False]).__next__)
            desk.reconnect.give_up(attempts=3)
            pusher.push_due()
    pusher.push_due()
    assert [push.turn_id for push in desk.told.of(TurnPushed)] == [turn.turn_id for turn in turns[1:]]


def test_what_was_pushed_under_another_id_is_pushed_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failover the queue has other keys: what lies under the old ones is due at once, and their bell rings."""
    turn = desk.turn(desk.due())
    assert desk.pusher.push_due() == 1
    old = desk.broker.key(QUEUE_NAME)
    desk.broker.client.delete(f"{old}.bell")
    assert desk.pusher.push_due() == 0

    monkeypatch.setattr(desk.broker, "_ask_queue_id", lambda: "another")
    assert desk.pusher.push_due() == 1
    assert desk.fetched() == [f"compose:{turn}"]
    assert desk.broker.client.llen(f"{old}.bell") == 1
    assert desk.pusher.push_due() == 0
