from __future__ import annotations

import json
import queue
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg2
import pytest

from bridge_service.install.plan import migrate
from bridge_service.machine.database import Connection, Row
from bridge_service.telemetry.signals import (
    EventSetAside,
    ListenActive,
    ListenSilent,
    ListenStarting,
    MatchDetected,
    MessageGrouped,
    NotificationReceived,
    NotificationRejected,
    PostgresLost,
    PostgresRefused,
    SchemaAbsent,
    TurnSuperseded,
)
from schedulers import bells, grouper, looks
from schedulers import listener as module
from schedulers.listener import DUE_CHANNEL, Listener
from tests.chaos.proxy import FINE, Way, Weather
from tests.support.app import CAMILLE, HUGO, LEA, WRITE, App
from tests.support.databases import execute, install
from tests.support.policy import set_policy
from tests.support.recorder import Recorder
from tests.support.store import store_on
from tests.support.waiting import eventually
from tests.support.weather import forgets_sockets, proxy_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bridge_service.demo.servers import PostgresServer
    from bridge_service.machine.answers import Grouped
    from bridge_service.machine.steps import Store
    from tests.support.roles import Urls

WHILE_LOCKED: Final = 10.0
AT_ONCE: Final = 3.0
"""Seconds: far below any sweep, which nobody makes here, far above what a busy machine takes."""


class Desk:
    """An app, and listeners on its database; nobody sweeps."""

    def __init__(self, urls: Urls, stack: ExitStack) -> None:
        self.urls = urls
        self.app = stack.enter_context(closing(App(urls)))
        self._stack = stack

    def listener(
        self, connect: Callable[[], Connection] | None = None, urls: Urls | None = None, store: Store | None = None
    ) -> Running:
        """Return a listener, which does not run yet."""
        urls = urls or self.urls
        store = store or self._stack.enter_context(store_on(urls))
        running = Running(store, connect or (lambda: Connection(urls.service, application="test listener")))
        self._stack.callback(running.stop)
        return running

    def silent(self, match: str) -> str:
        """Capture a message without a bell, as the trigger does when it thinks that somebody looks anyway."""
        message = str(uuid4())
        self.app.rows(
            "INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, captured_at)"
            " VALUES ('message', %s, %s, %s, %s, now())",
            *(match, message, CAMILLE, LEA),
        )
        return message

    def grouped(self, message: str) -> bool:
        """Whether a message stands in a turn."""
        return bool(
            self.app.value("SELECT count(*) FROM bridge.events WHERE message_id = %s AND turn_id IS NOT NULL", message)
        )

    def wait_until_grouped(self, *messages: str, timeout: float = AT_ONCE) -> None:
        """Return once all of them stand in turns."""
        eventually(lambda: all(map(self.grouped, messages)), timeout)

    def without_triggers(self) -> None:
        """Take the capture triggers out, as on a database where the app has its own."""
        self.app.rows("DROP TRIGGER bridge_before_message ON messages")
        self.app.rows("DROP TRIGGER bridge_after_message ON messages")
        self.app.rows("DROP TRIGGER bridge_after_match ON matches")

    def notify(self, channel: str, **payload: object) -> None:
        """Send a notification as somebody else's trigger does."""
        self.app.rows("SELECT pg_notify(%s, %s)", channel, json.dumps(payload))

    def notify_message(self, match: str, message: str) -> None:
        """Send what the old program's trigger sent."""
        self.notify(
            "bot_events",
            match_id=match,
            bot_id=CAMILLE,
            sender_id=LEA,
            message_id=message,
            message_content="salut",
            created_at="2025-10-30T12:00:00+00:00",
        )

    def listening(self) -> int:
        """How many connections are there to listen."""
        return int(
            self.app.value(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'test listener'"
            )
        )


