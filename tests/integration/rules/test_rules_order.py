"""A conversation reads in the order in which it happened, whatever the clocks of the app's people say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from tests.support.roles import ADMIN
from tests.support.rules import CAMILLE, LEA, Bridge, without

if TYPE_CHECKING:
    from collections.abc import Sequence

WRITE_AT: Final = (
    "INSERT INTO messages (id, match_id, sender_id, content, created_at)"
    " VALUES (%s, %s, %s, %s, bridge.now() + %s::interval)"
)
NOT_AFTER: Final = ("deliver_turn", "bridge.stamp(coalesce(t.follows, t.id))", "bridge.now()")
BY_THE_APP: Final = ("task", "bridge.capture_order(t.match_id, v_history)", "v_history")


def _write(bridge: Bridge, match: str, text: str, shift: str = "0 s", *, sender: str = LEA) -> str:
    message = str(uuid4())
    bridge.rows(WRITE_AT, message, match, sender, text, shift)
    return message


def _answer(bridge: Bridge, match: str, draft: str) -> None:
    assert bridge.deliver(bridge.typing(match, draft)).name == "answered"


def _said(bridge: Bridge, match: str) -> list[str]:
    return [content for _, content in bridge.messages(match)]


def _history(bridge: Bridge, match: str) -> Sequence[str]:
    """Ask the bot something, and return the history that its responder is told."""
    bridge.write(match, "?")
    task = bridge.claimed(match).outcome.task
    assert task is not None
    assert [line.content for line in task.messages] == ["?"]
    return [line.content for line in task.history]


@without(NOT_AFTER)
@pytest.mark.parametrize("ahead", ["2 minutes", "23 hours"])
@pytest.mark.parametrize("digits", [0, 3, 6])
def test_a_reply_is_never_stamped_before_what_it_answers(bridge: Bridge, ahead: str, digits: int) -> None:
    """A phone whose clock is ahead by up to a day gets its answers below its questions, to the millisecond."""
    bridge.rows(f"ALTER TABLE messages ALTER created_at TYPE timestamptz({digits})")
    match = bridge.match()
    _write(bridge, match, "un", ahead)
    _write(bridge, match, "deux", "0 s")
    _answer(bridge, match, "réponse")
    gap = bridge.value(
        "SELECT extract(epoch FROM max(created_at) FILTER (WHERE sender_id = %s)"
        " - max(created_at) FILTER (WHERE sender_id <> %s)) FROM messages",
        *(CAMILLE, CAMILLE),
    )
    assert 0 <= gap <= 1
    assert digits == 0 or _said(bridge, match) == ["deux", "un", "réponse"]


@without(("stamp", "(e.created_at <= v_now + interval '1 day') IS TRUE AND isfinite(e.created_at)", "true"))
@pytest.mark.parametrize("time", ["2099-01-01", "infinity", "294276-12-31 23:59:59+00"])
def test_a_clock_that_is_wrong_by_more_than_a_day_stamps_no_reply(bridge: Bridge, time: str) -> None:
    """The reply bears the bridge's own time, and no time that an app can write fails its delivery."""
    _is_stamped_by_the_bridge(bridge, time)


@pytest.mark.parametrize("time", ["-infinity", "0044-03-15 12:00+00 BC", "1970-01-01", None])
def test_a_clock_that_is_behind_stamps_no_reply(bridge: Bridge, time: str | None) -> None:
    """Nor does a message without a time."""
    _is_stamped_by_the_bridge(bridge, time)


def _is_stamped_by_the_bridge(bridge: Bridge, time: str | None) -> None:
    bridge.rows("UPDATE bridge.bots SET ignore_older_days = 0 WHERE scope = 'default'")
    match = bridge.match()
    bridge.rows(
        "INSERT INTO messages (match_id, sender_id, content, created_at) VALUES (%s, %s, 'salut', %s)", match, LEA, time
    )
    _answer(bridge, match, "réponse")
    assert bridge.turns(match)[0].attempts == 0
    assert bridge.value(
        "SELECT created_at BETWEEN bridge.now() - interval '1 minute' AND bridge.now()"
        " FROM messages WHERE sender_id = %s",
        CAMILLE,
    )


@without(NOT_AFTER)
def test_a_first_word_is_not_stamped_before_its_match(bridge: Bridge) -> None:
    """A match that is dated ahead gets its opener after it."""
    match = str(uuid4())
    bridge.rows(
        "INSERT INTO matches VALUES (%s, %s, %s, bridge.now() + interval '2 hours')",
        *(match, LEA, CAMILLE),
        connection=bridge.admin,
    )
    assert bridge.deliver(bridge.typing_opener(match)).name == "answered"
    assert bridge.value("SELECT w.created_at > m.created_at FROM messages w, matches m WHERE m.id = w.match_id")


