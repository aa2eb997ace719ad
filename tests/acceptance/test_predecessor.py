"""What the program that this one replaces really did to people, each story as a test.

Those that need no process play the scheduler and the workers by hand, on the same functions.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import psycopg2.errors
import pytest

from bridge_service.errors import DatabaseRefused
from bridge_service.machine.steps import HISTORY_LINES, LEASE_SECONDS, PUSH_AGAIN_SECONDS
from tests.support.clock import install_clock
from tests.support.rules import CAMILLE, GROUPING_DELAY, LEA, MAX_MERGES, Bridge
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from tests.support.app import App
    from tests.support.roles import Urls
    from tests.support.service import Service


@pytest.fixture
def bridge(bridge_database: Urls) -> Iterator[Bridge]:
    """Give the hands to play every part with, and a clock to move."""
    install_clock(bridge_database)
    with closing(Bridge(bridge_database)) as bridge:
        yield bridge


def bot_says(bridge: Bridge, match: str) -> list[str]:
    """Return what the bot said in a match, oldest first."""
    return [content for sender, content in bridge.messages(match) if sender == CAMILLE]


def answer(bridge: Bridge, turn: int, draft: str) -> None:
    """Compose and deliver a turn without a pause."""
    claim = bridge.claim(turn)
    assert claim.outcome.name == "claimed"
    assert bridge.finish(claim, draft, pause=0).name == "answered"


# --- Messages that were lost -------------------------------------------------------------------


def test_a_message_in_the_cooldown_was_dropped(bridge: Bridge) -> None:
    """Within seconds of a push, and of an answer, a message joins the turn or opens the next one."""
    match = bridge.match()
    before = bridge.write(match, "avant le push")
    turn = bridge.pushed(match)
    pushed = bridge.write(match, "juste après le push")
    bridge.group()
    claim = bridge.claim(turn)
    assert bridge.covered(turn) == [before, pushed]
    bridge.finish(claim, pause=0)
    answered = bridge.write(match, "juste après la réponse")

    bridge.group()
    [_, following] = bridge.turns(match)
    assert (following.state, bridge.covered(following.id)) == ("open", [answered])


def test_timers_in_memory_died_with_the_process(service: Service, app: App) -> None:
    """A group that was open when the scheduler was killed is pushed by the next one, late by no more than its start."""
    install_clock(app.urls)
    service.environment["GROUPING_DELAY"] = "15"
    service.up()
    [scheduler, _] = service.processes
    match = app.old_match()
    app.write(match, "avant le redémarrage")
    service.wait_for_line("timer")

    service.kill(scheduler)
    app.write(match, "pendant le redémarrage")
    app.pass_time(15)
    service.start_scheduler()

    app.wait_for_replies(match, "avant le redémarrage\npendant le redémarrage")


def test_the_context_expired_before_the_push(service: Service, app: App, redis_client: redis.Redis) -> None:
    """The group does not live in Redis: with every key gone before its push it is answered all the same."""
    install_clock(app.urls)
    service.environment["GROUPING_DELAY"] = "15"
    service.up()
    match = app.old_match()
    app.write(match, "un")
    app.write(match, "deux")
    eventually(lambda: redis_client.hget(f"context:{match}", "count") == "2")

    redis_client.flushall()
    app.pass_time(15)

    app.wait_for_replies(match, "un\ndeux")


def test_a_notification_while_the_listener_was_away_was_lost(service: Service, app: App) -> None:
    """A message between two connections of the listener is found as soon as it listens again."""
    service.up()
    match = app.old_match()
    mark = service.mark()

    killed = app.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bridge listener'"
        " AND datname = current_database()"
    )
    app.write(match, "dans le vide")

    assert len(killed) == 1
    service.wait_for_line("Écoute active", after=mark)
    service.wait_for_line("timer", after=mark, timeout=4)  # the sweep may be five seconds away
    app.wait_for_replies(match, "dans le vide")


@pytest.mark.slow
def test_a_lost_notification_needed_a_script_run_by_hand(service: Service, app: App) -> None:
    """A message that rings no bell at all is found by the sweep, seconds later and by itself."""
    service.up()
    match = app.old_match()
    app.rows(
        "CREATE OR REPLACE FUNCTION bridge.ring(p_channel text, p_event bigint, p_payload json)"
        " RETURNS void LANGUAGE sql AS ''"
    )

    app.write(match, "sans cloche")

    app.wait_for_replies(match, "sans cloche")


def test_near_simultaneous_messages_overwrote_one_another(bridge: Bridge) -> None:
    """Forty messages over four connections of the app, grouped by two schedulers all the while, are all in one turn."""
    match = bridge.match()
    connections = [bridge.connect() for _ in range(4)]
    stores = [bridge.another_store() for _ in range(2)]

    def write(place: int) -> list[str]:
        return [bridge.write(match, "en même temps", connection=connections[place]) for _ in range(10)]

    def group(place: int) -> int:
        return sum(len(stores[place].group()) for _ in range(20))

    with ThreadPoolExecutor(6) as threads:
        writers = [threads.submit(write, place) for place in range(4)]
        groupers = [threads.submit(group, place) for place in range(2)]
        written = [message for writer in writers for message in writer.result()]
        grouped = sum(grouper.result() for grouper in groupers)
    grouped += len(bridge.group())

    [turn] = bridge.turns(match)
    assert grouped == 40
    assert sorted(bridge.covered(turn.id)) == sorted(written)


def test_a_job_popped_by_a_worker_that_crashed_was_lost(service: Service, app: App, redis_client: redis.Redis) -> None:
    """What was taken out of Redis and never done is pushed again; it is done once, however often it was pushed."""
    install_clock(app.urls)
    service.environment["GROUPING_DELAY"] = "15"
    scheduler = service.start_scheduler()
    service.wait_until_ready(scheduler)
    match = app.old_match()
    app.write(match, "perdu en route")
    service.wait_for_line("timer")
    app.pass_time(15)
    service.wait_for_line("Message poussé")
    queue = f"dramatiq:{{{app.value('SELECT bridge.queue_id()')}}}:bot_messages"
    eventually(lambda: redis_client.llen(queue) == 1)
    redis_client.flushall()

    worker = service.start_worker()
    service.wait_until_ready(worker)
    app.pass_time(PUSH_AGAIN_SECONDS)

    app.wait_for_replies(match, "perdu en route")


def test_an_exception_of_the_responder_lost_the_messages(bridge: Bridge) -> None:
    """After an error the turn is tried again; the person reads no apology meanwhile."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)

    bridge.store.fail(claim.turn, claim.token, "ValueError: boom", retry=1, counts=True)
    assert bot_says(bridge, match) == []
    bridge.advance(2)

    assert [push.turn_id for push in bridge.push()] == [claim.turn]
    answer(bridge, claim.turn, "coucou")
    assert bot_says(bridge, match) == ["coucou"]