class Running:
    """A listener and its thread."""

    def __init__(self, store: Store, connect: Callable[[], Connection]) -> None:
        self.told = Recorder()
        self.batches: queue.Queue[list[Grouped]] = queue.Queue()
        self.dues: queue.Queue[None] = queue.Queue()
        self.beats = 0
        self.on_grouped: Callable[[list[Grouped]], None] = self.batches.put
        self.listener = Listener(
            store,
            connect,
            on_grouped=lambda events: self.on_grouped(events),  # noqa: PLW0108 - a test may change it
            on_due=lambda: self.dues.put(None),
            emit=self.told,
        )
        self.listener.beat = self._beat
        self.crashes: list[object] = []
        self.listener.crash = lambda *crash: self.crashes.append(crash)

    def _beat(self) -> None:
        self.beats += 1

    def start(self, *, until: type[ListenActive | ListenSilent] | None = ListenActive) -> Running:
        """Start it and wait until it listens."""
        self.listener.start()
        if until is not None:
            self.told.wait_for(until)
        return self

    def stop(self) -> float:
        """Stop it, and return how many seconds that took; fail if it crashed."""
        began = time.monotonic()
        self.listener.stop(10)
        taken = time.monotonic() - began
        assert self.crashes == []
        assert taken < 10
        return taken


