"""A whole day in a moment: the clocks of Python and of the database are moved together, to whatever comes next.

Every part is the real one: PostgreSQL, Redis, grouping, planner, pusher, responder and composer; only the threads and
the waiting are left out. So each moment of the day is the planned one, and may be asked after.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Final

from freezegun import freeze_time

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.circuit import Reconnect
from bridge_service.brokers.messages import QUEUE_NAME, rebuild
from bridge_service.responders import echo
from bridge_service.telemetry.signals import PushesRepeated, ReplyDelivered, TurnPushed, TurnTyping
from bridge_service.worker.composer import Composer
from bridge_service.worker.leases import Leases
from bridge_service.worker.pacing import Pace
from schedulers.deliverer import Deliverer
from schedulers.planner import Planner
from schedulers.push import Pusher
from tests.support.app import CAMILLE, HUGO, LEA, App
from tests.support.clock import install_clock
from tests.support.ledger import Message, Sent, Terms, check
from tests.support.policy import set_policy
from tests.support.recorder import Recorder
from tests.support.store import store_on

if TYPE_CHECKING:
    import redis

    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls

PAUL: Final = "b0000000-0000-4000-8000-000000000002"
MORNING: Final = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
DAY: Final = timedelta(hours=16)
DELAY: Final = 15.0
FIRST_WORD: Final = (120.0, 300.0)
PACE: Final = Pace(2.0, 15.0, 3.5)

TICK: Final = 0.2
"""Seconds by which the database's clock, which runs on while the test works, may be ahead of the plan."""


class Day:
    """The service and its app on one clock."""

    def __init__(self, urls: Urls, redis_url: str, frozen: Any, stack: ExitStack) -> None:  # noqa: ANN401
        install_clock(urls)
        set_policy(
            urls,
            grouping_delay=DELAY,
            initiation_delay_min=FIRST_WORD[0],
            initiation_delay_max=FIRST_WORD[1],
            initiation_probability=1,
            **asdict(PACE),
        )
        self._frozen = frozen
        self.now = MORNING
        self.app = stack.enter_context(closing(App(urls)))
        self.store = stack.enter_context(store_on(urls))
        self.told = Recorder()
        self.sent: list[Sent] = []
        reconnect = Reconnect(self.told)
        self.broker = stack.enter_context(
            closing(WaitingBroker(redis_url, emit=self.told, middleware=[reconnect], queue_id=self.store.queue_id))
        )
        self.broker.declare_queue(QUEUE_NAME)
        self.pusher = Pusher(
            self.store,
            self.broker,
            reconnect,
            on_pushed=lambda _: None,
            emit=self.told,
            stopping=threading.Event(),
            attempts=3,
        )
        self.planner = Planner(
            self.store,
            self.pusher,
            self.store,
            look=lambda: None,
            emit=self.told,
            retention_days=30.0,
        )
        self.planner._jobs.start(paused=True)
        stack.callback(self.planner.last)
        self.deliverer = Deliverer(self.store, on_pushable=self.planner.wake, emit=self.told)
        self.composer = Composer(
            self.store,
            Leases(self.store, self.told, responder_timeout=180.0),
            echo.reply,
            self.told,
        )

    def move_to(self, moment: datetime) -> None:
        """Let both clocks show this moment."""
        seconds = self.app.value("SELECT extract(epoch FROM %s - bridge.now())", moment)
        self.app.rows("UPDATE bridge_test.clock SET ahead = ahead + make_interval(secs => %s)", float(seconds))
        self._frozen.move_to(moment)
        self.now = moment

    def write(self, match: str, sender: str) -> None:
        """Write one message, and note it in the books."""
        content = f"message {len(self.sent)}"
        message = self.app.write(match, content, sender=sender)
        self.sent.append(Sent(message, match, content, self.now, self.now, self.now))

    def work(self) -> datetime | None:
        """Do all that is due by now, and return when the planner or the deliverer wants to be woken next."""
        self.store.group()
        while True:
            self.planner._wanted.clear()
            self.deliverer._deliver()
            self.pusher.push_due()
            for body in self.broker.fetch(QUEUE_NAME, 1000):
                message = rebuild(body, QUEUE_NAME)
                getattr(self.composer, message.actor_name)(*message.args)
            due_in = self.deliverer._deliver().due_in
            self.planner._plan(self.store.next_due())
            if not self.planner._wanted.is_set() and (due_in is None or due_in > 0):
                break
        wakes = [job.next_run_time for job in self.planner._jobs.get_jobs()]
        if due_in is not None:
            wakes.append(datetime.now(UTC) + timedelta(seconds=due_in))
        return min(wakes, default=None)