def test_a_conversation_of_more_than_200_messages_died(bridge: Bridge) -> None:
    """The 251st message is answered, and its history is the latest lines, not the oldest."""
    bridge.rows(
        "UPDATE bridge.bots SET takeover_pause = 0 WHERE scope = 'default'"
    )  # the bot's lines come from the test
    match = bridge.match()
    for number in range(250):
        bridge.write(match, f"message {number}", sender=LEA if number % 2 else CAMILLE)
    bridge.group()
    bridge.advance(GROUPING_DELAY + 1)
    bridge.push()
    answer(bridge, bridge.turns(match)[0].id, "la suite")
    bridge.write(match, "et ensuite ?")

    task = bridge.claimed(match).outcome.task

    assert task is not None
    assert [line.content for line in task.messages] == ["et ensuite ?"]
    assert len(task.history) == HISTORY_LINES
    assert [line.content for line in task.history[-2:]] == ["message 249", "la suite"]


def test_a_long_message_failed_the_insert_of_the_app(bridge: Bridge) -> None:
    """Content never travels in a notification: a message of any length is stored, announced and answered."""
    match = bridge.match()
    bell = bridge.listen()
    text = "🙂é" * 10_000

    bridge.write(match, text)

    [(channel, payload)] = bell.heard()
    assert channel == "bot_events"
    assert len(payload.encode()) < 1000
    answer(bridge, bridge.pushed(match), text)
    assert bot_says(bridge, match) == [text]