@pytest.fixture
def desk(bridge_database: Urls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Give an app whose listeners reconnect quickly."""
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.05)
    with ExitStack() as stack:
        yield Desk(bridge_database, stack)


# Hearing


def test_what_was_written_before_the_start_is_found(desk: Desk) -> None:
    """Its first look, done before it says that it listens, finds what no bell will ever announce."""
    message = desk.app.write(desk.app.old_match(), "salut")
    running = desk.listener().start()
    assert desk.grouped(message)
    assert running.told.names() == ["listen_starting", "message_grouped", "listen_active"]
    assert running.listener.listening()
    running.dues.get(timeout=AT_ONCE)


def test_a_message_is_heard_at_once(desk: Desk) -> None:
    """A message is grouped long before any sweep, and told of: the notification, then its place in its group."""
    match = desk.app.old_match()
    running = desk.listener().start()
    for position in (1, 2):
        desk.wait_until_grouped(desk.app.write(match, "salut"))
        running.told.wait_for(MessageGrouped, position)
        [grouped] = running.batches.get(timeout=AT_ONCE)
        assert (grouped.match_id, grouped.place, grouped.state) == (match, position, "open")
    first, second = running.told.of(MessageGrouped)
    assert (first.position, second.position, first.delay_seconds) == (1, 2, 15.0)
    assert first.turn_id == second.turn_id
    notification = running.told.of(NotificationReceived)[0]
    assert (notification.channel, notification.match_id) == ("bot_events", match)
    assert notification.pid == desk.app.people.connection.get_backend_pid()


def test_a_new_match_is_heard_at_once(desk: Desk) -> None:
    """It is told of as a match, with its bot."""
    running = desk.listener().start()
    match = desk.app.match(HUGO)
    assert running.told.wait_for(MatchDetected) == [MatchDetected(match, CAMILLE)]
    assert running.told.of(NotificationReceived)[0].channel == "new_match"


def test_a_due_bell_is_passed_on_and_told_to_nobody(desk: Desk) -> None:
    """The bridge's own channel asks for a pass of the planner, and is no line in the log."""
    running = desk.listener().start()
    while not running.dues.empty():
        running.dues.get()
    desk.app.rows("NOTIFY bridge_due")
    running.dues.get(timeout=AT_ONCE)
    assert running.told.names() == ["listen_starting", "listen_active"]


def test_a_bell_that_was_left_out_is_made_up_for_by_the_looks_after_a_batch(desk: Desk) -> None:
    """What is committed just after a look, by somebody who believed that a look was to come, is found soon."""
    match, other = desk.app.old_match(), desk.app.old_match(HUGO)
    running = desk.listener()
    silent: list[str] = []

    def put_and_capture(events: list[Grouped]) -> None:
        if not silent:
            silent.append(desk.silent(other))
        running.batches.put(events)

    running.on_grouped = put_and_capture
    running.start()
    desk.app.write(match, "salut")
    running.batches.get(timeout=AT_ONCE)
    desk.wait_until_grouped(*silent)


def test_a_look_that_was_asked_for_finds_what_no_bell_announced(desk: Desk) -> None:
    """Without a bell nothing happens until the sweep asks for a look; then it is grouped at once."""
    running = desk.listener().start()
    message = desk.silent(desk.app.old_match())
    with pytest.raises(queue.Empty):
        running.batches.get(timeout=0.2)
    running.listener.look()
    desk.wait_until_grouped(message)


def test_a_newer_message_is_heard_at_once(desk: Desk) -> None:
    """The reply that a worker composes makes way as soon as the message is grouped, and that is told."""
    set_policy(desk.urls, grouping_delay=0)
    running = desk.listener().start()
    match = desk.app.old_match()
    desk.app.write(match, "salut")
    [event] = running.batches.get(timeout=AT_ONCE)
    with store_on(desk.urls) as store:
        store.push_due(1)
        assert store.claim(event.turn_id, uuid4(), plain=False).name == "claimed"
    desk.app.write(match, "attends")
    assert running.told.wait_for(TurnSuperseded) == [TurnSuperseded(event.turn_id, match, 1)]


def test_looks_from_ten_threads_lose_nothing(desk: Desk) -> None:
    """Whatever was captured before a look was asked for is found by it, however many ask at once."""
    running = desk.listener().start()
    matches = [desk.app.old_match() for _ in range(10)]
    apps = [App(desk.urls) for _ in matches]

    def hammer(app: App, match: str) -> None:
        own = Desk.__new__(Desk)
        own.app = app
        for _ in range(5):
            message = own.silent(match)
            for _ in range(20):
                running.listener.look()
            eventually(lambda message=message: own.grouped(message), 5)  # type: ignore[misc]

    failures: list[BaseException] = []

    def guarded(app: App, match: str) -> None:
        try:
            hammer(app, match)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=pair) for pair in zip(apps, matches, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for app in apps:
        app.close()
    assert failures == []
    assert desk.app.value("SELECT count(*) FROM bridge.events WHERE turn_id IS NULL") == 0


def test_many_bells_make_few_looks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are APART_SECONDS apart at least, and what the last bell announced is found."""
    with store_on(desk.urls) as store:
        began_at: list[float] = []
        group = store.group

        def counted(*arguments: Any, **named: Any) -> list[Grouped]:  # noqa: ANN401
            began_at.append(time.monotonic())
            return group(*arguments, **named)

        monkeypatch.setattr(store, "group", counted)
        running = desk.listener(store=store).start()
        match = desk.app.old_match()
        began = time.monotonic()
        while time.monotonic() - began < 0.3:
            last = desk.app.write(match, "salut")
            desk.notify_message(match, last)
        desk.wait_until_grouped(last)
        taken = time.monotonic() - began
        running.stop()
    assert len(began_at) <= taken / looks.APART_SECONDS + 3


# Losing the connection


def test_a_connection_that_was_killed_is_replaced_and_nothing_is_missed(desk: Desk) -> None:
    """It says that PostgreSQL is lost, listens again by itself and finds what was written meanwhile."""
    running = desk.listener().start()
    match = desk.app.old_match()
    desk.app.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test listener'"
        " AND datname = current_database()"
    )
    message = desk.app.write(match, "salut")
    running.told.wait_for(ListenActive, 2)
    desk.wait_until_grouped(message)
    assert len(running.told.of(PostgresLost)) == 1
    assert running.told.of(ListenStarting) == [ListenStarting()] * 2
    desk.wait_until_grouped(desk.app.write(match, "ça va ?"))
    eventually(lambda: desk.listening() == 1)


@forgets_sockets
def test_a_connection_that_swallows_everything_is_found_out(
    desk: Desk, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No error ever comes from it, so a question is asked every few seconds; then as after any loss."""
    assert bells.HEARTBEAT_SECONDS + bells.HEARTBEAT_TIMEOUT_SECONDS <= 10
    monkeypatch.setattr(bells, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(bells, "HEARTBEAT_TIMEOUT_SECONDS", 0.3)
    with proxy_to(postgres.port) as proxy, store_on(desk.urls) as store:
        url = desk.urls.service.replace(f":{postgres.port}/", f":{proxy.port}/")
        running = desk.listener(lambda: Connection(url, application="test listener", seconds=0.5), store=store).start()
        proxy.set(Weather(stalled=frozenset({Way.ANSWERS})))
        lost = running.told.wait_for(PostgresLost)
        assert lost[0].error == "no answer from PostgreSQL within 0.3 s"
        assert not running.listener.listening()
        message = desk.app.write(desk.app.old_match(), "salut")
        proxy.set(FINE)
        running.told.wait_for(ListenActive, 2)
        desk.wait_until_grouped(message)
        running.stop()


def test_it_waits_for_the_schema(app_database: Urls, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a database that was not migrated it says so, and goes on by itself when it was."""
    monkeypatch.setattr(bells, "PROOF_SECONDS", 0.1)
    running = desk.listener(urls=app_database).start(until=None)
    running.told.wait_for(SchemaAbsent, 2)
    install(app_database)
    running.told.wait_for(ListenActive)
    with closing(App(app_database)) as app:
        app.write(app.match(), "salut")
    running.told.wait_for(MessageGrouped)


class Deaf(Connection):
    """What a pooler in transaction mode gives: LISTEN is accepted, and nothing is ever heard."""

    def execute(self, statement: str, parameters: Sequence[object] = (), *, seconds: float = 5.0) -> list[Row]:
        """Swallow LISTEN."""
        return super().execute(statement.replace("LISTEN", "SELECT 1 AS"), parameters, seconds=seconds)


def test_a_silent_pooler_is_polled_instead(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing heard of its own notification, it says so and looks every half second; due bells are made up for too."""
    monkeypatch.setattr(bells, "PROOF_SECONDS", 0.1)
    monkeypatch.setattr(looks, "POLL_SECONDS", 0.05)
    running = desk.listener(lambda: Deaf(desk.urls.service, application="test listener")).start(until=ListenSilent)
    desk.wait_until_grouped(desk.app.write(desk.app.old_match(), "salut"))
    while not running.dues.empty():
        running.dues.get()
    running.dues.get(timeout=AT_ONCE)
    assert running.told.of(ListenActive) == []
    assert running.told.of(NotificationReceived) == []
    assert "0.1 s" in running.told.of(ListenSilent)[0].reason


# What others notify


@pytest.mark.parametrize(
    ("channel", "payload", "reason"),
    [
        ("bot_events", "salut", "the payload is not JSON"),
        ("bot_events", "{}", "`match_id` is not a uuid"),
        ("new_match", '{"id": 7}', "`id` is not a uuid"),
    ],
)
def test_a_malformed_notification_is_told_of_and_ignored(desk: Desk, channel: str, payload: str, reason: str) -> None:
    """One event that says what is wrong with it; and the listener listens on."""
    running = desk.listener().start()
    desk.app.rows("SELECT pg_notify(%s, %s)", channel, payload)
    assert running.told.wait_for(NotificationRejected) == [NotificationRejected(channel, reason)]
    desk.wait_until_grouped(desk.app.write(desk.app.old_match(), "salut"))


def test_where_the_triggers_are_a_notification_is_only_a_bell(desk: Desk) -> None:
    """A forged one makes nobody answer anything: what nobody wrote is not captured, and what was, only once."""
    match = desk.app.old_match()
    running = desk.listener().start()
    desk.notify_message(match, str(uuid4()))
    desk.notify("new_match", id=match, user1_id=LEA, user2_id=CAMILLE)
    message = desk.app.write(match, "salut")
    desk.notify_message(match, message)
    desk.wait_until_grouped(message)
    running.told.wait_for(NotificationReceived, 3)
    assert desk.app.rows("SELECT message_id::text FROM bridge.events") == [(message,)]
    assert running.told.of(NotificationRejected) == []


def test_where_the_triggers_are_not_a_notification_is_captured(desk: Desk) -> None:
    """The old program's trigger is enough: its messages and matches are captured on arrival, once, and none refused."""
    desk.without_triggers()
    running = desk.listener().start()
    match = desk.app.match(HUGO)
    desk.notify("new_match", id=match, user1_id=HUGO, user2_id=CAMILLE)
    running.told.wait_for(MatchDetected)
    message = desk.app.write(match, "salut", sender=HUGO)
    for _ in range(2):
        desk.notify_message(match, message)
    desk.wait_until_grouped(message)
    running.told.wait_for(NotificationReceived, 5)  # ours ring as well
    eventually(lambda: not running.listener._foreign._uncaptured)
    assert running.told.of(NotificationRejected) == []
    assert desk.app.value("SELECT count(*) FROM bridge.events") == 2
    running.told.wait_for(MessageGrouped)
    assert [event.position for event in running.told.of(MessageGrouped)] == [1]


def test_several_schedulers_capture_the_same_notification_once(desk: Desk) -> None:
    """All of them hear it; one event comes of it, and none calls it forged."""
    desk.without_triggers()
    crew = [desk.listener().start() for _ in range(3)]
    match = desk.app.old_match()
    messages = [desk.app.write(match, "salut") for _ in range(10)]
    for message in messages:
        desk.notify_message(match, message)
    desk.wait_until_grouped(*messages)
    desk.app.rows("NOTIFY new_match, 'the end'")
    for running in crew:
        running.told.wait_for(NotificationRejected)
        eventually(lambda running=running: not running.listener._foreign._uncaptured)  # type: ignore[misc]
        assert [event.channel for event in running.told.of(NotificationRejected)] == ["new_match"]
        assert len(running.told.of(NotificationReceived)) >= 10
    assert desk.app.value("SELECT count(*) FROM bridge.events") == 10


def test_a_forged_notification_is_refused_where_the_triggers_are_not(desk: Desk) -> None:
    """Nothing it says is believed: what is not there, or the bot's, or from a match of two people, is refused."""
    desk.without_triggers()
    running = desk.listener().start()
    match, people = desk.app.old_match(), desk.app.old_match(LEA, HUGO)
    desk.notify_message(match, str(uuid4()))
    desk.notify_message(match, desk.app.write(match, "je suis un bot", sender=CAMILLE))
    desk.notify_message(people, desk.app.write(people, "salut"))
    desk.notify_message(people, desk.app.write(match, "dans un autre match"))
    desk.notify("new_match", id=people, user1_id=LEA, user2_id=HUGO)
    rejected = running.told.wait_for(NotificationRejected, 5)
    assert {event.reason for event in rejected} == {"it names nothing that is to be answered"}
    assert desk.app.value("SELECT count(*) FROM bridge.events WHERE kind = 'message'") == 0


def test_triggers_that_vanish_or_come_are_noticed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that runs on while somebody migrates changes its ways by itself."""
    monkeypatch.setattr(bells, "HEARTBEAT_SECONDS", 0.02)
    desk.listener().start()
    match = desk.app.old_match()
    desk.without_triggers()
    message = desk.app.write(match, "salut")

    def captured() -> bool:
        desk.notify_message(match, message)
        return desk.grouped(message)

    eventually(captured)
    migrate(desk.urls.owner)
    forged = desk.app.old_match(HUGO)
    unknown = str(uuid4())
    desk.app.rows("SET session_replication_role = replica")
    desk.app.rows(WRITE, unknown, forged, HUGO, "salut")
    desk.app.rows("RESET session_replication_role")
    eventually(lambda: desk.app.value("SELECT bridge.triggers_installed()"))
    desk.wait_until_grouped(desk.app.write(match, "ça va ?"))
    assert not desk.grouped(unknown)


# A bad batch


def test_a_bad_batch_is_set_aside_one_conversation_at_a_time(desk: Desk) -> None:
    """The conversation that spoils it is told of and kept for an operator; the others are grouped at once."""
    bad, good = desk.app.old_match(), desk.app.old_match(HUGO)
    execute(
        desk.urls.admin,
        f"""
        CREATE FUNCTION public.spoil() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'spoilt' USING DETAIL = 'secret words'; END $$;
        CREATE TRIGGER spoil BEFORE INSERT ON bridge.turns FOR EACH ROW
            WHEN (NEW.match_id = '{bad}') EXECUTE FUNCTION public.spoil();
        """,
    )
    messages = [desk.app.write(bad, "salut"), desk.app.write(good, "salut", sender=HUGO), desk.app.write(bad, "?")]
    running = desk.listener().start()
    [aside] = running.told.wait_for(EventSetAside)
    assert (aside.count, aside.match_id, "spoilt" in aside.error, "P0001" in aside.error) == (2, bad, False, True)
    desk.wait_until_grouped(messages[1])
    assert [grouped.match_id for grouped in running.batches.get(timeout=AT_ONCE)] == [good]
    assert desk.app.value("SELECT count(*) FROM bridge.events WHERE error LIKE '%%P0001%%' AND turn_id IS NULL") == 2
    later = desk.app.write(good, "ça va ?", sender=HUGO)
    desk.wait_until_grouped(later)
    assert len(running.told.of(EventSetAside)) == 1


def test_conversations_that_somebody_holds_hold_up_no_other(desk: Desk) -> None:
    """A frozen worker keeps its conversations' turns locked: all others are grouped, those once they are let go."""
    held = [desk.app.old_match() for _ in range(grouper.BUSY_TRIES + 2)]
    running = desk.listener().start()
    desk.wait_until_grouped(*(desk.app.write(match, "salut") for match in held), timeout=WHILE_LOCKED)
    with closing(psycopg2.connect(desk.urls.admin)) as frozen, frozen.cursor() as cursor:
        cursor.execute("SELECT FROM bridge.turns WHERE match_id = ANY (%s::uuid[]) FOR UPDATE", (held,))
        late = [desk.app.write(match, "tu es là ?") for match in held]
        for _ in range(3):
            other = desk.app.write(desk.app.old_match(HUGO), "salut", sender=HUGO)
            desk.wait_until_grouped(other, timeout=WHILE_LOCKED)
        assert not any(map(desk.grouped, late))
        beats = running.beats
        eventually(lambda: running.beats > beats)
        frozen.rollback()
        desk.wait_until_grouped(*late, timeout=WHILE_LOCKED)
    assert running.told.of(EventSetAside) == []
    assert running.told.of(PostgresLost) == []


def test_what_met_a_sequence_behind_is_grouped_later(desk: Desk) -> None:
    """The listener keeps listening and tries again by itself: nobody restarts it, and no event is set aside."""
    running = desk.listener().start()
    first = desk.app.old_match()
    desk.wait_until_grouped(desk.app.write(first, "salut"))
    desk.app.rows("SELECT setval('bridge.turns_id_seq', 1, false)")
    message = desk.app.write(desk.app.old_match(HUGO), "et moi ?", sender=HUGO)
    [refused] = running.told.wait_for(PostgresRefused)
    assert "bridge.turns" in refused.error
    desk.wait_until_grouped(message, timeout=10)
    assert running.told.of(EventSetAside) == []
    assert len(running.told.of(ListenStarting)) == 1


# Start and stop


def test_a_stop_ends_the_wait_at_once_and_closes_the_connection(desk: Desk) -> None:
    """Listening, it is down in no time, twice is harmless, and nothing is left at the server."""
    running = desk.listener().start()
    assert running.stop() < AT_ONCE
    running.listener.stop()
    assert not running.listener.listening()
    eventually(lambda: desk.listening() == 0)


def test_a_stop_ends_the_wait_for_a_database(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot connect is stopped as quickly."""
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 60.0)
    running = desk.listener(lambda: Connection("postgresql://127.0.0.1:1/x", application="test listener"))
    running.start(until=None)
    running.told.wait_for(PostgresLost)
    assert running.stop() < AT_ONCE


def test_a_stop_before_the_start_is_heeded(desk: Desk) -> None:
    """It never connects."""
    running = desk.listener()
    running.listener.stop()
    running.start(until=None)
    running.stop()
    assert running.told.signals == []


def test_the_loop_beats_and_an_idle_one_does_not_spin(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog hears of it at every heartbeat, and not a thousand times a second."""
    monkeypatch.setattr(bells, "HEARTBEAT_SECONDS", 0.1)
    running = desk.listener().start()
    running.listener.look()
    before = running.beats
    time.sleep(0.5)
    assert 3 <= running.beats - before <= 20


def test_the_due_channel_is_one_of_ours() -> None:
    """What the SQL functions ring is what is listened to."""
    assert DUE_CHANNEL == "bridge_due"
