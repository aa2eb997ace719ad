"""An edit or a deletion of a message that is not answered yet: what it does, and what it costs the app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from tests.support.roles import ADMIN, SERVICE
from tests.support.rules import CAMILLE, MAX_MERGES, without

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg2.extensions import connection as AppConnection  # noqa: N812 - as in waiting.py

    from tests.support.rules import Bridge, Claim, Taken

UNHEARD: Final[Taken] = (
    "sql",
    "DROP TRIGGER bridge_after_edit ON messages; DROP TRIGGER bridge_after_delete ON messages",
)
"""How it was before: no event tells of an edit or a deletion."""

CLAIM: Final = "SELECT bridge.claim(%s, %s, 15, 50)"
GROUP: Final = "SELECT * FROM bridge.group_events(0)"
CHANGES: Final = "SELECT id, turn_id FROM bridge.events WHERE kind = 'change' ORDER BY id"

SOFT_DELETE: Final = """
    ALTER TABLE messages ADD deleted_at timestamptz;
    CREATE OR REPLACE FUNCTION bridge.withdrawn(p_message uuid) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
    AS 'SELECT EXISTS (SELECT FROM public.messages m WHERE m.id = p_message AND m.deleted_at IS NOT NULL)';
    CREATE TRIGGER withdrawal AFTER UPDATE OF deleted_at ON messages FOR EACH ROW
    WHEN (OLD.deleted_at IS DISTINCT FROM NEW.deleted_at) EXECUTE FUNCTION bridge.after_change()