# --- Answers that came twice, or not at all ----------------------------------------------------


def test_four_rapid_messages_got_three_answers(bridge: Bridge) -> None:
    """However the messages are grouped and however often the turn is pushed, one of all workers answers."""
    match = bridge.match()
    for number in range(4):
        bridge.write(match, f"message {number}")
        bridge.group()
    bridge.advance(GROUPING_DELAY + 1)
    pushes = [push for _ in range(3) for push in bridge.push()]
    [turn] = {push.turn_id for push in pushes}

    with ThreadPoolExecutor(3) as threads:
        claims = list(threads.map(lambda _: bridge.claim(turn), range(3)))
    [claim] = [claim for claim in claims if claim.outcome.name == "claimed"]
    bridge.finish(claim, "une seule", pause=0)

    assert claim.outcome.task is not None
    assert len(claim.outcome.task.messages) == 4
    assert bot_says(bridge, match) == ["une seule"]


def test_two_instances_pushed_and_answered_everything_twice(bridge: Bridge) -> None:
    """Two schedulers that look at the same moment push every turn once."""
    for _ in range(50):
        bridge.write(bridge.match())
    bridge.group()
    bridge.advance(GROUPING_DELAY + 1)
    stores = [bridge.another_store() for _ in range(2)]

    with ThreadPoolExecutor(2) as threads:
        pushes = [push for found in threads.map(lambda store: store.push_due(1000), stores) for push in found]

    assert len(pushes) == len({push.turn_id for push in pushes}) == 50