@without(BY_THE_APP)
def test_the_history_stands_in_the_order_of_capture(bridge: Bridge) -> None:
    """Questions of a phone that is ahead, of one that is behind, and their answers are told as they happened."""
    match = bridge.match(opener=True)
    assert bridge.deliver(bridge.typing_opener(match, "bonjour")).name == "answered"
    for number, shift in enumerate(("2 minutes", "-3 minutes", "10 days", "0 s", "-10 days")):
        _write(bridge, match, f"question {number}", shift)
        _answer(bridge, match, f"réponse {number}")
    # As the present release stamped them.
    bridge.rows("UPDATE messages w SET created_at = t.answered_at FROM bridge.turns t WHERE t.reply_message_id = w.id")
    expected = [f"{word} {number}" for number in range(5) for word in ("question", "réponse")]
    assert _history(bridge, match) == ["bonjour", *expected]


@without(BY_THE_APP)
def test_what_the_bridge_does_not_know_keeps_its_place_by_the_app_s_times(bridge: Bridge) -> None:
    """Lines from before the installation, and a human's answer as the bot, stay where the app's times put them."""
    match = bridge.match()
    bridge.rows("SET session_replication_role = replica")
    _write(bridge, match, "avant", "-3 days")
    _write(bridge, match, "réponse d'avant", "-2 days", sender=CAMILLE)
    bridge.rows("RESET session_replication_role")
    _write(bridge, match, "question", "2 minutes")
    _answer(bridge, match, "réponse")
    bridge.rows("UPDATE messages SET created_at = bridge.now() WHERE content = 'réponse'")
    bridge.advance(3600)
    _write(bridge, match, "une humaine", sender=CAMILLE)
    bridge.advance(3600)
    assert _history(bridge, match) == ["avant", "réponse d'avant", "question", "réponse", "une humaine"]


def test_an_app_that_replaced_the_history_gets_the_same_order(bridge: Bridge) -> None:
    """The order is the core's: a history that comes in any order of its own is put in the order of capture."""
    match = bridge.match()
    for number in range(3):
        _write(bridge, match, f"question {number}")
        _answer(bridge, match, f"réponse {number}")
    bridge.rows("""
        ALTER FUNCTION bridge.history RENAME TO history_of_the_app;
        CREATE FUNCTION bridge.history(p_match uuid, p_covered uuid[], p_lines integer)
        RETURNS TABLE (message_id uuid, sender_id uuid, content text, created_at timestamptz, covered boolean)
        LANGUAGE sql STABLE SECURITY DEFINER AS $$
            SELECT * FROM bridge.history_of_the_app(p_match, p_covered, p_lines) ORDER BY content
        $$;
    """)
    expected = [f"{word} {number}" for number in range(3) for word in ("question", "réponse")]
    assert _history(bridge, match) == expected


def test_the_order_is_found_by_keys_alone(bridge: Bridge) -> None:
    """However many turns and events there are, finding the order of fifty lines reads a few hundred rows."""
    match = bridge.match()
    for number in range(3):
        _write(bridge, match, f"question {number}")
        _answer(bridge, match, "réponse")
    bridge.rows("""
        INSERT INTO bridge.turns (kind, match_id, bot_id, state, reason, opened_at, ended_at, covers)
        SELECT 'reply', gen_random_uuid(), gen_random_uuid(), 'cancelled', 'dropped', now(), now(), '{1}'
        FROM generate_series(1, 20000);
        INSERT INTO bridge.events (kind, match_id, message_id, bot_id, turn_id, captured_at)
        SELECT 'message', t.match_id, gen_random_uuid(), t.bot_id, t.id, now()
        FROM bridge.turns t WHERE t.reason = 'dropped';
    """)
    read = (
        "SELECT sum(seq_tup_read + idx_tup_fetch)::int FROM pg_stat_xact_all_tables"
        " WHERE schemaname = 'bridge' AND relname IN ('turns', 'events')"
    )
    session = bridge.session(ADMIN)
    order = (
        "SELECT jsonb_array_length(bridge.capture_order(%s,"
        " (SELECT jsonb_agg(jsonb_build_object('message_id', id) ORDER BY created_at) FROM messages)))"
    )
    bridge.rows(order, match, connection=session)
    before = bridge.value(read, connection=session) or 0
    assert bridge.value(order, match, connection=session) == 6
    assert bridge.value(read, connection=session) - before < 50