"""
"""What an app lays whose users delete messages by a mark."""


def edit(bridge: Bridge, message: str, text: str = "NEW", *, connection: AppConnection | None = None) -> None:
    """Edit a message as the app does."""
    bridge.rows("UPDATE messages SET content = %s WHERE id = %s", text, message, connection=connection or bridge.people)


def delete(bridge: Bridge, message: str) -> None:
    """Delete a message as the app does."""
    bridge.rows("DELETE FROM messages WHERE id = %s", message, connection=bridge.people)


def begun(bridge: Bridge, *texts: str) -> tuple[str, list[str], Claim]:
    """Give a match, its messages and its turn: a worker composes by a call that can be ended."""
    bridge.stop_clock()
    match = bridge.match()
    messages = [bridge.write(match, text) for text in texts or ("OLD",)]
    return match, messages, bridge.claimed(match, plain=False)


def composing(bridge: Bridge, *texts: str) -> tuple[str, list[str], Claim]:
    """As `begun`."""
    return begun(bridge, *texts)


def typing(bridge: Bridge, *texts: str) -> tuple[str, list[str], Claim]:
    """As `begun`, with a draft that waits for its time."""
    match, messages, claim = begun(bridge, *texts)
    assert bridge.finish(claim).name == "typing"
    return match, messages, claim


def texts_of(claim: Claim) -> list[str]:
    """Return what a claim is to answer."""
    assert claim.outcome.task is not None, claim.outcome
    return [line.content for line in claim.outcome.task.messages]


def again(bridge: Bridge, turn: int) -> Claim:
    """Claim the turn that is due, as the push of a scheduler makes a worker do."""
    assert [push.turn_id for push in bridge.push()] == [turn]
    return bridge.claim(turn, plain=False)


# What an edit does


@without(UNHEARD)
@pytest.mark.parametrize("begin", [composing, typing])
def test_X1_an_edit_ends_the_reply_under_way(
    bridge: Bridge, begin: Callable[[Bridge], tuple[str, list[str], Claim]]
) -> None:
    """Its call and its draft are worth nothing from then on, and the same turn answers the new text, once."""
    match, [message], claim = begin(bridge)
    edit(bridge, message)
    [event] = bridge.group()
    assert (event.kind, event.turn_id, event.beside_active) == ("change", claim.turn, True)
    [overtaken] = bridge.store.overtake([match])
    assert (overtaken.turn_id, overtaken.superseded, overtaken.merges) == (claim.turn, True, 1)
    assert bridge.store.overtake([match]) == []

    assert bridge.store.lost_leases({claim.token: claim.turn}) == [claim.token]
    assert bridge.finish(claim).name == "fenced"
    second = again(bridge, claim.turn)
    assert texts_of(second) == ["NEW"]
    assert bridge.finish(second, pause=0).name == "answered"
    assert [sender for sender, _ in bridge.messages(match)].count(CAMILLE) == 1


@without(("deliver_turn", "ELSIF bridge.is_changed(t.id, t.match_id, t.covers) THEN", "ELSIF false THEN"))
@pytest.mark.parametrize("grouped", [True, False], ids=["grouped", "not grouped"])
def test_X1_a_delivery_looks_for_edits(bridge: Bridge, *, grouped: bool) -> None:
    """A scheduler that is late, or died between grouping and overtaking, lets no reply to the old text out."""
    _, [message], claim = typing(bridge)
    edit(bridge, message)
    if grouped:
        bridge.group()
    bridge.advance(6)
    assert bridge.deliver(claim.turn).name == "superseded"
    bridge.group()
    second = again(bridge, claim.turn)
    assert texts_of(second) == ["NEW"]
    assert bridge.finish(second, pause=0).name == "answered"


@without(("is_changed", "ELSE e.error IS NULL AND", "ELSE false AND"))
def test_X1_a_delivery_sees_the_edit_that_is_just_being_grouped(bridge: Bridge) -> None:
    """Until the grouping commits, the event is ungrouped to all others."""
    _, [message], claim = typing(bridge)
    edit(bridge, message)
    bridge.advance(6)
    scheduler = bridge.session(SERVICE)
    assert [row[1] for row in bridge.rows(GROUP, connection=scheduler)] == ["change"]
    assert bridge.deliver(claim.turn).name == "superseded"
    scheduler.commit()
    assert texts_of(again(bridge, claim.turn)) == ["NEW"]


@without(("capture_change", "t.id = e.turn_id), true)", "t.id = e.turn_id), false)"))
def test_X1_an_edit_before_grouping_that_commits_after_the_claim_is_answered(bridge: Bridge) -> None:
    """When the app edits, no turn covers the message; the claim then reads the old text, and the edit commits last."""
    bridge.stop_clock()
    match = bridge.match()
    message = bridge.write(match, "OLD")
    app = bridge.session()
    edit(bridge, message, connection=app)
    claim = bridge.claimed(match, plain=False)
    assert texts_of(claim) == ["OLD"]
    app.commit()
    assert bridge.finish(claim, pause=0).name == "superseded"
    second = again(bridge, claim.turn)
    assert texts_of(second) == ["NEW"]
    assert bridge.finish(second, pause=0).name == "answered"


@without(("take_along", "e.kind IN ('message', 'change')", "e.kind = 'message'"))
def test_X1_a_claim_takes_the_edits_along_that_it_reads(bridge: Bridge) -> None:
    """An edit that committed before the claim costs no second call, though no scheduler has grouped it."""
    bridge.stop_clock()
    match = bridge.match()
    message = bridge.write(match, "OLD")
    turn = bridge.pushed(match)
    edit(bridge, message)
    claim = bridge.claim(turn, plain=False)
    assert texts_of(claim) == ["NEW"]
    assert bridge.finish(claim, pause=0).name == "answered"


def test_X1_an_edit_of_what_waits_needs_nothing(bridge: Bridge) -> None:
    """Neither due times nor counts of messages move, and the claim reads the new text."""
    bridge.stop_clock()
    match = bridge.match()
    message = bridge.write(match, "OLD")
    [first] = bridge.group()
    edit(bridge, message)
    [changed] = bridge.group()
    second = bridge.write(match, "deux")
    [joined] = bridge.group()
    assert (first.place, changed.kind, joined.place) == (1, "change", 2)
    assert changed.due_at == joined.due_at == first.due_at
    bridge.advance(16)
    [push] = bridge.push()
    assert push.messages == 2
    claim = bridge.claim(push.turn_id, plain=False)
    assert texts_of(claim) == ["NEW", "deux"]
    assert bridge.finish(claim, pause=0).name == "answered"
    counts = bridge.value("SELECT bridge.verify(30, 10)")
    assert (counts["messages"], counts["answered"], counts["unaccounted"]) == (2, 2, 0)
    story = bridge.value("SELECT bridge.turn_story(%s)", claim.turn)
    assert story["message_ids"] == [message, second]


@without(("claim", "CASE WHEN token IS NULL THEN v_events ELSE covers END", "v_events"))
def test_X1_a_claim_that_is_repeated_covers_no_later_edit(bridge: Bridge) -> None:
    """The worker may have the answer of the first call, which knew the old text: its draft is not delivered."""
    _, [message], claim = begun(bridge)
    edit(bridge, message)
    bridge.group()
    assert bridge.store.claim(claim.turn, claim.token, plain=False).name == "claimed"
    assert bridge.finish(claim, pause=0).name == "superseded"


@without(("overtake", "bool_or(e.id <> ALL (a.covers))", "false"))
def test_X1_the_sweep_finds_an_edit_that_no_batch_named(bridge: Bridge) -> None:
    """A scheduler that died between grouping and overtaking leaves it to the next sweep of any scheduler."""
    _, [message], claim = begun(bridge)
    edit(bridge, message)
    bridge.group()
    assert [each.turn_id for each in bridge.store.overtake()] == [claim.turn]
    assert bridge.store.overtake() == []


def test_X1_an_edit_and_a_newer_message_make_one_answer(bridge: Bridge) -> None:
    """The waiting turn takes both over, and the edit is no second reason to compose."""
    match, [message], claim = typing(bridge)
    edit(bridge, message)
    bridge.write(match, "deux")
    bridge.group()
    assert [each.superseded for each in bridge.store.overtake([match])] == [True]
    assert bridge.turn(claim.turn).reason == "superseded"
    second = bridge.claimed(match, plain=False)
    assert texts_of(second) == ["NEW", "deux"]
    assert bridge.finish(second, pause=0).name == "answered"


@without(("recompose", "'second_message', 'merge'", "'max_merges', p_max_merges"))
def test_X1_a_bot_that_queues_hears_of_an_edit(bridge: Bridge) -> None:
    """With SECOND_MESSAGE=queue a newer message waits, and an edit is none."""
    with bridge.policy(second_message="queue"):
        match, [message], claim = begun(bridge)
        bridge.write(match, "deux")
        edit(bridge, message)
        bridge.group()
        assert [each.superseded for each in bridge.store.overtake([match])] == [True]
        bridge.push()
        assert texts_of(bridge.claim(claim.turn, plain=False)) == ["NEW"]


@without(("recompose", "IF NOT bridge.may_supersede(t.id, NULL, v_policy) THEN", "IF false THEN"))
def test_X1_a_person_who_edits_in_a_loop_is_answered(bridge: Bridge) -> None:
    """After MAX_MERGES calls and MAX_MERGES drafts the reply goes out, though it does not know the last edit."""
    match, [message], claim = begun(bridge)
    for count in range(2 * MAX_MERGES + 2):
        edit(bridge, message, f"NEW {count}")
        bridge.group()
        bridge.store.overtake([match])
        outcome = bridge.finish(claim, pause=0)
        if outcome.name == "answered":
            break
        claim = again(bridge, claim.turn)
        assert texts_of(claim) == [f"NEW {count}"]
    assert outcome.name == "answered"
    assert count == 2 * MAX_MERGES
    turn = bridge.turn(claim.turn)
    assert (turn.overtakes, turn.merges) == (MAX_MERGES, MAX_MERGES)
    assert bridge.value("SELECT bridge.verify(30, 10) -> 'unaccounted'") == 0


@without(
    ("recompose", "OR EXISTS (SELECT FROM bridge.parts p WHERE p.turn_id = t.id AND p.delivered_at IS NOT NULL)", "")
)
def test_X1_an_edit_leaves_a_reply_alone_of_which_a_part_is_out(bridge: Bridge) -> None:
    """It was said in part, so it is not composed again."""
    match, [message], claim = typing(bridge)
    bridge.rows(
        "INSERT INTO bridge.parts (turn_id, number, deliver_at, message_id, delivered_at)"
        " VALUES (%s, 1, bridge.now(), %s, bridge.now())",
        *(claim.turn, str(uuid4())),
    )
    edit(bridge, message)
    bridge.group()
    assert bridge.store.overtake([match]) == []
    assert bridge.turn(claim.turn).state == "typing"


@without(UNHEARD)
def test_X1_a_transcript_rings_and_finds_its_group(bridge: Bridge) -> None:
    """A voice note comes without a text, and its text comes later."""
    match = bridge.match()
    message = bridge.write(match, None)  # type: ignore[arg-type]
    bridge.group()
    bell = bridge.listen()
    edit(bridge, message, "bonjour")
    assert [channel for channel, _ in bell.heard()] == ["bot_events"]
    [event] = bridge.group()
    assert (event.kind, event.state) == ("change", "open")


# What a deletion does


@without(UNHEARD)
@pytest.mark.parametrize("begin", [composing, typing])
def test_X1_a_reply_is_composed_again_without_a_deleted_message(
    bridge: Bridge, begin: Callable[..., tuple[str, list[str], Claim]]
) -> None:
    """One of two messages is deleted while the bot composes or types."""
    match, [first, _], claim = begin(bridge, "un", "deux")
    delete(bridge, first)
    bridge.group()
    assert [each.superseded for each in bridge.store.overtake([match])] == [True]
    second = again(bridge, claim.turn)
    assert texts_of(second) == ["deux"]
    assert bridge.finish(second, pause=0).name == "answered"
    assert bridge.value("SELECT bridge.verify(30, 10) -> 'unaccounted'") == 0


@without(UNHEARD)
def test_X1_a_reply_whose_messages_are_all_deleted_is_gone(bridge: Bridge) -> None:
    """Its call is ended, and the next claim cancels the turn."""
    match, messages, claim = begun(bridge, "un", "deux")
    for message in messages:
        delete(bridge, message)
    bridge.group()
    assert [each.superseded for each in bridge.store.overtake([match])] == [True]
    outcome = again(bridge, claim.turn).outcome
    assert (outcome.name, outcome.details["reason"]) == ("cancelled", "gone")
    assert bridge.value("SELECT bridge.verify(30, 10) -> 'unaccounted'") == 0


@without(
    ("task", "OR bridge.withdrawn(h.message_id) IS NOT TRUE", "OR true"),
    ("sql", SOFT_DELETE),
)
def test_X1_a_withdrawn_message_is_not_told(bridge: Bridge) -> None:
    """An app that marks deleted messages replaces one function and lays one trigger."""
    if not bridge.taken:
        bridge.rows(SOFT_DELETE)
    match, [first, _], claim = begun(bridge, "un", "deux")
    bridge.rows("UPDATE messages SET deleted_at = now() WHERE id = %s", first, connection=bridge.people)
    bridge.group()
    assert [each.superseded for each in bridge.store.overtake([match])] == [True]
    assert texts_of(again(bridge, claim.turn)) == ["deux"]


@without(
    ("is_gone", "AND bridge.withdrawn(h.message_id) IS NOT TRUE", ""),
    ("owed", "AND bridge.withdrawn(m.message_id) IS NOT TRUE", ""),
    ("sql", SOFT_DELETE),
)
def test_X1_a_reply_to_withdrawn_messages_alone_is_gone_and_not_owed(bridge: Bridge) -> None:
    """Whether or not it may be composed again: neither a delivery, nor `verify`, nor `replay` answers them."""
    if not bridge.taken:
        bridge.rows(SOFT_DELETE)
    _, [message], claim = typing(bridge)
    bridge.rows("UPDATE messages SET deleted_at = now() WHERE id = %s", message, connection=bridge.people)
    bridge.advance(6)
    outcome = bridge.deliver(claim.turn, max_merges=0)
    assert (outcome.name, outcome.details.get("reason")) == ("cancelled", "gone")
    assert bridge.value("SELECT bridge.verify(30, 10) -> 'unaccounted'") == 0
    assert bridge.value("SELECT bridge.replay(NULL, NULL, NULL, 30, 100, false) -> 'given_back'") == 0


@without(("is_gone", "AND bridge.ended(p_match) IS NOT TRUE", ""))
def test_X1_nothing_is_said_in_a_match_that_is_over(bridge: Bridge) -> None:
    """An app that marks such matches replaces one function; a reply under way is `gone`, and so is the next claim."""
    bridge.rows(
        "CREATE TABLE over (match_id uuid); GRANT SELECT ON over TO PUBLIC;"
        "CREATE OR REPLACE FUNCTION bridge.ended(p_match uuid) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER"
        " AS 'SELECT EXISTS (SELECT FROM public.over o WHERE o.match_id = p_match)'"
    )
    match, _, claim = typing(bridge)
    bridge.rows("INSERT INTO over VALUES (%s)", match)
    bridge.advance(6)
    assert bridge.deliver(claim.turn).details.get("reason") == "gone"
    bridge.write(match)
    assert bridge.claim(bridge.pushed(match)).outcome.details["reason"] == "gone"


# What it costs the app


def test_X1_an_edit_that_no_turn_can_read_writes_nothing(bridge: Bridge) -> None:
    """After the answer, of a bot's own message, of two people's, of another column, and to the same text."""
    match, [message], claim = typing(bridge)
    bridge.advance(6)
    assert bridge.deliver(claim.turn).name == "answered"
    waiting = bridge.write(match, "deux")
    bridge.rows("UPDATE messages SET content = 'x' WHERE match_id = %s AND sender_id = %s", match, CAMILLE)
    bridge.rows("UPDATE messages SET content = content, created_at = created_at WHERE id = %s", waiting)
    edit(bridge, message)
    delete(bridge, message)
    assert bridge.rows(CHANGES) == []
    edit(bridge, waiting)
    assert len(bridge.rows(CHANGES)) == 1


@without(
    ("capture_change", "t.id = e.turn_id), true)", "t.id = e.turn_id FOR NO KEY UPDATE), true)"),
)
def test_X1_an_edit_waits_for_no_turn(bridge: Bridge) -> None:
    """The app's UPDATE goes on while a step of the bridge holds the turn (C1)."""
    _, [message], claim = begun(bridge)
    holder = bridge.session(ADMIN)
    bridge.rows("SELECT FROM bridge.turns WHERE id = %s FOR UPDATE", claim.turn, connection=holder)
    update = "UPDATE messages SET content = 'NEW' WHERE id = %s"
    bridge.execute(bridge.connect(), update, message).result_at_once()
    holder.rollback()