def test_recovery_and_the_live_job_both_answered(bridge: Bridge) -> None:
    """A delivery that is made three times, two of them at once, is one message."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match, "une fois")

    with ThreadPoolExecutor(3) as threads:
        outcomes = list(threads.map(lambda _: bridge.deliver(turn), range(3)))

    assert {outcome.name for outcome in outcomes} == {"answered"}
    assert bot_says(bridge, match) == ["une fois"]


def test_the_lock_was_released_by_whoever_came_late(bridge: Bridge) -> None:
    """A worker that wakes after its lease was given away can neither finish the turn nor take it from its new owner."""
    match = bridge.match()
    bridge.write(match)
    asleep = bridge.claimed(match)
    bridge.advance(LEASE_SECONDS + 1)
    bridge.push()
    awake = bridge.claim(asleep.turn)

    assert bridge.finish(asleep, "trop tard", pause=0).name == "fenced"
    assert bridge.store.release({asleep.turn: asleep.token}) == 0
    assert bridge.finish(awake, "à temps", pause=0).name == "answered"
    assert bot_says(bridge, match) == ["à temps"]


def test_who_never_stopped_talking_was_never_answered(bridge: Bridge) -> None:
    """A reply gives way to new messages MAX_MERGES times; then it is delivered, and the newest have their own turn."""
    match = bridge.match()
    bridge.write(match, "message 0")
    outcomes: list[str] = []
    while "answered" not in outcomes:
        turn = bridge.typing(match, f"réponse {len(outcomes)}")
        bridge.write(match, f"message {len(outcomes) + 1}")
        outcomes.append(bridge.deliver(turn).name)

    assert outcomes == ["superseded"] * MAX_MERGES + ["answered"]
    assert bot_says(bridge, match) == [f"réponse {MAX_MERGES}"]
    assert len(bridge.covered(turn)) == MAX_MERGES + 1
    answer(bridge, bridge.pushed(match), "réponse à la suite")


def test_one_slow_bot_held_up_all_conversations(service: Service, app: App) -> None:
    """A bot that thinks and types holds no worker: with one thread, six conversations are answered side by side."""
    service.environment |= {"GROUPING_DELAY": "0", "THINKING_DELAY_MIN": "3", "THINKING_DELAY_MAX": "3"}
    scheduler, worker = service.start_scheduler(), service.start_worker(threads=1)
    service.wait_until_ready(scheduler)
    service.wait_until_ready(worker)
    matches = [app.old_match() for _ in range(6)]
    for match in matches:
        app.write(match, "un")

    for match in matches:
        app.wait_for_replies(match, "un")

    first, last = app.rows("SELECT min(created_at), max(created_at) FROM messages WHERE sender_id = %s", CAMILLE)[0]
    assert (last - first).total_seconds() < 10  # one after the other it would be 15


# --- First words that were none ----------------------------------------------------------------


@pytest.mark.parametrize("writer", [LEA, CAMILLE])
def test_the_first_word_came_in_mid_conversation(bridge: Bridge, writer: str) -> None:
    """A match that is seen late, after messages of either side, gets no first word."""
    match = bridge.match(opener=True)
    for number in range(13):
        bridge.write(match, f"message {number}", sender=writer)

    bridge.group()
    bridge.advance(1000)
    bridge.push()
    bridge.claim(bridge.opener(match).id)

    opener = bridge.opener(match)
    assert (opener.state, opener.reason) == ("cancelled", "message")
    assert bot_says(bridge, match) == [f"message {number}" for number in range(13)] * (writer == CAMILLE)


def test_a_first_word_was_sent_when_the_look_at_the_conversation_failed(bridge: Bridge) -> None:
    """If the conversation cannot be looked at, nothing is said."""
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match)
    bridge.rows(
        "CREATE OR REPLACE FUNCTION bridge.history(p_match uuid, p_covered uuid[], p_lines integer)"
        " RETURNS TABLE (message_id uuid, sender_id uuid, content text, created_at timestamptz, covered boolean)"
        " LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no answer''; END'"
    )

    with pytest.raises(DatabaseRefused, match="P0001"):
        bridge.deliver(turn)

    assert bridge.messages(match) == []
    assert bridge.opener(match).state == "typing"


def test_a_match_got_two_first_words(bridge: Bridge) -> None:
    """Two schedulers, a match announced again and a delivery made again are one first word."""
    match = bridge.match(opener=True)
    stores = [bridge.another_store() for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda store: store.group(), stores))
    turn = bridge.typing_opener(match, "bonjour")
    bridge.deliver(turn)
    bridge.deliver(turn)

    bridge.store.capture_notified(match, None)
    bridge.group()
    bridge.advance(1000)

    assert bridge.push() == []
    assert bot_says(bridge, match) == ["bonjour"]
    with pytest.raises(psycopg2.errors.UniqueViolation):
        bridge.rows(
            "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, due_at)"
            " VALUES ('initiation', %s, %s, 'open', now(), now())",
            match,
            CAMILLE,
        )


# --- Half a deployment -------------------------------------------------------------------------


def test_only_one_of_the_two_processes_was_deployed(service: Service, app: App) -> None:
    """Worker without scheduler and scheduler without worker lose nothing: when the other one comes, all is answered."""
    first, second = app.old_match(), app.old_match()
    worker = service.start_worker()
    service.wait_until_ready(worker)
    app.write(first, "sans planificateur")
    service.kill(worker)

    scheduler = service.start_scheduler()
    service.wait_until_ready(scheduler)
    app.write(second, "sans ouvrier")
    service.wait_for_line("Message poussé", count=2)
    assert app.said(first) == app.said(second) == []
    service.start_worker()

    app.wait_for_replies(first, "sans planificateur")
    app.wait_for_replies(second, "sans ouvrier")


def test_due_times_were_shifted_by_the_time_zone_of_the_host(service: Service, app: App) -> None:
    """Processes and a database in three time zones answer at their second."""
    service.environment["GROUPING_DELAY"] = "1"
    name = app.value("SELECT current_database()")
    app.rows(f"ALTER DATABASE {name} SET timezone = 'America/Los_Angeles'")
    scheduler = service.start_scheduler(TZ="Pacific/Kiritimati")
    worker = service.start_worker(TZ="Asia/Kolkata")
    service.wait_until_ready(scheduler)
    service.wait_until_ready(worker)
    match = app.old_match()
    app.write(match, "quelle heure est-il ?")
    app.wait_for_replies(match, "quelle heure est-il ?")

    asked, answered = (at for (at,) in app.rows("SELECT created_at FROM messages ORDER BY created_at"))
    assert 1 <= (answered - asked).total_seconds() < 60