def _plan(day: Day, chance: Random) -> list[tuple[datetime, str, str]]:
    """Draw who writes what when: bursts all day long, in old conversations and in new matches."""
    plan = []
    for person, bot, old in ((LEA, CAMILLE, True), (HUGO, PAUL, True), (LEA, PAUL, False), (HUGO, CAMILLE, False)):
        match = day.app.old_match(person, bot) if old else day.app.match(person, bot)
        at = MORNING + timedelta(minutes=chance.uniform(20, 90))
        while at < MORNING + DAY:
            for _ in range(chance.choice((1, 1, 2, 3, 5))):
                plan.append((at, match, person))
                at += timedelta(seconds=chance.choice((1, 3, 7, 12)))
            at += timedelta(minutes=chance.uniform(0.2, 240))
    return sorted(plan)


def test_a_whole_day_is_planned_to_the_second(
    bridge_database: Urls, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """Each burst is pushed when its delay is over, replies and first words at their planned seconds; none is lost."""
    assert redis_client.keys() == []
    chance = Random(7)  # noqa: S311 - the same day each time
    with ExitStack() as stack:
        # APScheduler's thread is paused; the clock of connections has to run on.
        frozen = stack.enter_context(freeze_time(MORNING, ignore=["bridge_service.machine.database", "redis"]))
        day = Day(bridge_database, redis_server.url(), frozen, stack)
        day.move_to(MORNING)
        plan = _plan(day, chance)
        wake = day.work()
        while plan or wake is not None:
            if plan and (wake is None or plan[0][0] <= wake):
                at, match, person = plan.pop(0)
                day.move_to(max(at, day.now))
                day.write(match, person)
            else:
                assert wake is not None
                day.move_to(max(wake, day.now))
            wake = day.work()

        rows = day.app.rows("SELECT id::text, match_id::text, content, created_at FROM messages")
        books = check([Message(*row) for row in rows], day.sent, Terms(DELAY))
        assert books.faults == 0, books
        assert (books.sent, books.openers) == (len(day.sent), 2)
        assert books.sent > 50
        assert 20 < books.replies < books.sent
        turns = day.app.rows(
            """
            SELECT extract(epoch FROM queued_at - opened_at), extract(epoch FROM answered_at - deliver_at),
                   extract(epoch FROM deliver_at - claimed_at), kind, merges, id
            FROM bridge.turns WHERE state = 'answered'
            """
        )
        assert len(turns) == books.replies + 2
        pauses = {event.turn_id: event.seconds for event in day.told.of(TurnTyping)}
        for pushed, delivered, paused, kind, merges, turn in turns:
            if kind == "initiation":
                assert FIRST_WORD[0] <= pushed < FIRST_WORD[1] + TICK
            elif not merges:
                assert DELAY <= pushed < DELAY + TICK
            assert 0 <= delivered < TICK
            assert pauses[turn] > PACE.thinking_delay_min
            assert 0 <= float(paused) - pauses[turn] < TICK
        assert day.app.rows("SELECT DISTINCT state FROM bridge.turns ORDER BY 1") in (
            [("answered",)],
            [("answered",), ("cancelled",)],
        )
        assert day.told.of(PushesRepeated) == []
        assert len(day.told.of(ReplyDelivered)) == len(turns)
        assert len(day.told.of(TurnPushed)) == day.app.value(
            "SELECT count(*) FROM bridge.turns WHERE queued_at IS NOT NULL"
        )


def test_a_night_of_outage_is_made_up_for_in_the_morning(
    bridge_database: Urls, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """Nobody worked for ten hours: with the first pass everything is pushed, and each conversation gets one answer."""
    assert redis_client.keys() == []
    with ExitStack() as stack:
        frozen = stack.enter_context(freeze_time(MORNING, ignore=["bridge_service.machine.database", "redis"]))
        day = Day(bridge_database, redis_server.url(), frozen, stack)
        day.move_to(MORNING)
        matches = [day.app.old_match() for _ in range(5)]
        for hour in range(10):
            day.move_to(MORNING + timedelta(hours=hour))
            for match in matches:
                day.write(match, LEA)
        day.move_to(MORNING + timedelta(hours=10))
        wake = day.work()
        while wake is not None:
            day.move_to(max(wake, day.now))
            wake = day.work()
        rows = day.app.rows("SELECT id::text, match_id::text, content, created_at FROM messages")
        books = check([Message(*row) for row in rows], day.sent, Terms(DELAY))
        assert (books.faults, books.replies) == (0, 5), books
        assert day.now < MORNING + timedelta(hours=10, minutes=5)