def test_X1_an_edit_reads_by_index(bridge: Bridge) -> None:
    """It reads its message's event and that event's turn, however many there are."""
    bridge.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, ended_at, reason)"
        " SELECT 'reply', gen_random_uuid(), %s, 'cancelled', bridge.now(), bridge.now(), 'left'"
        " FROM generate_series(1, 3000)",
        CAMILLE,
    )
    bridge.rows(
        "INSERT INTO bridge.events (kind, match_id, message_id, bot_id, turn_id, captured_at)"
        " SELECT 'message', match_id, gen_random_uuid(), bot_id, id, opened_at FROM bridge.turns"
    )
    match = bridge.match()
    message = bridge.write(match, "OLD")
    bridge.group()
    session = bridge.session(ADMIN)
    bridge.rows("UPDATE messages SET content = 'NEW' WHERE id = %s", message, connection=session)
    read = bridge.value(
        "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
        " WHERE schemaname = 'bridge'",
        connection=session,
    )
    assert read < 20


# What is left over


@without(("group_events", "IF v_changes THEN", "IF false THEN"))
def test_X1_no_edit_stays_ungrouped(bridge: Bridge) -> None:
    """Not of an answered message, of one that was set aside, nor of one that is unknown: it would silence the bell."""
    match, [message], claim = typing(bridge)
    app = bridge.session()
    edit(bridge, message, connection=app)
    bridge.advance(6)
    assert bridge.deliver(claim.turn).name == "answered"
    app.commit()

    aside = bridge.match()
    bad = bridge.write(aside, "OLD")
    bridge.rows("UPDATE bridge.events SET error = 'no' WHERE message_id = %s", bad)
    edit(bridge, bad)
    unknown = bridge.write(bridge.match(), "OLD")
    edit(bridge, unknown)
    bridge.rows("DELETE FROM bridge.events WHERE message_id = %s AND kind = 'message'", unknown)

    assert [event.turn_id for event in bridge.group()] == [claim.turn]
    ungrouped = "SELECT count(*) FROM bridge.events WHERE turn_id IS NULL AND error IS NULL"
    assert bridge.value(ungrouped) == 0
    assert bridge.store.overtake([match]) == []
    assert bridge.value("SELECT count(*) FROM bridge.turns") == 1

    bridge.advance(1)
    bridge.rows("SELECT bridge.replay(NULL, NULL, NULL, 30, 100, false)")
    assert sorted(event.kind for event in bridge.group()) == ["change", "message", "message"]
    assert bridge.value(ungrouped) == 0
